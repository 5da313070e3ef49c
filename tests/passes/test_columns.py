"""Keys turned once: which operands of one-pass kernels are copied, and that the copies are each task's own."""

from __future__ import annotations

import pytest

from effcc.ir.dependences import shared_axes
from effcc.ir.kernel import Kernel
from effcc.ir.parser import parse_kernel, parse_schedule
from effcc.ir.printer import print_kernel
from effcc.ir.verifier.schedules import Misfit, verify_schedule
from effcc.passes.columns import with_columns


def attention(keys: str = "K[n,k]", shape: str = "64,8", rows: int = 32) -> Kernel:
    return parse_kernel(f"""
        kernel @k(Q: f32[{rows},8], K: f32[{shape}], V: f32[64,4]) -> (O: f32[{rows},4])
          over m={rows}, n=64, k=8, f=4 {{
          S[m,n] = sum(k: Q[m,k] * {keys})
          M[m] = max(n: S[m,n])
          P[m,n] = exp(S[m,n] - M[m])
          O[m,f] = sum(n: P[m,n] * V[n,f]) rescale exp(M'[m] - M[m])
        }}""")


def test_keys_that_lie_apart_are_copied_with_their_lanes_side_by_side() -> None:
    text = print_kernel(with_columns(attention()))
    assert "K_columns[n,k] = K[n,k]\n  S[m,n] = sum(k: Q[m,k] * K_columns[n,k])" in text


@pytest.mark.parametrize(
    "kernel",
    [attention("K[k,n]", "8,64"), attention(rows=2)],
    ids=["keys that are neighbours", "rows too few to read a copy"],
)
def test_other_operands_stay_as_they_are(kernel: Kernel) -> None:
    assert with_columns(kernel) == kernel


def test_every_task_may_make_its_own_copy_if_it_holds_it() -> None:
    kernel = with_columns(attention())
    assert shared_axes(kernel) == ("m",)
    inside = """
        hold K_columns, S, P in local {
          for n by 1, k by 1 { do K_columns }
          for m by 1, n by 1 { hold S in registers { for k by 1 { do S } } }
          for m by 1 { hold M in registers { for n by 1 { do M } } }
          for m by 1, n by 1 { do P }
          for m by 1, f by 1 { hold O in registers { for n by 1 { do O } } }
        }"""
    around = "hold M, O in local {{ for n by 16 {{ {} }} }}"
    text = f"schedule @k {{ parallel m by 8 {{ {around.format(inside)} }} }}"
    verify_schedule(kernel, parse_schedule(text).schedule)
    outside = f"schedule @k {{ hold K_columns in local {{ parallel m by 8 {{ {around.format(inside)} }} }} }}"
    with pytest.raises(Misfit):
        verify_schedule(kernel, parse_schedule(outside.replace("hold K_columns, S, P", "hold S, P")).schedule)

"""Few rows times columns that are far apart are summed along the lanes, what a column reads being loaded once."""

from __future__ import annotations

import pytest

from effcc.ir.parser import parse_kernel
from effcc.passes.tiling.choose import choose
from effcc.target import generic

KERNEL = """
    kernel @scores(Q: f32[2,{rows},64], K: {keys}) -> (S: f32[2,{rows},256]) over g=2, m={rows}, n=256, k=64 {{
      S[g,m,n] = sum(k: Q[g,m,k] * {read})
    }}
"""


def note(rows: int, keys: str = "f32[2,256,64]", read: str = "K[g,n,k]") -> str:
    kernel = parse_kernel(KERNEL.format(rows=rows, keys=keys, read=read))
    return choose(kernel, generic("avx2"))[1].notes[0]


@pytest.mark.parametrize(("keys", "read"), [("f32[2,256,64]", "K[g,n,k]"), ("i8[2,256,64]", "cast<f32>(K[g,n,k])")])
def test_lanes_run_along_the_sum_and_rows_share_a_column(keys: str, read: str) -> None:
    assert "across k" in note(4, keys, read) and "shared by 4 of m" in note(4, keys, read)


def test_many_rows_and_columns_side_by_side_take_a_register_tile() -> None:
    assert "tile" in note(8)
    assert "tile" in note(4, "f32[2,64,256]", "K[g,k,n]")

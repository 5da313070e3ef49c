"""Panels of decoded weights: which factors are decoded apart, and when that is predicted to pay."""

from __future__ import annotations

from dataclasses import replace

from effcc.ir.dependences import is_decoded, shared_axes
from effcc.ir.kernel import Kernel
from effcc.ir.parser import parse_kernel
from effcc.ir.printer import print_kernel
from effcc.ir.program import Program
from effcc.ir.verifier import verify_schedule
from effcc.passes.fusion.split import split_axes
from effcc.passes.panels import decode_panels, with_panels
from effcc.passes.tiling.choose import choose
from effcc.passes.tiling.written import bounds
from effcc.target import Target, generic

SYMMETRIC = "cast<f32>((shr(cast<i32>(Q[n,k // 2]), cast<i32>(k % 2 * 4)) and 15) - 8) * S[n,k // 32]"
TABLE = "T[cast<i64>(shr(cast<i32>(Q[n,k // 2]), cast<i32>(k % 2 * 4)) and 15)] * S[n,k // 32]"
BYTES = "cast<f32>(B[n,k])"
ARRAYS = {"Q": "u8[{n},64]", "S": "f32[{n},4]", "T": "f32[16]", "B": "i8[{n},128]"}


def kernel(value: str = SYMMETRIC, rows: int = 64, columns: int = 96) -> Kernel:
    used = {name: type for name, type in ARRAYS.items() if f"{name}[" in value}
    params = ", ".join(f"{name}: {type.format(n=columns)}" for name, type in used.items())
    made = parse_kernel(
        f"kernel @k(X: f32[{rows},128], {params}) -> (O: f32[{rows},{columns}]) over m={rows}, n={columns}, k=128 "
        f"{{ O[m,n] = sum(k: X[m,k] * ({value})) }}"
    )
    return split_axes(replace(made, weights=frozenset(used)))


def chosen(one: Kernel, target: Target, once: bool = True) -> Kernel:
    program = Program("p", (), (), (), {"k": one}, ())
    return decode_panels(program, target, once).kernels["k"]


def test_what_is_decoded_of_weights_is_a_statement_of_its_own() -> None:
    made = with_panels(kernel())
    assert "O_panel[k_o_o,k_o_i,k_i,n] = cast<f32>((shr(cast<i32>(Q[n,k_o_o * 16 + k_o_i])" in print_kernel(made)
    assert "* O_panel[k_o_o,k_o_i,k_i,n])" in print_kernel(made)
    assert is_decoded(made, made.statements[0])
    assert shared_axes(made) == ("m", "n"), "each task may decode for itself"


def test_weights_that_are_read_as_they_are_have_no_panels() -> None:
    plain = parse_kernel(
        "kernel @k(X: f32[64,8], W: f32[96,8]) -> (O: f32[64,96]) over m=64, n=96, k=8 "
        "{ O[m,n] = sum(k: X[m,k] * W[n,k]) }"
    )
    plain = replace(plain, weights=frozenset({"W"}))
    assert with_panels(plain) is plain
    activations = replace(kernel(), weights=frozenset())
    assert with_panels(activations) is activations, "what is not constant is no panel"


def test_many_rows_decode_once_and_few_where_they_multiply() -> None:
    machine = generic("avx2").one_core()
    assert len(chosen(kernel(rows=128), machine).statements) == 2
    assert len(chosen(kernel(rows=2), machine).statements) == 1


def test_programs_of_gradients_copy_weights_panel_by_panel_instead_of_packing_them() -> None:
    machine = generic("avx2").one_core()
    layer = parse_kernel(
        "kernel @k(X: f32[128,768], W: f32[768,768]) -> (O: f32[128,768]) over m=128, n=768, k=768 "
        "{ O[m,n] = sum(k: X[m,k] * W[n,k]) }"
    )
    layer = replace(layer, weights=frozenset({"W"}))
    assert chosen(layer, machine) is layer, "packed once for many calls, it costs nothing"
    copied = chosen(layer, machine, once=False)
    assert [str(s.axes) for s in copied.statements] == ["('k', 'n')", "('m', 'n')"]
    kernel, schedule = choose(copied, machine)
    assert not schedule.packs
    verify_schedule(kernel, schedule, bounds(machine))


def test_gradients_of_weights_copy_the_factor_whose_rows_share_their_sets_of_the_cache() -> None:
    machine = generic("avx2").one_core()
    gradient = parse_kernel(
        "kernel @k(X: f32[128,3072], Y: f32[128,768]) -> (O: f32[3072,768]) over m=3072, n=768, k=128 "
        "{ O[m,n] = sum(k: X[k,m] * Y[k,n]) }"
    )
    made = chosen(gradient, machine, once=False)
    assert made.statements[0].reads[0].buffer == "Y"
    assert len(made.statements) == 2


def test_keys_of_a_run_time_number_are_copied_where_their_length_is_known() -> None:
    machine = generic("avx2").one_core()
    scores = "kernel @k(X: f32[b,m,{k}], Y: f32[b,n,{k}]) -> (O: f32[b,m,n]) over b=b, m=m, n=n, k={k} {{ {body} }}"
    product = "O[b,m,n] = sum(k: X[b,m,k] * Y[b,n,k])"
    made = chosen(parse_kernel(scores.format(k=64, body=product)), machine)
    assert len(made.statements) == 2 and made.statements[0].reads[0].buffer == "Y"
    kernel, schedule = choose(made, machine)
    verify_schedule(kernel, schedule, bounds(machine))
    unknown = parse_kernel(scores.format(k="s", body=product))
    assert with_panels(unknown) is unknown

"""Codes that share a byte are summed before anything else: text in, text out."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.ir.interpreter import run_kernel
from effcc.ir.kernel import Kernel
from effcc.ir.parser import parse_kernel
from effcc.ir.printer import print_kernel
from effcc.passes.fusion.codes import sum_codes
from effcc.passes.fusion.polyhedra import guard_accesses
from effcc.passes.fusion.split import split_axes

HEAD = (
    "kernel @linear(x: f32[128], Q: u8[9,64], S: f32[9,4], M: f32[9,4], T: f32[16], U: f32[4], "
    "H: f16[9,4]) -> (O: f32[9]) "
    "over n=9, k=128"
)
BITS = "and(shr(cast<i32>(Q[n,k // 2]), cast<i32>(4 * (k % 2))), 15)"
CODE = f"cast<f32>({BITS})"
PAIR = "and(shr(cast<i32>(Q[n,k // 4]), cast<i32>(2 * (k % 4))), 3)"
FORMS = {
    "symmetric": CODE.replace("15)", "15) - 8") + " * S[n,k // 32]",
    "minimum": f"({CODE} * S[n,k // 32] + M[n,k // 32])",
    "channel": f"{CODE} * S[n,0]",
    "half": f"({CODE} * cast<f32>(H[n,k // 32]) + M[n,k // 32])",
    "table": f"T[cast<i64>({BITS})] * S[n,k // 32]",
    "table of four": f"U[cast<i64>({PAIR})] * S[n,k // 32]",
    "two bits": f"cast<f32>({PAIR} - 2) * S[n,k // 32]",
}


def kernel(form: str) -> Kernel:
    return parse_kernel(f"{HEAD} {{ O[n] = sum(k: x[k] * ({FORMS[form]})) }}")


def test_a_scale_and_a_minimum_are_applied_once_for_the_codes_of_a_byte() -> None:
    text = print_kernel(sum_codes(split_axes(kernel("minimum"))))
    assert "sum(k_o_o, k_o_i: mul_add(" in text
    assert text.count("S[") == text.count("M[") == 1
    assert text.count("and 15") == 1, "nothing is masked of what the shift leaves"
    assert "over n=9, k_o_o=4, k_o_i=16 {" in text


def test_parameters_that_are_computed_are_computed_once_a_group() -> None:
    text = print_kernel(sum_codes(split_axes(kernel("half"))))
    assert "O.parameter0[n,k_o_o] = cast<f32>(H[n,k_o_o])" in text
    assert text.count("cast<f32>(H[") == 1
    assert "parameter1" not in text, "what is only loaded is loaded where it is used"


@pytest.mark.parametrize("form", ["symmetric", "minimum", "channel", "half", "two bits"])
def test_what_takes_the_place_of_shifts_is_the_same_sum(form: str) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.integers(-64, 64, 128).astype(np.float32) * 64,  # a 64th is an integer: none is rounded
        "Q": rng.integers(0, 256, (9, 64), np.uint8),
        "S": np.exp2(rng.integers(-2, 3, (9, 4))).astype(np.float32),
        "M": rng.integers(-9, 9, (9, 4)).astype(np.float32),
        "H": np.exp2(rng.integers(-2, 3, (9, 4))).astype(np.float16),
    }
    given = arrays | {"T": np.zeros(16, np.float32), "U": np.zeros(4, np.float32)}
    summed = sum_codes(split_axes(kernel(form)))
    assert "shr(" not in print_kernel(summed)
    np.testing.assert_array_equal(run_kernel(summed, given)["O"], run_kernel(kernel(form), given)["O"])


def test_what_every_code_is_off_is_taken_from_the_inputs() -> None:
    text = print_kernel(sum_codes(split_axes(kernel("symmetric"))))
    assert "* -8.0" in text and "- 8)" not in text
    assert text.count("S[n,k_o_o]") == 1, "with the codes, before the scale"


def test_products_of_many_rows_stay_products() -> None:
    text = "kernel @k(x: f32[5,8], Q: u8[3,4]) -> (O: f32[5,3]) over m=5, n=3, k=8 { O[m,n] = sum(k: x[m,k] * "
    found = split_axes(parse_kernel(text + CODE + ") }"))
    assert sum_codes(found) == found


def test_a_code_cannot_leave_a_table_of_as_many_elements() -> None:
    assert "where" not in print_kernel(guard_accesses(sum_codes(split_axes(kernel("table")))))
    short = parse_kernel(f"{HEAD} {{ O[n] = sum(k: x[k] * U[cast<i64>({BITS})]) }}")
    assert "where" in print_kernel(guard_accesses(short))


def test_parameters_of_sums_side_by_side_come_first() -> None:
    head = HEAD.replace("(O: f32[9])", "(O: f32[9], P: f32[9])").replace(
        "H: f16[9,4]", "H: f16[9,4], R: u8[9,64], I: f16[9,4]"
    )
    other = FORMS["half"].replace("Q[", "R[").replace("H[", "I[")
    both = f"{head} {{ O[n] = sum(k: x[k] * ({FORMS['half']})) P[n] = sum(k: x[k] * ({other})) }}"
    targets = [s.target for s in sum_codes(split_axes(parse_kernel(both))).statements]
    assert targets == ["O.parameter0", "P.parameter0", "O", "P"]

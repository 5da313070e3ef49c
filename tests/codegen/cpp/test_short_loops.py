"""What one tap of a window loads is not kept for the next where a tile's sums take all registers."""

from __future__ import annotations

import pytest

from effcc.codegen.cpp.printer import print_function
from effcc.ir.parser import parse_vectors


def printed(turns: int, sums: int, inner: str = "", apart: int = 1) -> str:
    """A tile of so many sums over so many taps, each of elements `apart` from the one before."""
    names = [f"s{n}" for n in range(sums)]
    steps = " ".join(
        f"set {s} = fma(broadcast<f32x8>(load<f32>(X[{apart}*k + {n}])), w, {s})" for n, s in enumerate(names)
    )
    stores = " ".join(f"do store(O[{8 * n}], {s})" for n, s in enumerate(names))
    registers = f"registers f32x8 {', '.join(names)} = broadcast<f32x8>(f32(0.0))"
    taps = f"loop k in [0]..[{turns}] step 1 {{ let w: f32x8 = load<f32x8>(W[8*k]) {steps} {inner} }}"
    text = f"vectors @f(X: f32 read, W: f32 read, O: f32;) {{ {registers} {taps} {stores} }}"
    return print_function(parse_vectors(text)).text


@pytest.mark.parametrize(("turns", "sums", "apart"), [(3, 8, True), (7, 12, True), (3, 4, False), (64, 12, False)])
def test_taps_stay_apart_where_they_are_few_and_sums_many(turns: int, sums: int, apart: bool) -> None:
    assert ("forget_loads();" in printed(turns, sums)) == apart


def test_only_the_innermost_loop_keeps_its_turns_apart() -> None:
    assert "forget_loads();" not in printed(3, 8, "loop j in [0]..[2] step 1 { do store(O[j], w) }")


def test_taps_that_read_nothing_of_one_another_are_left_to_the_compiler() -> None:
    assert "forget_loads();" in printed(3, 8, apart=4)
    assert "forget_loads();" not in printed(3, 8, apart=8)

"""Divisions that ranges decide are folded, and never to another value."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from effcc.ir.division import fold_division
from effcc.ir.dtypes import i64
from effcc.ir.expr import Axis, Call, Const, Expr, add, floor_div, modulo, multiply

EXTENTS = {"i": 5, "j": 4, "k": 24}
STEPS = {"k": 12}


def _value(e: Expr, at: dict[str, int]) -> int:
    match e:
        case Const(value=v):
            return int(v)
        case Axis(name=name):
            return at[name]
        case Call(function=function, operands=(a, b)):
            left, right = _value(a, at), _value(b, at)
            return {"add": left + right, "mul": left * right}.get(function) or (
                left // right if function == "floordiv" else left % right if function == "mod" else 0
            )
    raise AssertionError(e)


terms = st.builds(
    lambda axis, factor: multiply(Axis(axis), Const(factor, i64)), st.sampled_from("ijk"), st.integers(-24, 24)
) | st.builds(lambda v: Const(v, i64), st.integers(-30, 30))


@given(st.lists(terms, min_size=1, max_size=4), st.integers(1, 24), st.booleans())
def test_folding_keeps_the_value_at_every_point(parts: list[Expr], c: int, remainder: bool) -> None:
    dividend = parts[0]
    for part in parts[1:]:
        dividend = add(dividend, part)
    e = Call("mod" if remainder else "floordiv", (dividend, Const(c, i64)), i64)
    folded = fold_division(e, EXTENTS.get, lambda axis: STEPS.get(axis, 1))
    points = itertools.product(*(range(0, n, STEPS.get(axis, 1)) for axis, n in EXTENTS.items()))
    for point in points:
        at = dict(zip(EXTENTS, point, strict=True))
        assert _value(folded, at) == _value(e, at)


def test_merged_axes_come_apart() -> None:
    merged = add(multiply(Axis("i"), Const(4, i64)), Axis("j"))
    assert fold_division(floor_div(merged, Const(4, i64)), EXTENTS.get) == Axis("i")
    assert fold_division(modulo(merged, Const(4, i64)), EXTENTS.get) == Axis("j")


def test_a_loop_step_counts_as_a_factor() -> None:
    e = modulo(add(Axis("k"), Axis("j")), Const(6, i64))
    assert fold_division(e, EXTENTS.get) == e
    assert fold_division(e, EXTENTS.get, lambda axis: STEPS.get(axis, 1)) == Axis("j")

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


@given(st.lists(terms, min_size=1, max_size=4), st.integers(1, 24), st.booleans(), st.integers(1, 6))
def test_folding_keeps_the_value_at_every_point(parts: list[Expr], c: int, remainder: bool, d: int) -> None:
    dividend = parts[0]
    for part in parts[1:]:
        dividend = add(dividend, part)
    dividend = floor_div(dividend, Const(d, i64))
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


@st.composite
def index_arithmetic(draw: st.DrawFn, depth: int = 4) -> tuple[Expr, Expr]:
    """An index as the constructors fold it, and as it was written."""
    if depth == 0 or draw(st.integers(0, 4)) == 0:
        leaf = draw(
            st.sampled_from([Axis("i"), Axis("j"), Axis("k")]) | st.integers(-9, 9).map(lambda v: Const(v, i64))
        )
        return leaf, leaf
    left, written = draw(index_arithmetic(depth=depth - 1))
    name = draw(st.sampled_from(["add", "mul", "floordiv", "mod"]))
    if name == "add":
        right, other = draw(index_arithmetic(depth=depth - 1))
        return add(left, right), Call("add", (written, other), i64)
    constant = Const(draw(st.sampled_from([1, 2, 3, 4, 6])), i64)
    fold = {"mul": multiply, "floordiv": floor_div, "mod": modulo}[name]
    return fold(left, constant), Call(name, (written, constant), i64)


@given(index_arithmetic())
def test_constructors_keep_the_value_at_every_point(pair: tuple[Expr, Expr]) -> None:
    folded, written = pair
    for i, j, k in itertools.product(range(3), range(3), range(0, 8, 3)):
        at = {"i": i, "j": j, "k": k}
        assert _value(folded, at) == _value(written, at)


def test_quotient_and_remainder_of_one_division_are_the_dividend() -> None:
    flat = add(multiply(Axis("i"), Const(33, i64)), Axis("j"))
    nine, thirtythree = Const(9, i64), Const(33, i64)
    shifted = add(multiply(add(floor_div(flat, nine), Const(2, i64)), nine), modulo(flat, nine))
    assert shifted == add(flat, Const(18, i64))
    again = add(multiply(floor_div(shifted, thirtythree), thirtythree), modulo(shifted, thirtythree))
    assert again == shifted

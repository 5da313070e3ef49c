"""How large integers made of sizes become: an upper bound of everything that is computed on the way."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from effcc.ir.dims import dim, evaluate, symbol
from effcc.ir.magnitude import LARGEST, Limits, magnitude

A, B = symbol("a"), symbol("b")
LEAVES = st.sampled_from([A, B, sympy.Integer(3), sympy.Integer(-7), sympy.Integer(1)])
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: p[0] + p[1]),
        st.tuples(inner, inner).map(lambda p: p[0] * p[1]),
        st.tuples(inner, inner).map(lambda p: sympy.Max(*p)),
        st.tuples(inner, st.integers(2, 9)).map(lambda p: sympy.floor(p[0] / p[1])),
        st.tuples(inner, st.integers(2, 9)).map(lambda p: sympy.Mod(*p)),
    ),
    max_leaves=6,
)


@given(EXPRESSIONS, st.integers(0, 2**70), st.integers(0, 2**70))
def test_nothing_on_the_way_is_larger(e: Any, a: int, b: int) -> None:
    e = dim(e)
    if isinstance(e, int):
        return
    values = {"a": a, "b": b}
    bound = magnitude(e, values)
    for part in sympy.preorder_traversal(e):
        if part.is_integer and not part.is_Number:
            assert abs(evaluate(part, values)) <= bound
        if isinstance(part, sympy.floor):  # its numerator is computed whole
            assert abs(Fraction(str(part.args[0].subs({A: a, B: b})))) <= bound


@pytest.mark.parametrize("e", [A * 3, A * A, sympy.floor(A * 3 / 7), 2**40 * A, A + B, A**5])
def test_what_is_safe_leaves_64_bits_soon_after(e: Any) -> None:
    limits = Limits.of([e], {})
    assert limits.hold([limits.safe] * len(limits.names))
    assert magnitude(e, dict.fromkeys(limits.names, limits.safe)) <= LARGEST
    assert magnitude(e, dict.fromkeys(limits.names, 2 * limits.safe + 1)) > LARGEST


def test_expressions_of_sizes_that_cannot_leave_are_not_watched() -> None:
    assert Limits.of([A * 3 + 1, A // 7], {"a": 2**40}).names == ()
    assert Limits.of([A], {"a": 2**40}).names == ()
    assert Limits.of([A], {}).names == ("a",)  # a number, which may have any size

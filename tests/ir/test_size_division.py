"""Sizes have one form, whichever way their divisions were spelled, and it has their value."""

from __future__ import annotations

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from effcc.ir.dims import symbol
from effcc.ir.size_division import normal_divisions

S, T = symbol("s"), symbol("t")
DIVISORS = st.sampled_from([2, 3, 4, 8])


def _combined(sizes: st.SearchStrategy[sympy.Expr]) -> st.SearchStrategy[sympy.Expr]:
    """Sums, multiples, quotients rounded down and up, and remainders of `sizes`."""
    return st.one_of(
        st.builds(lambda a, b: a + b, sizes, sizes),
        st.builds(lambda a, b, n: a - n * b, sizes, sizes, DIVISORS),
        st.builds(lambda a, n: sympy.floor(a / n), sizes, DIVISORS),
        st.builds(lambda a, n: sympy.ceiling(a / n), sizes, DIVISORS),
        st.builds(lambda a, n: sympy.Mod(a, n), sizes, DIVISORS),
    )


SIZES = st.recursive(st.one_of(st.just(S), st.just(T), st.integers(1, 9).map(sympy.Integer)), _combined, max_leaves=6)


@given(SIZES, st.integers(0, 60), st.integers(0, 60))
def test_the_form_has_the_value_and_is_final(size: sympy.Expr, s: int, t: int) -> None:
    form = normal_divisions(size)
    values = {S: s, T: t}
    assert form.subs(values) == size.subs(values)
    assert normal_divisions(form) == form
    assert not form.has(sympy.ceiling, sympy.Mod)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (sympy.ceiling(S / 8), sympy.floor((S + 7) / 8)),
        (S + sympy.Mod(-S, 8), 8 * sympy.ceiling(S / 8)),
        (sympy.Mod(S, 4), S - 4 * sympy.floor(S / 4)),
        (sympy.floor((2 * S + 1) / 4), sympy.floor(S / 2)),
        (sympy.ceiling(S / 2), S - sympy.floor(S / 2)),
        (sympy.floor((S + sympy.Mod(-S, 8)) / sympy.ceiling(S / 8)), sympy.Integer(8)),
    ],
)
def test_equal_sizes_look_alike(one: sympy.Expr, other: sympy.Expr) -> None:
    assert normal_divisions(one) == normal_divisions(other)

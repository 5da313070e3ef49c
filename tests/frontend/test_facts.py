"""What is proved of sizes holds for every value that their symbols may have."""

from __future__ import annotations

import itertools

import pytest
import sympy

from effcc.frontend.facts import Facts
from effcc.ir.dims import dim, evaluate, symbol

N, M = symbol("s0"), symbol("s1")
RANGES = {"s0": (2, 12), "s1": (0, None)}
PROVED = [N - sympy.floor(N / 2), N - 2, 12 - N, N + M - 2, sympy.floor(N / 3), 4 - sympy.floor(N / 3), 2 * N - 3]
UNKNOWN = [N - 3, 11 - N, N - M, M - 1, sympy.floor(N / 2) - 2, 3 - sympy.floor(N / 3)]


@pytest.mark.parametrize("size", PROVED, ids=str)
def test_ranges_prove_what_always_holds(size: sympy.Expr) -> None:
    assert Facts(ranges=RANGES).not_negative(dim(size))
    for n, m in itertools.product(range(2, 13), range(15)):
        assert evaluate(dim(size), {"s0": n, "s1": m}) >= 0


@pytest.mark.parametrize("size", UNKNOWN, ids=str)
def test_what_fails_somewhere_is_not_proved(size: sympy.Expr) -> None:
    assert not Facts(ranges=RANGES).not_negative(dim(size))
    values = [evaluate(dim(size), {"s0": n, "s1": m}) for n, m in itertools.product(range(2, 13), range(15))]
    assert min(values) < 0

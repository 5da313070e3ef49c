"""Functions of sizes are drawn, and one that is imported as another is seen."""

from __future__ import annotations

import pytest
import sympy

from effcc.frontend import sizes
from effcc.fuzz import sizes as checks
from effcc.fuzz.sizes import SizeChecks


def test_functions_of_sizes_are_what_python_computes() -> None:
    assert SizeChecks(0).some(60) == []


def test_a_comparison_that_is_wrong_where_sizes_are_equal_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sizes._RELATIONS, sympy.LessThan, ("lt", False))
    failures = SizeChecks(0).some(150)
    assert failures and all("<=" in f.message or ">" in f.message for f in failures)


def test_a_quotient_that_c_rounds_towards_zero_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = "return a / b - (a % b != 0 && (a < 0) != (b < 0));"
    assert right in checks.SIZE_FUNCTIONS
    monkeypatch.setattr(checks, "SIZE_FUNCTIONS", checks.SIZE_FUNCTIONS.replace(right, "return a / b;"))
    failures = SizeChecks(0).some(100)
    assert failures and all("in C, it is" in f.message for f in failures)

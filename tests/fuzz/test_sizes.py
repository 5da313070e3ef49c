"""Functions of sizes are drawn, and one that is imported as another is seen."""

from __future__ import annotations

import pytest
import sympy

from effcc.frontend import sizes
from effcc.fuzz.sizes import SizeChecks


def test_functions_of_sizes_are_what_python_computes() -> None:
    assert SizeChecks(0).some(60) == []


def test_a_comparison_that_is_wrong_where_sizes_are_equal_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sizes._RELATIONS, sympy.LessThan, ("lt", False))
    failures = SizeChecks(0).some(150)
    assert failures and all("<=" in f.message or ">" in f.message for f in failures)

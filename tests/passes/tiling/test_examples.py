"""The examples in the docstrings run."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["constraints", "footprint", "notation", "solver"])
def test_docstring_examples_run(module):
    result = doctest.testmod(importlib.import_module(f"effcc.passes.tiling.{module}"))
    assert result.attempted > 0
    assert result.failed == 0

"""Floats among a call's arguments, `f(x, 2.5)`: PyTorch makes tensors of them, and of the arithmetic on them.

Where it has no form for some arithmetic (`k % 3`), it takes the float for a constant, and compiles again for another
one; it is to be told so by NotImplementedError, but of some functions an AttributeError tells it nothing.
"""

from __future__ import annotations

from typing import Any

from torch.utils._sympy.interp import handlers
from torch.utils._sympy.reference import TensorReferenceAnalysis


def name_missing_forms() -> None:
    """Make PyTorch's arithmetic on tensors raise NotImplementedError for each function that it lacks."""
    for name in {*handlers().values()}:
        if not hasattr(TensorReferenceAnalysis, name):
            setattr(TensorReferenceAnalysis, name, staticmethod(_missing(name)))


def _missing(name: str) -> Any:
    def form(*_: Any) -> Any:
        raise NotImplementedError(f"{name} of tensors")

    return form

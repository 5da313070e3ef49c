"""What a program gives, or raises, as a value that can be compared with what another run gave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map


@dataclass(frozen=True)
class Outcome:
    """The results of a call, detached, or the error that it raised."""

    results: Any = None
    error: Exception | None = None


def outcome(call: Callable[..., Any], *arguments: Any) -> Outcome:
    """What a call gives or raises; the tensors among its arguments are copies, which it may write."""
    try:
        return Outcome(tree_map(_kept, call(*tree_map(_copied, arguments))))
    except Exception as error:  # whatever it is, eager has to raise one of its kind
        return Outcome(error=error)


def difference(found: Outcome, wanted: Outcome) -> str:
    """How an outcome differs from eager's; empty where it does not: values, dtypes, shapes, strides, and errors."""
    if wanted.error is not None:
        return "" if found.error is not None else f"expected {wanted.error!r:.200}, got {found.results}"
    if found.error is not None:
        return f"raised {type(found.error).__name__}: {str(found.error)[:300]}"
    return _differs(found.results, wanted.results)


def _differs(found: Any, wanted: Any) -> str:
    if isinstance(wanted, list | tuple):
        if not isinstance(found, list | tuple) or len(found) != len(wanted):
            return f"expected {wanted}, got {found}"
        return "; ".join(filter(None, map(_differs, found, wanted)))
    if not isinstance(wanted, Tensor):
        same = type(found) is type(wanted) and (found == wanted or (found != found and wanted != wanted))
        return "" if same else f"expected {wanted!r}, got {found!r}"
    if not isinstance(found, Tensor) or found.dtype != wanted.dtype or found.shape != wanted.shape:
        return f"expected {wanted}, got {found}"
    if _steps(found) != _steps(wanted):
        return f"expected strides {wanted.stride()}, got {found.stride()}, shape {tuple(wanted.shape)}"
    try:
        torch.testing.assert_close(found, wanted, equal_nan=True)
    except AssertionError as error:
        return f"{error}\nexpected {wanted}\ngot {found}"
    return ""


def _steps(t: Tensor) -> Sequence[int]:
    return t.stride() if t.numel() else ()


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _kept(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) and 0 not in value.stride() else value

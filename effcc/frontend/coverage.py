"""Which of PyTorch's core operators are compiled, and why the others are not."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from effcc.frontend.aten import EXTERN, SIZES
from effcc.frontend.decompositions import compile_decompositions
from effcc.frontend.draws import is_random
from effcc.frontend.importer import REGISTRY, aten


@dataclasses.dataclass(frozen=True)
class Coverage:
    """How one overload is compiled: `native`, `extern` (with the reason) or `missing`."""

    overload: str
    status: str
    reason: str = ""


def coverage() -> list[Coverage]:
    """For every ATen overload that the dispatcher tags core: whether effcc has a form for it, and if not, why not."""
    return [_covered(overload) for overload in core_overloads()]


def core_overloads() -> list[Any]:
    """The overloads tagged `torch.Tag.core`, by name."""
    found = []
    for name in torch._C._dispatch_get_all_op_names():
        namespace, _, rest = name.partition("::")
        base, _, overload = rest.partition(".")
        if namespace != "aten":
            continue
        candidate = getattr(getattr(aten, base, None), overload or "default", None)
        if candidate is not None and torch.Tag.core in candidate.tags:
            found.append(candidate)
    return sorted(found, key=str)


def _covered(overload: Any) -> Coverage:
    name = str(overload)
    if overload in REGISTRY:
        return Coverage(name, "native")
    if overload in compile_decompositions():
        return Coverage(name, "native", "decomposed at capture")
    if overload in SIZES:
        return Coverage(name, "native", "a size, known or symbolic at compile time")
    if is_random(overload):
        return Coverage(name, "extern", "random numbers are drawn by PyTorch, in eager's order")
    return Coverage(name, "extern", EXTERN[overload]) if overload in EXTERN else Coverage(name, "missing")

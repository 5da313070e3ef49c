"""How far a model's output is from another's: what an error is measured as.

kl        mean over positions of  sum p (log p - log q),  p and q the softmax of the logits (last axis), in nats
squared   sum |y - y'|^2 / sum |y|^2  over all floating tensors of the output
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from effcc.errors import InputError, UnknownNameError

Measure = Callable[[Any, Any], float]
"""Takes the output of the model as it was, and that of the changed one, of the same call."""


def measure_named(name: str | Measure | None, output: Any) -> Measure:
    """The measure of a name; None: `kl` where the output has `logits`, else `squared`."""
    if callable(name):
        return name
    if name is None:
        name = "squared" if _logits(output) is None or isinstance(output, Tensor) else "kl"
    if name not in MEASURES:
        raise UnknownNameError("measure", name, MEASURES)
    if name == "kl" and _logits(output) is None:
        raise InputError(f"measure 'kl' needs logits: a tensor or an output with `logits`, got {type(output).__name__}")
    return MEASURES[name]


def kl(reference: Any, output: Any) -> float:
    """The mean Kullback-Leibler divergence of the softmax of logits, from the reference's, in nats."""
    p, q = (_logits(o).flatten(0, -2) for o in (reference, output))  # type: ignore[union-attr]
    total = 0.0
    for first in range(0, len(p), _POSITIONS):  # in pieces: a vocabulary is wide
        log_p, log_q = (t[first : first + _POSITIONS].float().log_softmax(-1) for t in (p, q))
        total += float((log_p.exp() * (log_p - log_q)).sum())
    return max(total / len(p), 0.0)


_POSITIONS = 128


def squared(reference: Any, output: Any) -> float:
    """The squared error relative to the reference's squares."""
    pairs = [
        (a.double(), b.double())
        for a, b in zip(_tensors(reference), _tensors(output), strict=True)
        if a.is_floating_point()
    ]
    if not pairs:
        raise InputError("measure 'squared' needs a model whose output holds floating tensors")
    wrong = sum(float((a - b).square().sum()) for a, b in pairs)
    return wrong / max(sum(float(a.square().sum()) for a, _ in pairs), 1e-300)


MEASURES: dict[str, Measure] = {"kl": kl, "squared": squared}


def logits_of(output: Any) -> Tensor:
    """The logits that `kl` reads."""
    found = _logits(output)
    assert found is not None
    return found


def _logits(output: Any) -> Tensor | None:
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    return found if isinstance(found, Tensor) and found.ndim >= 1 else None


def _tensors(output: Any) -> list[Tensor]:
    return [t for t in tree_leaves(dict(output) if hasattr(output, "keys") else output) if isinstance(t, Tensor)]


def detached(output: Any) -> Any:
    """An output that keeps no graph and that later calls do not write to."""
    return torch.utils._pytree.tree_map(lambda t: t.detach().clone() if isinstance(t, Tensor) else t, output)

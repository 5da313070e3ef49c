"""Ways to store the chosen weights of a trained model: each a function that changes a copy of it and says how many bits
a weight takes then, scales and all.

effcc's are its public verbs; peers' are in peers.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import effcc
from benchmarks.accuracy.kept import Kept
from benchmarks.accuracy.subjects import Subject
from effcc.budget.candidates import Recipe, Where
from effcc.compression.install import Weight, held_by
from effcc.compression.search import matrix_of

Store = Callable[[nn.Module], tuple[float, nn.Module]]
"""Stores the chosen weights of a model, which it may change; gives the bits a weight takes, and a model to judge."""


def weights(model: nn.Module, subject: Subject) -> dict[str, nn.Module]:
    """The modules whose weights are stored otherwise."""
    return {name: m for name, m in model.named_modules() if subject.chosen(name, m)}


def bits(model: nn.Module, subject: Subject) -> float:
    """Bits a weight, of encoded modules and dense ones."""
    chosen = weights(model, subject).values()
    stored = sum(t.nbytes for m in chosen for n, t in _own(m).items() if n.startswith(("weight", "input_")))
    return 8 * stored / count(subject)


def decoded(model: nn.Module, subject: Subject) -> nn.Module:
    """A copy of the original with a model's chosen weights as floats, changes of inputs undone: it runs quicker."""
    made = copy.deepcopy(subject.model)
    for name, module in weights(model, subject).items():
        held, weight = held_by(module), Weight({name: module})
        numbers = weight.dense()
        if held is not None:
            numbers = held.change.undone(matrix_of(weight, numbers), weight.taps).reshape(numbers.shape).numpy()
        made.get_submodule(name).weight = nn.Parameter(torch.tensor(numbers))
    return made


def count(subject: Subject) -> int:
    """How many weights there are to store."""
    return sum(dense_weight(m).numel() for m in weights(subject.model, subject).values())


def dense_weight(module: nn.Module) -> Any:
    return module.weight


def _own(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}


def quantized(subject: Subject, scheme: str, method: str, kept: Kept) -> Store:
    """One scheme for all, by a method of `effcc.quantize`; `weighted nearest` fits scales to what the data weigh."""

    def store(model: nn.Module) -> tuple[float, nn.Module]:
        _recipe(subject, scheme, method, kept)(model, subject.chosen)
        return bits(model, subject), decoded(model, subject)

    return store


def _recipe(subject: Subject, scheme: str, method: str, kept: Kept) -> Recipe:
    def store(model: nn.Module, where: Where) -> object:
        named, plain = method.removeprefix("weighted "), method == "nearest"
        data, resume = (None, None) if plain else (subject.seen, kept.inside("stored"))
        return effcc.quantize(model, scheme, method=named, data=data, where=where, resume=resume)

    return store


def budgeted(
    subject: Subject,
    schemes: Sequence[str],
    wanted: float,
    method: str,
    calls: int,
    minutes: float,
    kept: Kept,
) -> Store:
    """`effcc.compress` to so many bits a weight."""

    def store(model: nn.Module) -> tuple[float, nn.Module]:
        chosen = {id(m.weight) for m in weights(model, subject).values()}
        rest = sum(p.nbytes for p in (*model.parameters(), *model.buffers()) if id(p) not in chosen)
        _, report = effcc.compress(
            model,
            bytes=rest + wanted * count(subject) / 8,
            data=subject.calibration[:calls],
            schemes={scheme: _recipe(subject, scheme, method, kept) for scheme in schemes},
            where=subject.chosen,
            measure=subject.measure,
            minutes=minutes,
            resume=kept.inside("measured"),
        )
        print(report.summary())
        return bits(model, subject), decoded(model, subject)

    return store

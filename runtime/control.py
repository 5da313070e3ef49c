"""Control flow at run time: Python drives programs that were compiled for the bodies of a `cond`, `while` or `scan`.

Each function gives a call as an executable's segments take it: operands and sizes in, results out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from effcc.runtime.executable import ExternCall

Body = Callable[..., Sequence[Tensor]]
"""A body's executable: its operands in, its results out."""


def cond(bodies: Sequence[Body], attrs: Mapping[str, Any]) -> ExternCall:
    """The first body on the operands after the condition if it holds, else the second."""
    then, orelse = bodies

    def call(operands: Sequence[Tensor], sizes: Mapping[str, int]) -> list[Tensor]:
        condition, *rest = operands
        return list((then if bool(condition) else orelse)(*rest))

    return call


def while_(bodies: Sequence[Body], attrs: Mapping[str, Any]) -> ExternCall:
    """While the first body holds, the second takes the first `carried` operands to new ones."""
    holds, step = bodies
    carried: int = attrs["carried"]

    def call(operands: Sequence[Tensor], sizes: Mapping[str, int]) -> list[Tensor]:
        state, fixed = list(operands[:carried]), operands[carried:]
        while bool(holds(*state, *fixed)[0]):
            state = list(step(*state, *fixed))
        return state

    return call


def scan(bodies: Sequence[Body], attrs: Mapping[str, Any]) -> ExternCall:
    """One step for each slice of the scanned operands; what a step gives beyond the state is stacked."""
    (step,) = bodies
    carried: int = attrs["carried"]
    fixed_from = carried + int(attrs["scanned"])
    reverse: bool = attrs["reverse"]

    def call(operands: Sequence[Tensor], sizes: Mapping[str, int]) -> list[Tensor]:
        state, fixed = list(operands[:carried]), operands[fixed_from:]
        slices = list(zip(*(x.unbind() for x in operands[carried:fixed_from]), strict=True))
        stacked: list[list[Tensor]] = []
        for parts in reversed(slices) if reverse else slices:
            results = list(step(*state, *parts, *fixed))
            state = results[:carried]
            stacked.append(results[carried:])
        if reverse:
            stacked.reverse()
        return [*state, *(torch.stack(steps) for steps in zip(*stacked, strict=True))]

    return call


CONTROL: Mapping[str, Callable[[Sequence[Body], Mapping[str, Any]], ExternCall]] = {
    "cond": cond,
    "while": while_,
    "scan": scan,
}

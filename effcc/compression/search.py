"""Finding what each chosen weight is stored as, with what its layers see of calibration data where that is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from effcc.compression.calibrate import Calibration
from effcc.compression.calibration import Seen, gather, gram_bytes, has_inputs
from effcc.compression.calls import calls_of
from effcc.compression.inputs import UNCHANGED, InputChange
from effcc.compression.install import Stored, Weight
from effcc.compression.methods.nearest import nearest
from effcc.compression.methods.problem import Method, Problem, Rounding, Solve, squared
from effcc.compression.progress import progress
from effcc.errors import EncodingError, InputError
from effcc.ir.encoding import Encoding
from effcc.ir.encodings import Storage

Plan = Sequence[tuple[Weight, Encoding]]
Made = TypeVar("Made")
Store = Callable[[Weight, Encoding, Tensor | None], Made]

MOST_BYTES = 1 << 31
"""Gram matrices of so many bytes are held at a time; where there are more, the data run through the model again."""


def searched(
    model: nn.Module, plan: Plan, store: Store[Made], data: object, needed_by: str | None
) -> list[tuple[Weight, Made]]:
    """What `store` makes of each weight of the plan, given the Gram matrix of its inputs where there are data.

    needed_by: what needs data, if something does. Errors name the weight.
    """
    if data is None and needed_by is not None:
        raise InputError(f"{needed_by} needs calibration data: data=[...], inputs that the model is to be accurate on")
    calls = () if data is None or isinstance(data, Calibration) else calls_of(data)
    portions = _portions(plan) if calls else [plan]
    found: list[tuple[Weight, Made]] = []
    with progress(len(calls) * len(portions) + len(plan)) as step:
        for portion in portions:
            modules = {n: m for weight, _ in portion for n, m in weight.modules.items() if has_inputs(m)}
            seen: Mapping[str, Seen] = {}
            if isinstance(data, Calibration):
                seen = data.of(modules)
            elif calls and modules:
                seen = gather(model, modules, calls, lambda: step("calibrating"))
            for weight, wanted in portion:
                grams = [seen[n].gram for n in weight.modules if n in seen]
                try:
                    found.append((weight, store(weight, wanted, sum(grams[1:], grams[0]) if grams else None)))
                except EncodingError as error:
                    raise EncodingError(f"{weight.name}: {error} (leave it out with where=...)") from None
                step(weight.name)
    return found


def _portions(plan: Plan) -> list[Plan]:
    """The plan in portions whose Gram matrices fit in memory together; for each, the data run through the model."""
    portions: list[list[tuple[Weight, Encoding]]] = []
    room = 0
    for weight, wanted in plan:
        size = sum(gram_bytes(m) for m in weight.modules.values() if has_inputs(m))
        if not portions or size > room:
            portions.append([])
            room = MOST_BYTES
        portions[-1].append((weight, wanted))
        room -= size
    return list(portions)


def solved(weight: Weight, dense: Any, made: Storage, methods: Sequence[Method], gram: Tensor | None) -> Stored:
    """A dense weight rounded as the methods say, one after the other; the last that rounds decides the numbers."""
    looked_up = not all(has_inputs(m) for m in weight.modules.values())
    if gram is None and looked_up:
        methods = ()
    problem = given = Problem(matrix_of(weight, dense), gram, made, weight.taps)
    solve: Solve = nearest
    change = UNCHANGED
    for method in methods:
        if method.transform is not None:
            if change or looked_up:
                why = "another module looks its rows up" if looked_up else "its input is changed already"
                raise EncodingError(f"{method.name} cannot change this layer's input: {why}")
            change = method.transform(problem)
            problem = problem.transformed(change)
        else:
            solve = method.solve or nearest
    grid = Rounding.of(problem)
    arrays = grid.arrays(solve(problem, grid))
    return Stored(made, arrays, change, relative_error(given, made.decode(arrays), change))


def matrix_of(weight: Weight, dense: Any) -> Tensor:
    """The weight as [groups, channels of a group, what each multiplies], in f32."""
    groups = int(getattr(weight.module, "groups", 1))
    return torch.from_numpy(np.asarray(dense, np.float32).reshape(groups, dense.shape[0] // groups, -1))


def relative_error(problem: Problem, decoded: Any, change: InputChange = UNCHANGED) -> float:
    """How far the output (without data: the weight) is off, over its norm."""
    stored = torch.from_numpy(np.asarray(decoded, np.float32)).reshape(problem.weight.shape)
    error = squared(problem.weight - change.undone(stored, problem.taps), problem.gram)
    norm = squared(problem.weight, problem.gram)
    return float((error / norm) ** 0.5) if norm > 0 else 0.0

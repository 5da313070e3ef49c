"""Moving changes of inputs into what computes these inputs, so that they cost nothing when the model runs.

Layers whose inputs one producer computes (`effcc.compression.producers`) get one change together, found for all their
channels: queries, keys and values share the scale that moves into the norm before them; a layer whose inputs are the
values of attention, that which moves into the rows of the values' weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from effcc.compression.calibrate import Calibration, calibrate
from effcc.compression.inputs import UNCHANGED, InputChange
from effcc.compression.install import Choice, Weight
from effcc.compression.methods.problem import Method, Problem
from effcc.compression.producers import Fed
from effcc.compression.search import Plan, matrix_of
from effcc.errors import EncodingError, InputError
from effcc.ir.dtypes import from_numpy
from effcc.ir.encodings import storage
from effcc.ir.encodings.storage import is_sum


@dataclass(frozen=True)
class Folded:
    """The plan, its weights with what becomes of them, the parameters outside of it that change, and the data."""

    plan: Plan
    data: object
    parameters: Mapping[str, Tensor] = field(default_factory=dict)


def folded(model: nn.Module, plan: Plan, methods: Sequence[Method], data: object, where: Choice) -> Folded:
    """The plan with the changes by which methods transform inputs moved into producers, where there is one.

    Raises InputError without data, which show what computes the inputs.
    """
    transforms = [m for m in methods if m.transform is not None]
    if not transforms:
        return Folded(plan, data)
    if data is None or (isinstance(data, Calibration) and data.fed is None):
        raise InputError("fold=True needs data, or what effcc.calibrate made of them: they show what computes inputs")
    data = data if isinstance(data, Calibration) else calibrate(model, data, where)
    assert data.fed is not None
    owners = {name: (weight, wanted) for weight, wanted in plan for name in weight.modules}
    rows: dict[str, InputChange] = {}
    inputs: dict[str, InputChange] = {}
    for fed in data.fed:
        problem = _joint(fed, owners, data)
        if problem is None:
            continue
        try:
            change = _changed(problem, transforms)
        except EncodingError as error:
            raise EncodingError(f"{', '.join(name for name, _ in fed.layers)}: {error}") from None
        channels = len(model.get_parameter(fed.parameters[0]))
        moved = _of_producer(change, fed, channels)
        if moved is not None:
            inputs |= {name: change for name, _ in fed.layers}
            rows |= {name: moved for name in fed.parameters if moved}
    return Folded(
        [(_with(weight, inputs, rows), wanted) for weight, wanted in plan],
        data,
        {
            name: change.of_producer(model.get_parameter(name).detach())
            for name, change in rows.items()
            if not (name.endswith("weight") and name.removesuffix("weight").rstrip(".") in owners)
        },
    )


def _joint(fed: Fed, owners: Mapping[str, tuple[Weight, object]], data: Calibration) -> Problem | None:
    """The problem of all layers at once; None where they share no change: other inputs, schemes, stored before."""
    (first, channels), *_ = fed.layers
    if not all(name in owners and c == channels for name, c in fed.layers):
        return None
    weights, schemes = zip(*(owners[name] for name, _ in fed.layers), strict=True)
    gram = data.of(weights[0].modules)[first].gram
    same = all(data.seen[name].gram is gram or torch.equal(data.seen[name].gram, gram) for name, _ in fed.layers)
    if len(set(map(str, schemes))) > 1 or not same or any(w.held is not None or len(w.modules) > 1 for w in weights):
        return None
    if is_sum(schemes[0]):
        return None
    dense = [w.dense() for w in weights]
    made = storage(schemes[0], (sum(map(len, dense)), dense[0].shape[1]), from_numpy(dense[0].dtype))
    if made.levels.coordinates:
        return None
    joint = torch.cat([matrix_of(w, d) for w, d in zip(weights, dense, strict=True)], dim=1)
    return Problem(joint, gram, made, tied=torch.tensor(channels))


def _changed(problem: Problem, transforms: Sequence[Method]) -> InputChange:
    if len(transforms) > 1:
        raise EncodingError(
            f"{transforms[1].name} cannot change an input that {transforms[0].name} has changed already"
        )
    assert transforms[0].transform is not None
    return transforms[0].transform(problem)


def _of_producer(change: InputChange, fed: Fed, count: int) -> InputChange | None:
    """The change of the producer's own channels; None where it cannot make it."""
    channels = torch.tensor(fed.layers[0][1])
    if change.rotation is not None and (not fed.turns or len(change.rotation) == 1):
        return None
    if change.scale is None:
        return change
    scale = torch.ones(count)
    scale[channels] = change.scale
    return replace(change, scale=scale)


def _with(weight: Weight, inputs: Mapping[str, InputChange], rows: Mapping[str, InputChange]) -> Weight:
    """A weight with what its producer does to its input, and what it does as a producer itself."""
    own = next(iter(weight.modules))
    return replace(weight, given=inputs.get(own), made=rows.get(f"{own}.weight".lstrip("."), UNCHANGED))

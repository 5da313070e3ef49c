"""What layers see of data, gathered once and given to several runs: of other schemes, methods, shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from effcc.compression.calibration import Seen, gather, has_inputs, shape_of
from effcc.compression.calls import calls_of
from effcc.compression.install import Choice, require_module, weights_of
from effcc.compression.producers import Fed, producers
from effcc.compression.progress import progress
from effcc.errors import InputError


@dataclass(frozen=True)
class Calibration:
    """What a model's layers saw of data, by name. `effcc.quantize` and others take it as `data=` in their place.

    fed: which layers one producer computes the inputs of; None where it was not looked for.
    It is of the model as it was: layers that come after some that were changed since see other inputs.
    """

    seen: Mapping[str, Seen]
    fed: tuple[Fed, ...] | None = None

    def of(self, modules: Mapping[str, nn.Module]) -> dict[str, Seen]:
        """What the modules saw. Raises InputError where one was not watched, or is of another size."""
        for name, module in modules.items():
            if name not in self.seen:
                raise InputError(f"data: {name or 'the model'} was not calibrated; choose it in calibrate(where=...)")
            groups, depth = shape_of(module)
            found = self.seen[name].gram.shape
            if found != (groups, depth, depth):
                raise InputError(
                    f"data: {name or 'the model'} multiplies {depth} inputs in {groups} groups; the calibration is of "
                    f"{found[-1]} in {found[0]}, of another model"
                )
        return {name: self.seen[name] for name in modules}

    def __repr__(self) -> str:
        rows = max((s.rows for s in self.seen.values()), default=0)
        return f"Calibration({len(self.seen)} layers, {rows:,} rows at most)"


def calibrate(model: nn.Module, data: object, where: Choice | None = None) -> Calibration:
    """What the chosen modules (default: every nn.Linear) see while the data run through the model, once.

    data: as in `effcc.quantize`. It takes 4 bytes for each pair of inputs of a layer; layers that are given the same
    tensor share them.

    Raises InputError for data that do not fit the model, are not finite, or do not reach a layer; EncodingError where a
    chosen module cannot be stored.

        >>> import torch
        >>> calibrate(nn.Linear(4, 2), torch.randn(16, 4))
        Calibration(1 layers, 16 rows at most)
    """
    require_module(model, "calibrate")
    chosen = {n: m for w in weights_of(model, where) for n, m in w.modules.items() if has_inputs(m)}
    calls = calls_of(data)
    with progress(len(calls)) as step:
        seen = gather(model, chosen, calls, lambda: step("calibrating"))
    return Calibration(seen, producers(model, chosen, (calls[0], calls[-1])))

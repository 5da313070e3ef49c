"""Calibration of static activations: the range of what each layer is given, and the bytes that cover it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from effcc.compression.activations import SMALLEST_ROW, Activations, Codes, by_step
from effcc.compression.calibration import evaluating, require_seen
from effcc.compression.calls import Call
from effcc.compression.flow import Flow
from effcc.compression.inputs import InputChange
from effcc.errors import InputError

SAMPLED = 1 << 19
"""So many values of an input, at most, are kept of all calls together, evenly spread, for percentiles and errors."""
LEFT_OUT = 1e-4
"""The part of the values that a percentile's range leaves out at either end."""
SHRUNK = tuple(i / 40 for i in range(40, 7, -1))
"""The parts of the whole range that are tried for the least error."""

Advance = Callable[[], None]


@dataclass(frozen=True)
class Observed:
    """What a layer is given: the least and the largest value, and some of all."""

    low: float
    high: float
    sample: Tensor


def observe(
    model: nn.Module,
    layers: Mapping[str, tuple[nn.Module, InputChange]],
    calls: Sequence[Call],
    advance: Advance = lambda: None,
    flow: Flow | None = None,
    returning: Mapping[str, nn.Module] = MappingProxyType({}),
) -> dict[str, Observed]:
    """What layers are given while the calls run, after it was changed, in evaluation mode and without gradients.

    flow: watches which tensors go where. returning: modules, other than the layers, of which what they return is seen.

    Raises InputError where the model does not take a call, infinities or NaN reach a layer, or a layer never runs.
    """
    seen: dict[str, list[Observed]] = {}
    most = max(SAMPLED // len(calls), 1)

    def see(name: str, x: Tensor) -> None:
        if x.numel():
            seen.setdefault(name, []).append(_observed(name, x, most))

    def given(name: str, change: InputChange) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            see(name, change.of_input(args[0] if args else kwargs["input"], len(getattr(module, "kernel_size", ()))))

        return hook

    handles = [m.register_forward_pre_hook(given(n, c), with_kwargs=True) for n, (m, c) in layers.items()]
    handles += [m.register_forward_hook(lambda _m, _i, x, n=n: see(n, x)) for n, m in returning.items()]
    try:
        with evaluating(model), torch.no_grad():
            for call in calls:
                with flow.watching(model) if flow is not None else nullcontext():
                    call(model)
                advance()
    finally:
        for handle in handles:
            handle.remove()
    require_seen([*layers, *returning], seen)
    return {name: _together(parts) for name, parts in seen.items()}


def _observed(name: str, x: Tensor, most: int) -> Observed:
    flat = x.detach().float().flatten()
    low, high = (float(v) for v in torch.aminmax(flat))
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise InputError(f"data: infinities or NaN reach {name or 'the model'}")
    # An odd step does not walk along one channel of a layout alone.
    return Observed(low, high, flat[:: -(-len(flat) // most) | 1].clone())


def _together(parts: Sequence[Observed]) -> Observed:
    low, high = min(p.low for p in parts), max(p.high for p in parts)
    return Observed(low, high, torch.cat([p.sample for p in parts]))


def codes_for(seen: Observed, how: Activations) -> tuple[Codes, Tensor]:
    """The codes that cover what was seen, and their step, f32[].

    >>> seen = Observed(-1.0, 3.0, torch.tensor([-1.0, 3.0]))
    >>> codes_for(seen, Activations(zero=True))[0]
    Codes(per='tensor', unsigned=True, zero=64, bits=8)
    """
    whole = _covering(seen.low, seen.high, how)
    if how.range == "percentile":
        ends = torch.tensor([LEFT_OUT, 1 - LEFT_OUT])
        values, _ = seen.sample.sort()
        low, high = (values[int(i)] for i in (ends * (len(values) - 1)).round())
        # Whether bytes are signed is asked of all values.
        return _covering(float(low), float(high), how, whole[0].unsigned)
    if how.range == "mse":
        tried = [_covering(seen.low * s, seen.high * s, how) for s in SHRUNK]
        return min(tried, key=lambda one: _squared_error(seen.sample, *one))
    return whole


def _covering(low: float, high: float, how: Activations, unsigned: bool = False) -> tuple[Codes, Tensor]:
    low, high = min(low, 0.0), max(high, 0.0)
    codes = Codes("tensor", how.zero or low == 0 or unsigned, bits=how.bits)
    if codes.unsigned:
        low = low if how.zero else 0.0
        step = max((high - low) / codes.bounds[1], SMALLEST_ROW)
        return replace(codes, zero=round(-low / step)), torch.tensor(step)
    return codes, torch.tensor(max(-low, high, SMALLEST_ROW) / codes.largest)


def _squared_error(values: Tensor, codes: Codes, step: Tensor) -> float:
    read = (by_step(values, step, codes).double() - codes.zero) * step.double()
    return float((read - values).square().sum())

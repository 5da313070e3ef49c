"""What a stored module must compute: the like of it with the decoded weights as plain parameters, in float64.

How much rounding matters is measured, as for graphs (`effcc.fuzz.expected`): the wide twin is run again with what every
layer gives disturbed by some units in the last place of the module's own dtype.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from effcc.compression.inputs import changed
from effcc.compression.integers import IntegerModule
from effcc.compression.modules import ENCODED, EncodedModule

TRIALS = 3
UNITS = 4.0
_PLAIN = {encoded: plain for plain, encoded in ENCODED.items()}
LOOSE = 0.02
"""Of the largest result: how far results of layers that round their inputs may be off, where one rounds otherwise."""


@dataclass(frozen=True)
class Expected:
    """What a call must give: eager's own result, the result in float64, and the spread of disturbed ones."""

    own: Tensor
    wide: Tensor
    spread: float


def plain_twin(model: nn.Module) -> nn.Module:
    """A copy whose stored weights are plain parameters with the decoded numbers; what changes inputs stays."""
    twin = copy.deepcopy(model)
    decoded: dict[int, nn.Parameter] = {}
    for module in twin.modules():
        if isinstance(module, EncodedModule) and not isinstance(module, IntegerModule):
            held: Any = module
            last = getattr(held, held.weight_components[-1])
            weight = decoded.setdefault(id(last), nn.Parameter(held.weight.detach().clone()))
            scale, rotation, taps = held.input_scale, held.input_rotation, len(held.weight_shape) - 2
            plain = next(p for e, p in _PLAIN.items() if isinstance(module, e))
            for name in held.weight_components:
                delattr(held, name)
            held.__class__ = plain
            held.weight = weight
            if scale is not None or rotation is not None:
                held.register_forward_pre_hook(_changing(scale, rotation, taps))
    return twin


def _changing(scale: Tensor | None, rotation: Tensor | None, taps: int) -> Callable[..., Any]:
    def like(t: Tensor | None, x: Tensor) -> Tensor | None:
        return None if t is None else t.to(x.dtype)

    return lambda _, args: (changed(args[0], like(scale, args[0]), like(rotation, args[0]), taps), *args[1:])


def rounds_inputs(model: nn.Module) -> bool:
    """Whether a layer makes bytes of its input."""
    return any(isinstance(m, IntegerModule) for m in model.modules())


def expected(model: nn.Module, x: Tensor) -> Expected:
    """What a call of the stored model must give. Raises what eager raises."""
    with torch.no_grad():
        own = model(x)
        if rounds_inputs(model):
            return Expected(own, own.double(), LOOSE * _largest(own))
        wide = plain_twin(model).double()
        given = x.double() if x.is_floating_point() else x
        result = wide(given)
        unit = UNITS * torch.finfo(own.dtype).eps
        spread = 0.0
        for trial in range(TRIALS):
            generator = torch.Generator().manual_seed(trial)

            def shaken(t: Tensor, generator: torch.Generator = generator) -> Tensor:
                noise = torch.rand(t.shape, generator=generator, dtype=t.dtype) * 2 - 1
                size = t.abs().amax() if t.numel() else 0.0
                return t * (1 + unit * noise) + unit / 4 * size * noise

            with _after_each(wide, shaken):
                other = wide(shaken(given) if given.is_floating_point() else given)
            spread = max(spread, _largest(other - result))
        return Expected(own, result, spread)


@contextmanager
def _after_each(model: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    leaves = [m for m in model.modules() if not list(m.children())]
    handles = [m.register_forward_hook(lambda _, args, out: change(out)) for m in leaves]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def difference(got: Any, want: Expected) -> str:
    """How a result is wrong; empty where it is right."""
    if not isinstance(got, Tensor) or got.dtype != want.own.dtype or got.shape != want.own.shape:
        kind = f"{got.dtype}{list(got.shape)}" if isinstance(got, Tensor) else type(got).__name__
        return f"expected {want.own.dtype}{list(want.own.shape)}, got {kind}"
    wide, own, mine = want.wide, want.own.double(), got.double()
    finite = wide.isfinite() & own.isfinite()
    small = finite & (wide.abs() < torch.finfo(want.own.dtype).max / 1e4)
    if not small.any():
        return ""
    eager = _largest((own - wide)[small])
    bound = 4 * eager + 2 * torch.finfo(want.own.dtype).eps * _largest(wide[small]) + want.spread
    bound += 4 * torch.finfo(want.own.dtype).smallest_normal
    wrong = small & ~((mine - wide).abs() <= bound)
    if not wrong.any():
        return ""
    place = tuple(int(i) for i in wrong.nonzero()[0])
    return (
        f"{int(wrong.sum())} of {wrong.numel()} elements differ, the first at {list(place)}: expected "
        f"{float(wide[place])} (eager {float(own[place])}), got {float(mine[place])} (bound {bound:.3g})"
    )


def _largest(t: Tensor) -> float:
    finite = t[t.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0

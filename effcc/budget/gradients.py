"""What an error of a layer's output does to the model's, to second order, from a few gradients.

With a small change D of a layer's weight the model's outputs y move by J D. Both measures are then quadratic forms of
D, the expectation of (G . D)^2 over gradients G of random functions of the outputs:

    kl        1/2 E (G . D)^2 / positions,  G the gradient of the sum of log q(label), labels drawn from the softmax q
    squared   E (G . D)^2 / sum y^2,        G the gradient of the sum of v y, v standard normal

(the first is the Fisher matrix, the second Hutchinson's estimate). Errors of rounding are as good as independent, of
some variance s: (G . D)^2 is s |G|^2, and the layer's own relative squared error is s outputs |x|^2 / |W x|^2. Their
ratio, the factor from a layer's error to the model's, takes nothing but the norms of G, x and W x: one backward pass
serves all layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from effcc.budget.calibration import Profile
from effcc.budget.candidates import Layer
from effcc.budget.outputs import Measure, kl, logits_of, squared
from effcc.compression.calls import Call

DRAWS = 2
"""Random functions of each call's outputs."""

CALLS = 4
"""Calls whose gradients are taken, at most."""


def factors(
    model: nn.Module, layers: Sequence[Layer], calls: Sequence[Call], measure: Measure, profiles: Mapping[str, Profile]
) -> list[float] | None:
    """For each layer the model's error over the layer's relative squared error; None for measures of other kinds."""
    if measure not in (kl, squared):
        return None
    shared = [_weight(model, layer.names[0]).detach().requires_grad_() for layer in layers]
    named = {f"{n}.weight".lstrip("."): w for layer, w in zip(layers, shared, strict=True) for n in layer.names}
    draw = torch.Generator().manual_seed(0)
    squares = [0.0] * len(layers)
    drawn = 0
    for call in calls[:CALLS]:
        with torch.enable_grad():
            output = functional_call(model, named, call.args, dict(call.kwargs), tie_weights=False)
        for _ in range(DRAWS):
            with torch.enable_grad():
                function, scale = _random_function(output, measure, draw)
            found = torch.autograd.grad(function, shared, retain_graph=True, allow_unused=True)
            for n, gradient in enumerate(found):
                squares[n] += 0.0 if gradient is None else scale * float(gradient.double().square().sum())
            drawn += 1
    return [
        square / drawn / max(_unit_error(model, layer, profiles), 1e-300)
        for square, layer in zip(squares, layers, strict=True)
    ]


def _random_function(output: Any, measure: Measure, draw: torch.Generator) -> tuple[Tensor, float]:
    """A random function of the outputs, and by what its gradient's square is multiplied."""
    if measure is kl:
        log_q = logits_of(output).flatten(0, -2).float().log_softmax(-1)
        labels = torch.multinomial(log_q.detach().exp(), 1, generator=draw)
        return log_q.gather(1, labels).sum(), 0.5 / len(log_q)
    found = [t for t in tree_leaves(dict(output) if hasattr(output, "keys") else output) if isinstance(t, Tensor)]
    floats = [t for t in found if t.is_floating_point()]
    total = sum(float(t.detach().double().square().sum()) for t in floats)
    normal = [torch.randn(t.shape, generator=draw).to(t) for t in floats]
    summed = torch.stack([(t * v).sum() for t, v in zip(floats, normal, strict=True)]).sum()
    return summed, 1 / max(total, 1e-300)


def _unit_error(model: nn.Module, layer: Layer, profiles: Mapping[str, Profile]) -> float:
    """The layer's relative squared error, on its sampled input, where its weight's error has variance 1."""
    errors = []
    for name in layer.names:
        module, sample = model.get_submodule(name), profiles[name].sample
        weight = _weight(model, name)
        assert sample is not None
        noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)).to(weight)
        made = functional_call(module, {"weight": noise}, sample)
        without = functional_call(module, {"weight": torch.zeros_like(noise)}, sample)  # the bias alone
        expected = module.forward(*sample).double().square().sum()
        errors.append(float((made - without).double().square().sum() / expected.clamp_min(1e-300)))
    return max(errors)


def _weight(model: nn.Module, name: str) -> Tensor:
    return model.get_submodule(name).weight  # type: ignore[return-value]

"""What each layer may be stored as: dense, or as one of the recipes makes it.

A recipe is what a user would call: `lambda model, where: effcc.quantize(model, "int8", where=where)`. It runs on a
copy of the model, whose modules become the candidates; nothing here knows how they are encoded.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from effcc.compression.calibrate import calibrate
from effcc.compression.calibration import gram_bytes, has_inputs
from effcc.compression.calls import Call
from effcc.compression.install import held_by
from effcc.compression.modules import ENCODED
from effcc.compression.quantize import quantize
from effcc.compression.search import MOST_BYTES
from effcc.errors import EncodingError
from effcc.frontend.decode import to_numpy
from effcc.ir.dtypes import from_numpy
from effcc.ir.encodings import storage
from effcc.ir.parser import encoding_of
from effcc.passes.encodings.choose import product_seconds
from effcc.target import Target

Where = Callable[[str, nn.Module], bool]
Recipe = Callable[[nn.Module, Where], object]
Price = Callable[["Layer", Sequence[nn.Module]], float]
"""The predicted time of a layer's modules in one call, in seconds."""

DENSE = "dense"


@dataclass(frozen=True)
class Layer:
    """The chosen modules, by name, that share one weight: they are stored alike."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(name or "(the model)" for name in self.names)


@dataclass(frozen=True)
class Candidate:
    """One way to store a layer: its modules, one for each name; bytes of their tensors; predicted seconds of a call."""

    scheme: str
    modules: tuple[nn.Module, ...]
    bytes: int
    seconds: float


def layers_of(model: nn.Module, where: Where | None) -> tuple[Layer, ...]:
    """The dense modules that are chosen (default: every nn.Linear), grouped by weight."""
    groups: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        if not (type(module) is nn.Linear if where is None else where(name, module)):
            continue
        if type(module) not in ENCODED:
            known = ", ".join(f"nn.{c.__name__}" for c in ENCODED)
            raise EncodingError(f"{name or 'the model'} is a {type(module).__name__}; stored are dense {known}")
        groups.setdefault(id(module.weight), []).append(name)
    if not groups:
        raise EncodingError(
            f"no weight of {type(model).__name__} was chosen: it has no dense nn.Linear; say which modules by where=..."
        )
    return tuple(Layer(tuple(names)) for names in groups.values())


def seen_by(model: nn.Module, layers: Sequence[Layer], calls: Sequence[Call]) -> object:
    """Data for `quantize`: what the layers see of the calls, gathered once for all schemes, or, of many, the calls."""
    chosen = {n: model.get_submodule(n) for layer in layers for n in layer.names}
    data = [dict(c.kwargs) if c.kwargs else c.args for c in calls]
    if sum(gram_bytes(m) for m in chosen.values() if has_inputs(m)) > MOST_BYTES:
        return data
    return calibrate(model, data, lambda name, _: name in chosen)


def recipes_of(
    schemes: Sequence[str] | Mapping[str, str | Recipe], method: str, data: Callable[[], object]
) -> dict[str, Recipe]:
    """Recipes by name; a scheme alone is quantized by the method with the data, which are made when first needed."""
    made = functools.cache(data)
    named = dict(schemes) if isinstance(schemes, Mapping) else {s: s for s in schemes}
    return {n: _quantizing(s, method, made) if isinstance(s, str) else s for n, s in named.items() if s != DENSE}


def _quantizing(scheme: str, method: str, data: Callable[[], object]) -> Recipe:
    encoding_of(scheme)  # what does not parse is refused before anything is measured
    return lambda model, where: quantize(model, scheme, method=method, data=data(), where=where)


def dense_candidates(model: nn.Module, layers: Sequence[Layer], price: Price) -> list[Candidate]:
    """The layers as they are. A weight that a module outside of the layer shares costs no bytes here."""
    found = []
    for layer in layers:
        modules = tuple(model.get_submodule(n) for n in layer.names)
        inside = {id(m) for m in modules}
        outside = {id(t) for m in model.modules() if id(m) not in inside for t in _own_tensors(m)}
        size = sum(t.nbytes for t in _unique(modules) if id(t) not in outside)
        found.append(Candidate(DENSE, modules, size, price(layer, modules)))
    return found


def encoded_candidates(
    model: nn.Module,
    layers: Sequence[Layer],
    name: str,
    recipe: Recipe,
    price: Price,
) -> list[Candidate | None]:
    """One recipe's candidate for each layer, None where it does not fit; EncodingError where it fits none."""
    made = copy.deepcopy(model)
    fits = _applied(made, layers, recipe)
    _require_rest_unchanged(model, made, layers, name)
    found: list[Candidate | None] = []
    for layer, fit in zip(layers, fits, strict=True):
        modules = tuple(made.get_submodule(n) for n in layer.names)
        size = sum(t.nbytes for t in _unique(modules))
        found.append(Candidate(name, modules, size, price(layer, modules)) if fit else None)
    return found


def _applied(made: nn.Module, layers: Sequence[Layer], recipe: Recipe) -> list[bool]:
    """The recipe applied to all layers at once or, where it refuses one, to each alone; which ones it took."""
    everything = {n for layer in layers for n in layer.names}
    try:
        recipe(made, lambda n, _: n in everything)
    except EncodingError as refusal:
        fits = []
        for layer in layers:
            try:
                recipe(made, lambda n, _, names=layer.names: n in names)  # type: ignore[misc]
                fits.append(True)
            except EncodingError:
                fits.append(False)
        if not any(fits):
            raise refusal from None
        return fits
    return [True] * len(layers)


def _require_rest_unchanged(model: nn.Module, made: nn.Module, layers: Sequence[Layer], name: str) -> None:
    """Candidates of different recipes stand side by side, so a recipe may change the chosen modules only."""
    chosen = {n for layer in layers for n in layer.names}
    for (where, before), after in zip(model.named_modules(), made.modules(), strict=False):
        same = where in chosen or (
            type(before) is type(after)
            and all(torch.equal(a, b) for a, b in zip(_own_tensors(before), _own_tensors(after), strict=True))
        )
        if not same:
            raise EncodingError(
                f"recipe {name!r} changes {where or 'the model'} too, which is not among the chosen weights: "
                "apply it to the whole model before compress"
            )


def seconds_of(module: nn.Module, rows: Sequence[int], target: Target) -> float:
    """Predicted time of a module's products, one for each number of rows."""
    held = held_by(module)
    weight: Any = module.weight
    dense = storage(encoding_of(DENSE), weight.shape, from_numpy(to_numpy(weight).dtype))
    stored = dense if held is None else held.storage
    if isinstance(module, nn.Embedding):  # rows are copied, and decoded, but nothing is multiplied
        return sum(rows) * stored.bytes / weight.shape[0] / target.memory_bandwidth
    return sum(product_seconds(stored, r, target) for r in rows)


def pricing(profiles: Mapping[str, Sequence[int]], target: Target) -> Price:
    """The predicted time of a layer's modules in one call."""
    return lambda layer, modules: sum(
        seconds_of(m, profiles[n], target) for n, m in zip(layer.names, modules, strict=True)
    )


def bytes_of(model: nn.Module) -> int:
    """Bytes of a model's parameters and buffers, shared ones once."""
    return sum(t.nbytes for t in _unique(model.modules()))


def _own_tensors(module: nn.Module) -> list[Tensor]:
    return [t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]


def _unique(modules: Any) -> list[Tensor]:
    return list({id(t): t for m in modules for t in _own_tensors(m)}.values())

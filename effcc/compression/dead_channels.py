"""`remove_dead_channels`: what pruning left without effect goes, through the whole graph.

A channel is dead where it is the same number for every input, or where nothing reads it. A row of zeros in a weight
makes one: y = f(0 x + b) = f(b), and what the next layer's weight makes of f(b) moves into that layer's bias. The row,
the next layers' columns, and the channel's numbers in norms and depthwise convolutions between are then removed; where
channels are added, only if the sum's is dead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from effcc.compression.calibration import evaluating
from effcc.compression.calls import Call, calls_of
from effcc.compression.channel_rules import RULES
from effcc.compression.channels import ChannelFlow, Read
from effcc.compression.install import Model, all_or_nothing, require_module
from effcc.errors import InputError, NumericsError

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

ADDED = "added to channels that are not dead, or read where no bias can take the constant"


@dataclass(frozen=True)
class Shrunk:
    """A parameter or buffer, by one of its names."""

    name: str
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class Kept:
    """So many rows of a weight that are the same number for every input, and stay: `why`."""

    name: str
    rows: int
    why: str


@dataclass(frozen=True)
class Removed:
    """What was removed. bytes: of all parameters and buffers."""

    tensors: tuple[Shrunk, ...]
    kept: tuple[Kept, ...]
    bytes: int
    bytes_before: int

    def __str__(self) -> str:
        weights = [t for t in self.tensors if len(t.after) > 1]
        lines = [f"{t.name}: {list(t.before)} -> {list(t.after)}" for t in weights]
        lines += [f"{k.name}: {k.rows} dead rows stay ({k.why})" for k in self.kept]
        share = 100 * self.bytes / max(self.bytes_before, 1)
        return "\n".join([*lines, f"weights: {self.bytes:,} bytes, {share:.1f} % of {self.bytes_before:,}"])


def remove_dead_channels(model: Model, *, data: object) -> tuple[Model, Removed]:
    """Remove the channels of a pruned model that have no effect, in place; returns `model` and what was removed.

    data: calls of the model, each a tensor, a tuple of arguments, or a dict of keywords; all that it does in use should
        be among them. They show, in evaluation mode, which channels are read where; the numbers in them do not matter.

    Rows and columns of linear layers and convolutions are removed, and what batch norms, depthwise convolutions, and
    parameters that are added or multiplied keep for these channels; through activations, sums, products, pooling,
    concatenation and views. What other operations read (a layer norm, heads of attention, the model's result) stays,
    and so do weights that are stored already: remove channels first, then quantize. Products by zero count as zero,
    also of infinities.

    The calls give the same numbers afterwards, but for the order of sums. That is tried. Raises InputError where data
    do not fit the model; NumericsError where a result changes by more than rounding; the model is then unchanged.

        >>> import torch
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
        >>> _ = net[0].weight.data[:6].zero_()
        >>> net, removed = remove_dead_channels(net, data=torch.randn(3, 4))
        >>> net[0], removed.bytes
        (Linear(in_features=4, out_features=2, bias=True), 64)
    """
    require_module(model, "remove_dead_channels")
    calls = calls_of(data)
    try:
        return model, _removed(model, calls, sizes_follow=True)
    except (InputError, NumericsError):
        # A view was told a number of channels that the program keeps.
        return model, _removed(model, calls, sizes_follow=False)


def _removed(model: nn.Module, calls: Sequence[Call], sizes_follow: bool) -> Removed:
    named = [(f"{prefix}.{name}".lstrip("."), module, name, t) for prefix, module, name, t in _owned(model)]
    flow = ChannelFlow({id(t): t for *_, t in named}, RULES, sizes_follow)
    with evaluating(model):
        before = [flow.watch(partial(call, model)) for call in calls]
    bytes_before = _bytes(model)
    dead = _Dead(flow, _can_gain_bias(named))
    names = {id(t): name for name, _, _, t in reversed(named)}
    with all_or_nothing(list(model.modules())):
        changed = dead.tensors()
        for _, module, name, t in named:
            if id(t) in changed:
                _assign(module, name, changed[id(t)])
        for _, module, name, t in named:
            if name == "weight" and id(t) in dead.new_biases:
                module.bias = nn.Parameter(dead.new_biases[id(t)], t.requires_grad)
        for module in model.modules():
            _count_channels(module)
        with evaluating(model), torch.no_grad():
            for call, expected in zip(calls, before, strict=True):
                _require_same(call, expected, call(model))
    shrunk = [Shrunk(names[k], tuple(flow.owned[k].shape), tuple(t.shape)) for k, t in changed.items()]
    tensors = sorted((s for s in shrunk if s.before != s.after), key=lambda s: s.name)
    return Removed(tuple(tensors), tuple(dead.kept(names)), _bytes(model), bytes_before)


def _owned(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    for prefix, module in model.named_modules():
        for name, t in (*module._parameters.items(), *module._buffers.items()):
            if t is not None:
                yield prefix, module, name, t


def _can_gain_bias(named: Sequence[tuple[str, nn.Module, str, Tensor]]) -> set[int]:
    """Weights of layers that have no bias, but a place for one."""
    owners: dict[int, list[nn.Module]] = defaultdict(list)
    for _, module, _, t in named:
        owners[id(t)].append(module)
    return {k for k, modules in owners.items() if all(type(m) in LAYERS and m.bias is None for m in modules)}


class _Dead:
    """Which channels go, and what becomes of parameters.

    gains: weights without a bias whose layers can be given one.
    """

    def __init__(self, flow: ChannelFlow, gains: set[int]) -> None:
        self.flow = flow
        self.of = flow.classes()
        self.pinned = flow.pinned()
        self.reads = [_Columns(flow, reads, gains) for reads in _grouped(flow.reads)]
        self.gone = np.ones(len(self.of), bool)
        self.gone[self.of[list(self.pinned)]] = False
        while self._stay_where_read() or self._stay_where_last():
            pass
        self.new_biases: dict[int, Tensor] = {}

    def _is_gone(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        return self.gone[self.of[places]]

    def _stay_where_read(self) -> bool:
        """Channels stay that a row which stays reads as anything but a constant."""
        changed = False
        for read in self.reads:
            needed = read.nonzero[~self._is_gone(read.rows)].any(0) & ~read.folds
            staying = self.of[read.columns[needed]]
            changed |= bool(self.gone[staying].any())
            self.gone[staying] = False
        return changed

    def _stay_where_last(self) -> bool:
        """One channel of a tensor stays if none does: operators refuse to have none."""
        for places in self.flow.axes.values():
            if len(places) and self._is_gone(places).all():
                self.gone[self.of[places[0]]] = False
                return True
        return False

    def tensors(self) -> dict[int, Tensor]:
        """What parameters and buffers become, by the identity of what they were."""
        biases = self._biases()
        changed = dict(biases)
        for (key, axis), places in self.flow.axes.items():
            keep = ~self._is_gone(places)
            if not keep.all():
                old = changed.get(key, self.flow.owned[key].detach())
                changed[key] = old.index_select(axis, torch.from_numpy(np.flatnonzero(keep)).to(old.device))
        return changed

    def _biases(self) -> dict[int, Tensor]:
        """Biases with what constants of removed columns add to them."""
        made: dict[int, Tensor] = {}
        for read in self.reads:
            removed = torch.from_numpy(self._is_gone(read.columns))
            constant = torch.where(removed & (read.value != 0) & ~read.value.isnan(), read.value, 0).double()
            if not bool(constant.any()):
                continue
            weight = read.weight.detach()
            added = weight.double().flatten(2).sum(2) @ constant if weight.ndim > 2 else weight.double() @ constant
            if read.bias is not None:
                made[id(read.bias)] = (read.bias.detach().double() + added).to(read.bias.dtype)
            else:
                rows = torch.from_numpy(~self._is_gone(read.rows))
                self.new_biases[id(read.weight)] = added[rows].to(weight.dtype)
        return made

    def kept(self, names: Mapping[int, str]) -> Iterator[Kept]:
        """Rows that are constant and stay."""
        constant: dict[int, list[Tensor]] = defaultdict(list)
        for weight, value in self.flow.made:
            constant[id(weight)].append(~value.isnan())
        whys = {int(self.of[place]): why for place, why in self.pinned.items()}
        for key, known in constant.items():
            places = self.flow.axes[key, 0]
            stay = torch.stack(known).all(0).numpy() & ~self._is_gone(places)
            counts: dict[str, int] = defaultdict(int)
            for place in places[stay]:
                counts[whys.get(int(self.of[place]), ADDED)] += 1
            yield from (Kept(names[key], rows, why) for why, rows in counts.items())


class _Columns:
    """All that one weight reads: where it is not zero, and which constants its bias can take."""

    def __init__(self, flow: ChannelFlow, reads: Sequence[Read], gains: set[int]) -> None:
        first = reads[0]
        self.weight, self.bias = first.weight, first.bias
        self.rows, self.columns = flow.axes[id(self.weight), 0], flow.axes[id(self.weight), 1]
        taps = self.weight.detach() != 0
        self.nonzero = (taps.flatten(2).any(2) if taps.ndim > 2 else taps).cpu().numpy()
        values = torch.stack([r.value for r in reads])
        self.value = torch.where((values == values[0]).all(0), values[0], float("nan")).cpu()
        others = {id(r.weight) for r in flow.reads if r.bias is self.bias} if self.bias is not None else set[int]()
        has_bias = others == {id(self.weight)} and all(r.bias is self.bias for r in reads)
        takes = has_bias or (self.bias is None and id(self.weight) in gains)
        folds = torch.stack([r.folds.expand_as(r.value) for r in reads]).all(0).cpu()
        self.folds = (~self.value.isnan() & ((self.value == 0) | (folds & takes))).numpy()


def _grouped(reads: Sequence[Read]) -> list[list[Read]]:
    found: dict[int, list[Read]] = defaultdict(list)
    for read in reads:
        found[id(read.weight)].append(read)
    return list(found.values())


def _assign(module: nn.Module, name: str, tensor: Tensor) -> None:
    if name in module._parameters:
        old = module._parameters[name]
        module._parameters[name] = nn.Parameter(tensor, old is not None and old.requires_grad)
    else:
        module._buffers[name] = tensor


def _count_channels(module: Any) -> None:
    """Make a module say how many channels it has."""
    kind = type(module)
    if kind is nn.Linear:
        module.out_features, module.in_features = module.weight.shape
    elif kind in LAYERS:
        rows, columns, *_ = module.weight.shape
        if module.groups != 1 and columns == 1:
            module.groups = rows // (module.out_channels // module.groups)
        module.out_channels, module.in_channels = rows, columns * module.groups
    elif kind in NORMS and module.running_mean is not None:
        module.num_features = len(module.running_mean)


def _bytes(model: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


def _require_same(call: Call, expected: Any, got: Any) -> None:
    """Raise NumericsError unless two results are equal but for rounding."""
    for a, b in zip(_leaves(expected), _leaves(got), strict=True):
        if a.shape != b.shape:
            raise NumericsError(f"call {call.number} gives {list(b.shape)} without dead channels, not {list(a.shape)}")
        finite = a.isfinite()
        off = (a - b)[finite].abs().max().item() if bool(finite.any()) else 0.0
        allowed = torch.finfo(a.dtype).eps ** 0.5 * a[finite].abs().max().item() if bool(finite.any()) else 0.0
        if not off <= allowed or not torch.equal(finite, b.isfinite()):
            raise NumericsError(
                f"call {call.number} changes by {off:.3g} without the channels that seem dead, more than rounding does "
                f"({allowed:.3g}): the model computes something that could not be followed"
            )


def _leaves(output: Any) -> list[Tensor]:
    leaves = tree_leaves(dict(output) if hasattr(output, "keys") else output)
    return [t for t in leaves if isinstance(t, Tensor) and t.is_floating_point()]

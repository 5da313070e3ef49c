"""Which channels of a model's tensors belong together, and what is known of their values: found by watching calls.

The rows and columns of parameters are *places*. What a linear layer computes has the places of its weight's rows as its
channels; what reads it ties the places of its own columns to these; a sum of two tensors ties theirs. Places that are
tied are one channel of the model: they go together or stay together. A channel is *constant* where it is the same
number in all elements, whatever the model is given: that of a row of zeros is its bias, after an activation f(bias).

Operations are followed by rules (`effcc.compression.channel_rules`); what an operation without one is given is
*pinned*: its channels stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from effcc.compression.producers import ASKED

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Channels:
    """Of a tensor: the axis of its channels, their places, and their constants, NaN where they have none."""

    axis: int
    places: Places
    value: Tensor


@dataclass(frozen=True)
class Read:
    """A product that sums over channels: its weight's columns were given such constants.

    folds: where a constant column can move into the bias; an operation that pads its input with zeros has no bias for
    the border.
    """

    weight: Tensor
    bias: Tensor | None
    value: Tensor
    folds: Tensor


Rule = Callable[..., "Channels | None"]
"""Takes the flow, the output, the function and its arguments; None: all that it was given stays as it is."""


class ChannelFlow(TorchFunctionMode):
    """What calls show.

    owned: the parameters and buffers whose places are told apart, by identity. rules: by the function's name.
    sizes_follow: whether views that are told sizes are taken to be told those that their input has.
    """

    def __init__(self, owned: Mapping[int, Tensor], rules: Mapping[str, Rule], sizes_follow: bool) -> None:
        super().__init__()
        self.owned, self.rules, self.sizes_follow = owned, rules, sizes_follow
        self.reads: list[Read] = []
        self.axes: dict[tuple[int, int], Places] = {}
        self.made: list[tuple[Tensor, Tensor]] = []
        """Weights, and the constants of their rows."""
        self._count = 0
        self._ties: list[tuple[Places, Places]] = []
        self._pins: list[tuple[Places, str]] = []
        self._strangers: dict[int, str] = {}
        self._channels: Any = WeakIdKeyDictionary()

    # What rules say

    def of(self, tensor: object) -> Channels | None:
        found: Channels | None = self._channels.get(tensor) if isinstance(tensor, Tensor) else None
        return found

    def is_owned(self, *tensors: Tensor | None) -> bool:
        return all(t is None or id(t) in self.owned for t in tensors)

    def places(self, tensor: Tensor, axis: int) -> Places:
        """The places along an axis of a parameter or buffer."""
        key = id(tensor), axis
        if key not in self.axes:
            self.axes[key] = self._new(tensor.shape[axis])
        return self.axes[key]

    def stranger(self, tensor: Tensor, axis: int) -> Channels:
        """A tensor of which nothing is known, and whose channels stay."""
        places = self._new(tensor.shape[axis])
        self.pin(places, "beside what is not followed")
        return Channels(axis, places, torch.full((len(places),), float("nan"), dtype=tensor.dtype))

    def _new(self, count: int) -> Places:
        self._count += count
        return np.arange(self._count - count, self._count)

    def tie(self, a: Places, b: Places) -> None:
        self._ties.append((a, b))

    def pin(self, places: Places, why: str) -> None:
        self._pins.append((places, why))

    # What comes of it

    def classes(self) -> Places:
        """The channel of every place: the least of the places that are tied."""
        of = np.arange(self._count)
        if not self._ties:
            return of
        a, b = (np.concatenate(side) for side in zip(*self._ties, strict=True))
        while bool((of[a] != of[b]).any()):
            least = np.minimum(of[a], of[b])
            for side in (a, b):
                np.minimum.at(of, of[side], least)
            while bool((of != of[of]).any()):
                of = of[of]
        return of

    def pinned(self) -> dict[int, str]:
        """Places that stay, and why: those that were pinned first come last."""
        for (key, _), places in list(self.axes.items()):
            if key in self._strangers:
                self.pin(places, self._strangers[key])
        return {int(place): why for places, why in reversed(self._pins) for place in places}

    # What happens in a call

    def watch(self, call: Callable[[], Any]) -> Any:
        """Watch one call; what it returns stays as it is."""
        with torch.no_grad(), self:
            output = call()
        for leaf in tree_leaves(dict(output) if hasattr(output, "keys") else output):
            if (found := self.of(leaf)) is not None:
                self.pin(found.places, "a result of the model")
        self._channels = WeakIdKeyDictionary()
        return output

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        before = [found for t in given if (found := self.of(t)) is not None]
        output = func(*args, **kwargs)
        if (name == "__get__" or name in ASKED) and not isinstance(output, Tensor):
            return output
        rule = self.rules.get(name)
        made = rule(self, output, func, *args, **kwargs) if rule is not None and isinstance(output, Tensor) else None
        if made is not None:
            self._channels[output] = made
            return output
        for found in before:
            self.pin(found.places, f"read by {name}")
        self._strangers.update({id(t): f"read by {name}" for t in given if id(t) in self.owned})
        if isinstance(output, Tensor):
            self._channels.pop(output, None)
        return output

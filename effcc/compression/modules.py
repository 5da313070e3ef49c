"""Modules whose weight is stored by components: each is an instance of the class it was before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effcc.compression.inputs import changed
from effcc.errors import EncodingError
from effcc.frontend.decode import decode


class EncodedModule(nn.Module):
    """A module whose `weight` is stored by components: buffers, or a parameter where gradients pass to one.

    input_scale, input_rotation: None, or buffers: what the input is changed by first (`InputChange`), and the stored
    weight by its inverse. weight_error: how far its output was off when it was stored, relative to its norm.

    All that a call reads of it beside tensors is one text: torch.compile checks at every call what a module's code
    read of it, and a text is one check, which `use_recursive_dict_tags_for_guards` can spare (a tuple's it cannot).
    """

    weight_form: str
    weight_error: float | None
    input_scale: Tensor | None
    input_rotation: Tensor | None

    @property
    def encoding(self) -> str:
        """The scheme, as text."""
        return self.weight_form.split("\n")[0]

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """The dense weight's."""
        return tuple([int(size) for size in self.weight_form.split("\n")[1].split(",")])

    @property
    def weight_components(self) -> tuple[str, ...]:
        """The components' names as attributes."""
        return tuple(self.weight_form.split("\n")[2].split(","))

    @property
    def weight_dtype(self) -> torch.dtype | None:
        """The dense weight's; None: that of the first floating component."""
        name = self.weight_form.split("\n")[3]
        return getattr(torch, name) if name else None

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Also of modules that were pickled when these were four attributes."""
        found = dict(state)
        if "weight_form" not in found:
            encoding, shape, names = (found.pop(n) for n in ("encoding", "weight_shape", "weight_components"))
            found["weight_form"] = form_of(encoding, shape, names, found.pop("weight_dtype", None))
        super().__setstate__(found)

    @property
    def weight(self) -> Tensor:
        """The dense weight, decoded."""
        components = [getattr(self, name) for name in self.weight_components]
        made: Tensor = decode(self.encoding, list(self.weight_shape), components, self.weight_dtype)
        return made

    @weight.setter
    def weight(self, value: object) -> None:
        raise EncodingError(f"the weight is stored as {self.encoding}; assign its components: {self.weight_components}")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """What `to`, `half` and `double` do with parameters changes the dtype of the decoded weight, too."""
        if self.weight_dtype is not None:
            dtype = fn(torch.empty(0, dtype=self.weight_dtype)).dtype
            self.weight_form = form_of(self.encoding, self.weight_shape, self.weight_components, dtype)
        return super()._apply(fn, recurse)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the components, and of what the input is changed by."""
        held = [*(getattr(self, name) for name in self.weight_components), self.input_scale, self.input_rotation]
        return sum(t.numel() * t.element_size() for t in held if t is not None)

    def changed(self, input: Tensor) -> Tensor:
        """The input that the stored weight is for."""
        return changed(input, self.input_scale, self.input_rotation, len(self.weight_shape) - 2)

    def extra_repr(self) -> str:
        changes = [n for n in ("rotation", "scale") if getattr(self, f"input_{n}") is not None]
        after = f", input changed by {' and '.join(changes)}" if changes else ""
        return f"{super().extra_repr()}, weight={self.encoding}, {self.weight_bytes:,} bytes{after}"


def form_of(encoding: str, shape: Sequence[int], components: Sequence[str], dtype: torch.dtype | None) -> str:
    """How a weight is stored as one text: the scheme, the shape, the components, the dtype."""
    name = "" if dtype is None else str(dtype).removeprefix("torch.")
    return "\n".join([encoding, ",".join(map(str, shape)), ",".join(components), name])


class InTraining(nn.Module):
    """A module that computes with its weight as `encoding` would store it (`effcc.compression.training`)."""

    encoding: str
    dense: type[nn.Module]


# Each says what it computes, since `super().forward` is looked up, and checked, through the class of each module.


class EncodedLinear(EncodedModule, nn.Linear):
    """`nn.Linear` with a stored weight."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(self.changed(input), self.weight, self.bias)


class EncodedEmbedding(EncodedModule, nn.Embedding):
    """`nn.Embedding` with a stored table; a row is a channel."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.Embedding.forward(self, self.changed(input))


class EncodedConv1d(EncodedModule, nn.Conv1d):
    """`nn.Conv1d` with a stored kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(self.changed(input), self.weight, self.bias)


class EncodedConv2d(EncodedModule, nn.Conv2d):
    """`nn.Conv2d` with a stored kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(self.changed(input), self.weight, self.bias)


class EncodedConv3d(EncodedModule, nn.Conv3d):
    """`nn.Conv3d` with a stored kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(self.changed(input), self.weight, self.bias)


ENCODED: dict[type[nn.Module], type[EncodedModule]] = {
    nn.Linear: EncodedLinear,
    nn.Embedding: EncodedEmbedding,
    nn.Conv1d: EncodedConv1d,
    nn.Conv2d: EncodedConv2d,
    nn.Conv3d: EncodedConv3d,
}
"""What each class of module becomes; only modules of exactly these classes (or encoded before) can be encoded."""


def encoded_class(module: nn.Module) -> type[EncodedModule] | None:
    """What a module becomes when its weight is stored; None where it cannot be."""
    if isinstance(module, EncodedModule):
        return type(module)
    return ENCODED.get(module.dense if isinstance(module, InTraining) else type(module))

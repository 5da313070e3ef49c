"""Modules whose weight is stored by components: each is an instance of the class it was before."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from effcc.errors import EncodingError
from effcc.frontend.decode import decode


class EncodedModule(nn.Module):
    """A module whose `weight` is stored by components: buffers, or a parameter where gradients pass to one."""

    encoding: str
    weight_shape: tuple[int, ...]
    weight_components: tuple[str, ...]
    weight_dtype: torch.dtype | None = None

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
            self.weight_dtype = fn(torch.empty(0, dtype=self.weight_dtype)).dtype
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, weight={self.encoding}"


class EncodedLinear(EncodedModule, nn.Linear):
    """`nn.Linear` with a stored weight."""


class EncodedEmbedding(EncodedModule, nn.Embedding):
    """`nn.Embedding` with a stored table; a row is a channel."""


class EncodedConv1d(EncodedModule, nn.Conv1d):
    """`nn.Conv1d` with a stored kernel."""


class EncodedConv2d(EncodedModule, nn.Conv2d):
    """`nn.Conv2d` with a stored kernel."""


class EncodedConv3d(EncodedModule, nn.Conv3d):
    """`nn.Conv3d` with a stored kernel."""


ENCODED: dict[type[nn.Module], type[EncodedModule]] = {
    nn.Linear: EncodedLinear,
    nn.Embedding: EncodedEmbedding,
    nn.Conv1d: EncodedConv1d,
    nn.Conv2d: EncodedConv2d,
    nn.Conv3d: EncodedConv3d,
}
"""What each class of module becomes; only modules of exactly these classes (or encoded before) can be encoded."""

"""Changing a layer's input and its weight so that their product stays the same, and is easier to store.

x W^T = (x R s) (W R / s)^T        R orthogonal (rotation), s a factor for each channel (scale)
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class InputChange:
    """What is done to the channels of an input before the product: turned in blocks of len(rotation), then scaled.

    scale: [channels], over all groups of a convolution. rotation: [size, size], orthogonal. None: not done.
    Weights are [groups, channels of a group, input channels of a group * taps], Gram matrices of their last axis;
    `taps` is the size of a convolution's kernel.
    """

    scale: Tensor | None = None
    rotation: Tensor | None = None

    def __bool__(self) -> bool:
        return self.scale is not None or self.rotation is not None

    def of_input(self, x: Tensor, places: int = 0) -> Tensor:
        """The changed input; after its channels come so many dimensions."""
        return changed(x, self.scale, self.rotation, places)

    def of_weight(self, weight: Tensor, taps: int = 1) -> Tensor:
        """The weight that gives the same product with the changed input."""
        turned = weight if self.rotation is None else turn(weight, self.rotation)
        return turned if self.scale is None else turned / self._columns(len(weight), taps)

    def of_gram(self, gram: Tensor, taps: int = 1) -> Tensor:
        """The Gram matrix of the changed input."""
        if self.rotation is not None:
            gram = turn(turn(gram, self.rotation).transpose(1, 2), self.rotation)
        if self.scale is None:
            return gram
        columns = self._columns(len(gram), taps)
        return gram * columns * columns.transpose(1, 2)

    def undone(self, weight: Tensor, taps: int = 1) -> Tensor:
        """The weight that gives, with the input as it was, what `weight` gives with the changed one."""
        scaled = weight if self.scale is None else weight * self._columns(len(weight), taps)
        return scaled if self.rotation is None else turn(scaled, self.rotation.T)

    def of_producer(self, rows: Tensor) -> Tensor:
        """Parameters whose rows compute the input's channels, so that they compute the changed ones."""
        flat = rows.float().reshape(len(rows), -1)
        turned = flat if self.rotation is None else turn(flat.T, self.rotation).T
        scaled = turned if self.scale is None else turned * self.scale[:, None]
        return scaled.reshape(rows.shape).to(rows)

    def _columns(self, groups: int, taps: int) -> Tensor:
        assert self.scale is not None
        return self.scale.reshape(groups, 1, -1).repeat_interleave(taps, dim=2)


UNCHANGED = InputChange()


def changed(x: Tensor, scale: Tensor | None, rotation: Tensor | None, places: int) -> Tensor:
    """An input, turned and then scaled; after its channels come so many dimensions."""
    if rotation is not None:
        x = turn(x, rotation)
    return x if scale is None else x * scale.reshape(-1, *(1 for _ in range(places)))


def turn(x: Tensor, rotation: Tensor) -> Tensor:
    """x with blocks of its last axis multiplied by a matrix."""
    size = rotation.shape[0]
    return (x.reshape(*x.shape[:-1], x.shape[-1] // size, size) @ rotation).reshape(x.shape)


@functools.cache
def hadamard_matrix(size: int) -> Tensor:
    """Sylvester's construction, H(2n) = [[H, H], [H, -H]], over sqrt(size): symmetric, and its own inverse.

    One tensor for all layers, so that a compiler sees that an input of several is turned once.
    """
    made = torch.ones(1, 1)
    while len(made) < size:
        made = torch.cat([torch.cat([made, made], 1), torch.cat([made, -made], 1)])
    return made / size**0.5

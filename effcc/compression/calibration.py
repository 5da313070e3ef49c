"""What layers see of calibration data: for each, the Gram matrix of its inputs, summed call by call.

A layer multiplies rows x of an input (for a convolution, the patches under its kernel) with its weight W. Storing W as
Q changes its output by sum |(W - Q) x|^2 = tr((W - Q) G (W - Q)^T), with the Gram matrix G = sum x x^T: all that a
method needs of the data, whatever their number. Layers that are given the same tensor (queries, keys and values) share
one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effcc.compression.calls import Call
from effcc.compression.modules import EncodedModule
from effcc.errors import InputError

MOST_ELEMENTS = 1 << 24
"""Patches of a convolution are laid out for so many elements at a time."""

Advance = Callable[[], None]


@dataclass(frozen=True)
class Seen:
    """The inputs of a layer: gram[groups, K, K] in f32, and of how many rows it is the sum."""

    gram: Tensor
    rows: int


def has_inputs(module: nn.Module) -> bool:
    """Whether a module's weight is multiplied with what it is given (an embedding's is looked up)."""
    return not isinstance(module, nn.Embedding)


def gram_bytes(module: nn.Module) -> int:
    """Bytes of a module's Gram matrices."""
    groups, depth = shape_of(module)
    return 4 * groups * depth**2


def gather(
    model: nn.Module, modules: Mapping[str, nn.Module], calls: Sequence[Call], advance: Advance = lambda: None
) -> dict[str, Seen]:
    """What the modules see while the calls run, in evaluation mode and without gradients.

    Raises InputError where the model does not take a call, where infinities or NaN reach a layer, or nothing does.
    """
    apart: set[str] = set()
    while True:
        sums = _Sums(apart)
        with evaluating(model), torch.no_grad(), sums.watching(modules):
            for call in calls:
                call(model)
                advance()
        if not sums.broken:
            break
        apart |= sums.broken
    require_seen(modules, sums.leaders)
    return {name: sums.seen[sums.leaders[name]] for name in modules}


def require_seen(names: Iterable[str], seen: Collection[str]) -> None:
    """Raise InputError where a layer never ran."""
    unseen = [name for name in names if name not in seen]
    if unseen:
        raise InputError(f"data: {unseen[0] or 'the model'} never ran; leave it out with where=..., or give other data")


class _Sums:
    """Gram matrices by the layer that was first given the tensors; `leaders` says whose is which layer's."""

    def __init__(self, apart: set[str]) -> None:
        self.apart = apart
        self.seen: dict[str, Seen] = {}
        self.leaders: dict[str, str] = {}
        self.recent: list[tuple[Tensor, int, str]] = []
        self.broken: set[str] = set()

    @contextmanager
    def watching(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        def hook(name: str) -> Any:
            return lambda module, args, kwargs: self._see(name, module, args[0] if args else kwargs["input"])

        handles = [m.register_forward_pre_hook(hook(name), with_kwargs=True) for name, m in modules.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self.recent.clear()

    def _see(self, name: str, module: nn.Module, x: Tensor) -> None:
        version = -1 if x.is_inference() else x._version
        same = next((lead for t, v, lead in self.recent if t is x and v == version), None)
        shared = same if isinstance(module, nn.Linear) and name not in self.apart else None
        lead = self.leaders.setdefault(name, shared or name)
        if lead != name:
            if lead != same:  # was given its leader's tensor before, and another now
                self.broken.add(name)
            return
        part = _gram(module, x.detach())
        if not bool(torch.isfinite(part.gram).all()):
            raise InputError(f"data: infinities or NaN reach {name or 'the model'}")
        before = self.seen.get(name)
        if before is not None:
            part = Seen(before.gram.add_(part.gram), before.rows + part.rows)
        self.seen[name] = part
        if isinstance(module, nn.Linear):
            self.recent = [(x, version, name), *self.recent[:3]]


def shape_of(module: nn.Module) -> tuple[int, int]:
    """Groups, and elements of a row: of each output channel's weight."""
    held: Any = module
    shape = held.weight_shape if isinstance(module, EncodedModule) else held.weight.shape
    return int(getattr(module, "groups", 1)), int(torch.Size(shape[1:]).numel())


def _gram(module: nn.Module, x: Tensor) -> Seen:
    if isinstance(module, nn.Linear):
        rows = x.reshape(-1, x.shape[-1]).float()
        return Seen((rows.T @ rows)[None], len(rows))
    batch = x if x.ndim == len(module.kernel_size) + 2 else x[None]  # type: ignore[arg-type]
    groups, depth = shape_of(module)
    gram, count = torch.zeros(groups, depth, depth, device=x.device), 0
    each = max(1, MOST_ELEMENTS // max(1, _patches(module, batch[:1]).numel()))
    for start in range(0, len(batch), each):
        rows = _patches(module, batch[start : start + each]).float()
        gram += rows.transpose(1, 2) @ rows
        count += rows.shape[1]
    return Seen(gram, count)


def _patches(module: Any, batch: Tensor) -> Tensor:
    """What a convolution's kernel is multiplied with, [groups, rows, channels of a group * kernel]."""
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = F.pad(batch, module._reversed_padding_repeated_twice, mode=mode)
    rank = len(module.kernel_size)
    for i, (size, step, dilation) in enumerate(zip(module.kernel_size, module.stride, module.dilation, strict=True)):
        x = x.unfold(2 + i, (size - 1) * dilation + 1, step)[..., ::dilation]
    places, kernel = x.shape[2 : 2 + rank], x.shape[2 + rank :]
    x = x.reshape(x.shape[0], module.groups, -1, *places, *kernel)
    order = [1, 0, *range(3, 3 + rank), 2, *range(3 + rank, 3 + 2 * rank)]
    x = x.permute(order)
    return x.reshape(module.groups, batch.shape[0] * places.numel(), -1)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, and afterwards as it was."""
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode

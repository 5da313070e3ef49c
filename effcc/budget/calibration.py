"""Calibration data: calls of the model, and what they show of its layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from effcc.errors import InputError

SAMPLE_ROWS = 256
"""So many rows of a linear layer's input are kept, spread evenly, to judge its output by."""

SAMPLE_ITEMS = 4
"""So many items of a batch are kept of another module's input."""


@dataclass(frozen=True)
class Call:
    """Arguments of one call of the model."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __call__(self, model: nn.Module) -> Any:
        return model(*self.args, **self.kwargs)


def calls_of(data: object) -> tuple[Call, ...]:
    """The calls that `data` stands for: a tensor, a tuple of arguments, a mapping of keywords, or an iterable of these.

    Raises InputError where there is none, or where floating numbers are infinite or NaN.
    """
    items = [data] if isinstance(data, Tensor | Mapping | tuple) else list(_iterable(data))
    calls = tuple(_call(item, n) for n, item in enumerate(items))
    if not calls:
        raise InputError("data: expected at least one call of the model, got none")
    for n, call in enumerate(calls):
        for leaf in tree_leaves((call.args, dict(call.kwargs))):
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and not bool(torch.isfinite(leaf).all()):
                raise InputError(f"data: call {n} holds infinities or NaN in a tensor of shape {list(leaf.shape)}")
    return calls


def _iterable(data: object) -> Iterable[object]:
    if not isinstance(data, Iterable) or isinstance(data, str | bytes):
        raise InputError(f"data: expected calls of the model (tensors, tuples or mappings), got {type(data).__name__}")
    return data


def _call(item: object, n: int) -> Call:
    if isinstance(item, Tensor):
        return Call((item,), {})
    if isinstance(item, Mapping):
        return Call((), dict(item))
    if isinstance(item, tuple | list):
        return Call(tuple(item), {})
    raise InputError(f"data: call {n} is a {type(item).__name__}; expected a tensor, a tuple of arguments or keywords")


@dataclass
class Profile:
    """What calls showed of a module: rows of each product with its weight (of all calls), and a sample of its input."""

    rows: list[int] = field(default_factory=list)
    sample: tuple[Any, ...] | None = None


@contextmanager
def profiling(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Profile]]:
    """Watch modules while calls run."""
    profiles = {name: Profile() for name in modules}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            profile = profiles[name]
            profile.rows.append(output.numel() // max(output.shape[_channel_axis(module, output)], 1))
            if profile.sample is None:
                profile.sample = _sample(module, args)

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in modules.items()]
    try:
        yield profiles
    finally:
        for handle in handles:
            handle.remove()


def _channel_axis(module: nn.Module, output: Tensor) -> int:
    return -1 if isinstance(module, nn.Linear | nn.Embedding) else output.ndim - len(module.kernel_size) - 1  # type: ignore[arg-type]


def _sample(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """A part of a module's input, copied."""
    if isinstance(module, nn.Linear):
        rows = args[0].detach().reshape(-1, args[0].shape[-1])
        return (rows[:: max(1, -(-len(rows) // SAMPLE_ROWS))].clone(),)
    return tree_map(lambda t: t.detach()[:SAMPLE_ITEMS].clone() if isinstance(t, Tensor) else t, args)


def rows_of_a_call(profile: Profile, calls: Sequence[Call], rows: int | None) -> list[int]:
    """Rows of the products in one call: as in the first of the calibration calls, or `rows` in each."""
    once = profile.rows[: max(1, len(profile.rows) // len(calls))]
    return once if rows is None else [rows] * len(once)

"""Calibration data: calls of the model, and what they show of its layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from effcc.compression.calls import Call

SAMPLE_ROWS = 256
"""So many rows of a linear layer's input are kept, spread evenly, to judge its output by."""

SAMPLE_ITEMS = 4
"""So many items of a batch are kept of another module's input."""


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

"""Calibration data as calls of a model.

>>> import torch
>>> [len(call.args) for call in calls_of([torch.zeros(2, 3), (torch.zeros(2, 3), torch.ones(2))])]
[1, 2]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from effcc.errors import EffccError, InputError


@dataclass(frozen=True)
class Call:
    """Arguments of one call of the model; `number` is its place among the data."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    number: int = 0

    def __call__(self, model: nn.Module) -> Any:
        """The model's result. Raises InputError where the model does not take the arguments."""
        try:
            return model(*self.args, **self.kwargs)
        except EffccError:
            raise
        except (TypeError, ValueError, IndexError, RuntimeError) as error:
            got = ", ".join([*map(_shown, self.args), *(f"{k}={_shown(v)}" for k, v in self.kwargs.items())])
            raise InputError(
                f"data: {type(model).__name__} does not take call {self.number}, which is ({got}): {error}"
            ) from error


def calls_of(data: object) -> tuple[Call, ...]:
    """The calls that `data` stands for: a tensor, a tuple of arguments, a mapping of keywords, or an iterable of these.

    Raises InputError where there is none, or where floating numbers among them are infinite or NaN.
    """
    items = [data] if isinstance(data, Tensor | Mapping | tuple) else list(_iterable(data))
    if not items:
        raise InputError("data: expected at least one call (a tensor, a tuple of arguments, or keywords), got none")
    calls = tuple(_call(item, n) for n, item in enumerate(items))
    for call in calls:
        for leaf in tree_leaves((call.args, dict(call.kwargs))):
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and not bool(torch.isfinite(leaf).all()):
                raise InputError(
                    f"data: call {call.number} holds infinities or NaN in a tensor of shape {list(leaf.shape)}"
                )
    return calls


def _iterable(data: object) -> Iterable[object]:
    if not isinstance(data, Iterable) or isinstance(data, str | bytes):
        raise InputError(f"data: expected calls (tensors, tuples of arguments or keywords), got {type(data).__name__}")
    return data


def _call(item: object, number: int) -> Call:
    if isinstance(item, Tensor):
        return Call((item,), {}, number)
    if isinstance(item, Mapping):
        return Call((), dict(item), number)
    if isinstance(item, tuple | list):
        return Call(tuple(item), {}, number)
    raise InputError(
        f"data: call {number} is a {type(item).__name__}; expected a tensor, a tuple of arguments or keywords"
    )


def _shown(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return type(value).__name__

"""PyTorch's `cond` and `while_loop` in eager, without Dynamo: it traces both anew at each call of eager's, which took
three fourths of the time of all programs.

What they give is what Python's `if` and `while` give; where a program then seems wrong, it is compared once more with
eager's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import torch._higher_order_ops.utils as higher_order
from torch import Tensor
from torch.utils._pytree import tree_leaves

_COMPILED = higher_order._hop_compile_and_call


@contextlib.contextmanager
def plain_control_flow() -> Iterator[None]:
    """Within it, branches and loops run as Python's. They raise RuntimeError where results are of other types than each
    other, or than what a loop began with."""
    with mock.patch.object(higher_order, "_hop_compile_and_call", _called):
        yield


def _called(wrapper: Callable[..., Any], given: Sequence[Any], kwargs: Any = None) -> Any:
    if wrapper.__name__ == "_cond_op_wrapper":
        condition, if_true, if_false, operands = given
        both = if_true(*operands), if_false(*operands)
        _require_alike(*both)
        return both[0] if condition else both[1]
    if wrapper.__name__ == "_while_loop_op_wrapper":
        condition, body, held, _ = given
        while condition(*held):
            fresh = body(*held)
            _require_alike(held, fresh)
            held = fresh
        return held
    return _COMPILED(wrapper, given, kwargs)


def _require_alike(one: Any, other: Any) -> None:
    first, second = tree_leaves(one), tree_leaves(other)
    if [_type(t) for t in first] != [_type(t) for t in second]:
        raise RuntimeError("expected results of the same types from both branches, or from each round of a loop")


def _type(value: Any) -> Any:
    return (value.dtype, value.shape) if isinstance(value, Tensor) else type(value)

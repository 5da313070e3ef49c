"""What PyTorch's kernels refuse of an operand's dtype and captured graphs do not tell: `lerp` of int16, `-` of bools.

Capture runs meta functions, which take more than the kernels behind them. So a kernel is asked, with operands of one
element; what it refuses is left to it, to say so at the call as eager does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_unflatten

aten = torch.ops.aten

_EVERYWHERE = (torch.float32, torch.float64)
_NUMBERS = (bool, int, float, complex, str, torch.dtype, torch.layout, torch.device, torch.memory_format, type(None))
_PRODUCTS = {aten.mm.default, aten.bmm.default, aten.mv.default, aten.dot.default, aten.addmm.default}


def refused(node: fx.Node) -> str:
    """What a call's kernel says of the dtypes that it gets; empty where it takes them.

    Only calls that the model makes itself are looked at: a decomposition computes what another kernel takes. A product
    of unlike dtypes is none of these: `linear` and `matmul` hand it on to the kernel that refuses it.
    """
    own = str(node.meta.get("original_aten")) == str(node.target)
    if not own and not (node.target in _PRODUCTS and _unlike(node.args)):
        return ""
    return _refused(node.target, node.args, node.kwargs)


def unless_refused(overload: Any, decomposition: Callable[..., Any]) -> Callable[..., Any]:
    """A decomposition that declines what the operator's kernel refuses."""

    @functools.wraps(decomposition)
    def taken_apart(*args: Any, **kwargs: Any) -> Any:
        return NotImplemented if _refused(overload, args, kwargs) else decomposition(*args, **kwargs)

    return taken_apart


def _refused(target: Any, args: Any, kwargs: Any) -> str:
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten" or target._schema.is_mutable:
        return ""
    leaves, structure = tree_flatten((args, kwargs))
    asked = tuple(map(_asked, leaves))
    tensors = [a for a in asked if isinstance(a, _Operand)]
    known = all(t.dtype in _EVERYWHERE for t in tensors) and not (target in _PRODUCTS and _unlike(args))
    if None in asked or known:
        return ""
    if torch.Tag.nondeterministic_seeded in target.tags:  # to ask would draw
        return ""
    if torch.Tag.pointwise in target.tags or len(tensors) == 1 or target in _PRODUCTS:
        return _answer(target, asked, structure)
    return ""


def _unlike(args: Any) -> bool:
    """Whether tensors among the arguments differ in their dtype."""
    values = (a.meta.get("val") if isinstance(a, fx.Node) else a for a in args)
    return len({value.dtype for value in values if isinstance(value, Tensor)}) > 1


class _Operand(tuple[torch.dtype, int]):
    """The dtype and the rank of an operand; numbers and tensors weigh differently in a result's dtype."""

    @property
    def dtype(self) -> torch.dtype:
        return self[0]

    def ones(self) -> Tensor:
        return torch.ones((1,) * self[1], dtype=self[0])


def _asked(leaf: Any) -> Any:
    """What stands for an argument in the question: None if nothing can."""
    value = leaf.meta.get("val") if isinstance(leaf, fx.Node) else leaf
    if isinstance(value, Tensor):
        return _Operand((value.dtype, value.dim())) if value.layout == torch.strided else None
    return (type(value), value) if isinstance(value, _NUMBERS) else None


@functools.lru_cache(maxsize=4096)
def _answer(target: Any, asked: tuple[Any, ...], structure: Any) -> str:
    with _disable_current_modes(), torch.no_grad():
        args, kwargs = tree_unflatten([a.ones() if isinstance(a, _Operand) else a[1] for a in asked], structure)
        try:
            target(*args, **kwargs)
        except NotImplementedError as error:
            return _first_line(error)
        except RuntimeError as error:  # operators other than these may refuse operands of one element
            said = _first_line(error)
            return said if torch.Tag.pointwise in target.tags or target in _PRODUCTS or "support" in said else ""
        except (IndexError, TypeError, ValueError):
            return ""
    return ""


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]

"""What is asked of nodes of a captured graph: what they carry, how they are called, how results are written down."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from effcc.frontend.importer import DTYPES, strided
from effcc.frontend.sizes import shape
from effcc.ir.dims import Dim
from effcc.ir.graph import Value
from effcc.ir.types import TensorType


def carries(node: fx.Node) -> bool:
    """Whether a call reads or gives a tensor of a dtype that no kernel computes on."""
    found = (DTYPES.get(t.dtype) for t in examples(node))
    return any(dtype is not None and dtype.is_carried for dtype in found)


def examples(node: fx.Node) -> list[Tensor]:
    """The (fake) tensors that a call reads and gives."""
    values = [node.meta.get("val"), *(n.meta.get("val") for n in node.all_input_nodes)]
    return [t for v in values for t in (v if isinstance(v, list | tuple) else [v]) if isinstance(t, Tensor)]


def is_input(node: fx.Node) -> bool:
    """Whether a result is an input, or one seen through views: AOTAutograd hands out the input itself."""
    while isinstance(node.target, torch._ops.OpOverload) and node.target.is_view:
        node = node.args[0]  # type: ignore[assignment]
    return node.op == "placeholder"


def has_symbols(node: fx.Node) -> bool:
    """Whether a call reads or gives a tensor with a symbolic size."""
    return any(isinstance(n, torch.SymInt) for t in examples(node) for n in t.shape)


def tensors_only(operands: tuple[Any, ...]) -> tuple[Value, ...]:
    """The operands of control flow without sizes, which its bodies know by their symbols."""
    return tuple(o for o in operands if isinstance(o, Value))


def is_token(node: fx.Node) -> bool:
    """Whether a placeholder only orders calls that have effects; a call passes None for it."""
    ordered = torch.ops.higher_order.with_effects
    return any(user.target is ordered and user.args[0] is node for user in node.users)


def output_layout(type_: TensorType, strides: Any) -> tuple[Dim, ...] | None:
    """The strides for an output, or None where they are row-major or elements would share memory."""
    if strides is None:
        return None
    found = strided(type_.shape, shape(strides))
    if found is None or any(s == 0 for s, n in zip(found, type_.shape, strict=True) if n != 1):
        return None
    return found


def as_attribute(type_: TensorType) -> tuple[Any, ...]:
    """A type as an attribute of `extern`: dtype and shape, then strides where they are not row-major."""
    return (type_.dtype, type_.shape) if type_.strides is None else (type_.dtype, type_.shape, type_.strides)


def by_schema(target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """A call's arguments in the schema's order, defaults filled in; keyword-only ones by name."""
    positional, named = [], {}
    for position, argument in enumerate(target._schema.arguments):
        if position < len(args):
            value = args[position]
        elif argument.name in kwargs:
            value = kwargs[argument.name]
        else:
            default = argument.default_value
            value = tuple(default) if isinstance(default, list) else default
        if argument.kwarg_only:
            named[argument.name] = value
        else:
            positional.append(value)
    return positional, named


def identifier(name: str) -> str:
    """A parameter's name as the IR writes one: letters, digits, `_` and `.`."""
    cleaned = re.sub(r"[^A-Za-z0-9_.]+", "_", name).strip("._")
    return cleaned if cleaned and not cleaned[0].isdigit() else f"p{cleaned}"

"""Calls that PyTorch runs: how a call's arguments are kept as attributes of an `extern` node, and made again from them.

A template is nested tuples: `("tensor", k)` stands for operand k, `("list", ...)` for a list, `("value", v)` for a
number, a string, None or a size, `("permuted", k, axes)` for operand k with its axes in another order, `("strided", k,
strides)` for a copy of it with those strides, `("complex", re, im)` for a complex number, `("dtype" | "device" |
"layout" | "memory_format", text)` for torch's own values, and `("operator", name)` for an operator that the called one
calls. The whole is `(args, kwargs)` where kwargs are pairs of a name and a template.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import Tensor

from effcc.errors import UnknownNameError, UnsupportedError
from effcc.ir.dims import Shape, contiguous_strides, evaluate_number
from effcc.ir.graph import Node, Value
from effcc.ir.program import Extern

Template = tuple[Any, ...]

_TORCH_VALUES = {
    torch.dtype: "dtype",
    torch.layout: "layout",
    torch.memory_format: "memory_format",
    torch.device: "device",
}


@dataclass(frozen=True)
class LaidOut:
    """A tensor that a call takes as it lies in eager's memory: `value` with its axes in the order `axes`, or, where
    `strides` are given, a copy of it with those."""

    value: Value
    axes: tuple[int, ...] = ()
    strides: Shape | None = None


def target_name(overload: Any) -> str:
    """`aten::sort.stable` for an overload, `higher_order::name` for an operator that calls others."""
    if isinstance(overload, torch._ops.HigherOrderOperator):
        return f"higher_order::{overload.name()}"
    return f"{overload.namespace}::{overload._schema.name.split('::')[1]}.{overload._overloadname}"


def find_target(name: str) -> Any:
    """The overload that `target_name` named; raises UnknownNameError where this torch has none."""
    namespace, _, rest = name.partition("::")
    base, _, overload = rest.partition(".")
    packet = getattr(getattr(torch.ops, namespace), base, None)
    whole = isinstance(packet, torch._ops.HigherOrderOperator)
    found = packet if whole else getattr(packet, overload or "default", None)
    if found is None:
        raise UnknownNameError("PyTorch operator", name, (), "it must be registered before the program runs")
    return found


def make_template(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Value], Template]:
    """The tensors among the arguments of a call, and the template that puts them back."""
    operands: list[Value] = []

    def encode(argument: Any) -> Template:
        if isinstance(argument, Value):
            operands.append(argument)
            return ("tensor", len(operands) - 1)
        if isinstance(argument, LaidOut):
            operands.append(argument.value)
            how = ("permuted", argument.axes) if argument.strides is None else ("strided", argument.strides)
            return (how[0], len(operands) - 1, how[1])
        if isinstance(argument, list | tuple):
            return ("list", *(encode(a) for a in argument))
        for kind, tag in _TORCH_VALUES.items():
            if isinstance(argument, kind):
                return (tag, str(argument).removeprefix("torch."))
        if isinstance(argument, torch._ops.OpOverload):
            return ("operator", target_name(argument))
        if isinstance(argument, complex):
            return ("complex", argument.real, argument.imag)
        if argument is None or isinstance(argument, bool | int | float | str | sympy.Expr):
            return ("value", argument)
        raise UnsupportedError(f"cannot keep an argument of type {type(argument).__name__} for a call to PyTorch")

    encoded = (tuple(encode(a) for a in args), tuple((name, encode(a)) for name, a in sorted(kwargs.items())))
    return operands, encoded


def reading_row_major(template: Template, shapes: Mapping[int, Shape]) -> Template:
    """A template that gives the call row-major copies of the operands at these places, which are stored otherwise.

    shapes: those operands' shapes.
    """

    def place(part: Any) -> Any:
        if not isinstance(part, tuple):
            return part
        if len(part) == 2 and part[0] == "tensor" and part[1] in shapes:
            return ("strided", part[1], contiguous_strides(shapes[part[1]]))
        return tuple(map(place, part))

    return tuple(map(place, template))


def tensors(results: Any) -> list[Tensor]:
    """The tensors among the results of a call, which may be nested."""
    if isinstance(results, list | tuple):
        return [t for r in results for t in tensors(r)]
    return [results] if isinstance(results, Tensor) else []


def bind(node: Node | Extern) -> Callable[[Sequence[Tensor], Mapping[str, int]], list[Tensor]]:
    """The call that an `extern` stands for: takes its operands and the values of the size symbols."""
    attrs: Mapping[str, Any] = node.attrs
    target = find_target(attrs["target"])
    args, kwargs = attrs["template"]

    def run(operands: Sequence[Tensor], sizes: Mapping[str, int]) -> list[Tensor]:
        def decode(template: Any) -> Any:
            tag, *rest = template
            if tag == "tensor":
                return operands[rest[0]]
            if tag == "permuted":
                return operands[rest[0]].permute(rest[1])
            if tag == "strided":
                held, strides = operands[rest[0]], [int(evaluate_number(s, sizes)) for s in rest[1]]
                return torch.empty_strided(held.shape, strides, dtype=held.dtype).copy_(held)
            if tag == "list":
                return [decode(t) for t in rest]
            if tag == "value":
                return evaluate_number(rest[0], sizes)
            if tag == "complex":
                return complex(*rest)
            if tag == "operator":
                return find_target(rest[0])
            return torch.device(rest[0]) if tag == "device" else getattr(torch, rest[0])

        given, named = [decode(a) for a in args], {name: decode(a) for name, a in kwargs}
        return tensors(asked_for(target, given, named, target(*given, **named)))

    return run


def asked_for(target: Any, given: Sequence[Any], named: Mapping[str, Any], results: Any) -> Any:
    """A call's results with None for those that its `output_mask` leaves out: PyTorch, or its traces, may have them."""
    if isinstance(target, torch._ops.HigherOrderOperator):
        return results
    arguments = [a.name for a in target._schema.arguments]
    if "output_mask" not in arguments:
        return results
    at = arguments.index("output_mask")
    mask = given[at] if at < len(given) else named["output_mask"]
    return [result if wanted else None for result, wanted in zip(results, mask, strict=True)]

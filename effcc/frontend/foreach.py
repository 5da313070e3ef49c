"""Operators over lists of tensors, which PyTorch's optimizers call: on a CPU each is one call for every tensor.

Taken apart so, an update is pointwise from end to end, and a step of an optimizer is one program of fused updates.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten

Rule = Callable[..., list[Tensor]]

_NAMED = {"scalars": "value", "value": "value", "alpha": "alpha"}
"""Arguments that the call for one tensor takes by name; of a list of numbers, each its own."""
_BOUNDS: dict[str, Callable[..., Tensor]] = {
    "maximum": torch.clamp_min, "minimum": torch.clamp_max, "clamp_min": torch.clamp_min,
    "clamp_max": torch.clamp_max,
}  # fmt: skip
_PREFIX = "aten::_foreach_"
_LISTS = ("List[Tensor]", "List[number]")
_OTHERS = ("number", "Tensor")


@functools.cache
def foreach_decompositions() -> dict[Any, Rule]:
    """The rules: overload -> a call for every tensor of its lists."""
    found: dict[Any, Rule] = {}
    known = {n.partition(".")[0] for n in torch._C._dispatch_get_all_op_names() if n.startswith(_PREFIX)}
    for name in sorted(n.removeprefix(_PREFIX) for n in known if not n.endswith("_")):
        packet = getattr(aten, f"_foreach_{name}")
        for overload in packet.overloads():
            op = getattr(packet, overload)
            bound = _BOUNDS.get(name) if overload.startswith("Scalar") else None
            one = bound or getattr(torch, name, None)
            if one is not None and _is_elementwise(op):
                found[op] = functools.partial(_each, one, op)
    return found


def _is_elementwise(op: Any) -> bool:
    """Whether it gives a list, of lists of as many tensors or numbers and of what is the same for all."""
    schema = op._schema
    types = [str(a.type) for a in schema.arguments]
    gives = [str(r.type) for r in schema.returns] == ["List[Tensor]"]
    per_tensor = not any(str(a.type) == "Tensor" and a.name == "scalars" for a in schema.arguments)
    return gives and per_tensor and all(t in (*_LISTS, *_OTHERS) for t in types)


def _each(one: Callable[..., Tensor], op: Any, *args: Any, **kwargs: Any) -> list[Tensor]:
    """The results of one call for each position of the lists."""
    arguments = op._schema.arguments
    given = {a.name: a.default_value for a in arguments if a.has_default_value()}
    given |= dict(zip((a.name for a in arguments), args, strict=False)) | kwargs
    lists = {a.name for a in arguments if str(a.type) in _LISTS}
    by_name = {a.name: _NAMED[a.name] for a in arguments if a.name in _NAMED and _takes_names(op, a.name)}
    count = len(given[next(a.name for a in arguments if str(a.type) == "List[Tensor]")])

    def at(name: str, position: int) -> Any:
        return given[name][position] if name in lists else given[name]

    return [
        one(
            *(at(a.name, k) for a in arguments if a.name not in by_name),
            **{keyword: at(name, k) for name, keyword in by_name.items()},
        )
        for k in range(count)
    ]


def _takes_names(op: Any, name: str) -> bool:
    """Whether an argument is a factor beside others: `scalars` of a sum are what is added."""
    return name != "scalars" or op._schema.name.removeprefix(_PREFIX) in ("addcmul", "addcdiv")

"""Which arguments a call has, apart from sizes and numbers: what the calls of one rule have in common.

A rule's calls have the same slots: a tensor of rank 2 is `T2`, of any rank `T*`, a list of two `[T2, T2]`; integers
that a rule computes with are `int` or `int[2]`; other numbers `number 0.5|2.0`, those that were accepted; all else is
itself (`dim=1`, `keepdim=True`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from effcc.fuzz.learned.record import Arguments, Array, Name


@dataclass(frozen=True)
class Slot:
    """What stands for an argument.

    kind: `tensor`, `tensors`, `int`, `ints`, `number` or `literal`. ranks: of tensors, None where they have any; that
    of an optional tensor that is not there is -1. fills: as `Array.fill`. count: of integers. literal: the value
    itself, of a number those that were accepted.
    """

    kind: str
    ranks: tuple[int | None, ...] = ()
    fills: tuple[str, ...] = ()
    count: int = 0
    literal: Any = None


Slots = tuple[tuple[str, Slot], ...]


def overload(operator: str) -> Any:
    """The overload of a name, "aten.add.Tensor". Raises AttributeError if this PyTorch has none."""
    space, packet, name = operator.split(".")
    return getattr(getattr(getattr(torch.ops, space), packet), name)


@cache
def _types(operator: str) -> dict[str, str]:
    return {a.name: str(a.type) for a in overload(operator)._schema.arguments}


def _is_axis(name: str) -> bool:
    """Whether integers of that name choose among things, and are no sizes."""
    return name.startswith(("dim", "axis", "start_dim", "end_dim", "source", "destination", "reduction", "mode"))


def slots(operator: str, arguments: Arguments) -> Slots:
    """The slots of a call."""
    types = _types(operator)
    return tuple((name, _slot(name, types[name], value)) for name, value in arguments.items())


def _slot(name: str, type: str, value: Any) -> Slot:
    if isinstance(value, Array):
        return Slot("tensor", (len(value.shape),), (value.fill,))
    if isinstance(value, tuple) and any(isinstance(v, Array) for v in value):
        ranks = tuple(-1 if v is None else len(v.shape) for v in value)
        return Slot("tensors", ranks, tuple("" if v is None else v.fill for v in value))
    if isinstance(value, bool) or value is None or isinstance(value, str | Name) or _is_axis(name):
        return Slot("literal", literal=value)
    if isinstance(value, float) or (isinstance(value, int) and "int" not in type):
        return Slot("number", literal=(value,))
    if isinstance(value, int):
        return Slot("int", count=1)
    if isinstance(value, tuple) and value and all(isinstance(v, int) and not isinstance(v, bool) for v in value):
        return Slot("ints", count=len(value))
    return Slot("literal", literal=value)


def key(found: Slots) -> Slots:
    """Slots in which numbers are all alike."""
    return tuple((n, replace(s, literal=()) if s.kind == "number" else s) for n, s in found)


def of_any_rank(found: Slots) -> Slots:
    """The same slots, of tensors that have any rank."""
    return tuple((n, replace(s, ranks=(None,)) if s.kind == "tensor" else s) for n, s in found)


def tensors(arguments: Arguments) -> Iterator[tuple[str, Array]]:
    """The tensors of a call by the names that rules have for them: `self`, `tensors_0`."""
    for name, value in arguments.items():
        if isinstance(value, Array):
            yield name, value
        elif isinstance(value, tuple):
            yield from ((f"{name}_{k}", v) for k, v in enumerate(value) if isinstance(v, Array))


def numbers(operator: str, arguments: Arguments) -> dict[str, int]:
    """What rules compute with: sizes (`self_0`, `tensors_1_0`) and integers (`groups`, `padding_0`), by name."""
    found = {f"{name}_{axis}": size for name, t in tensors(arguments) for axis, size in enumerate(t.shape)}
    for name, slot in slots(operator, arguments):
        if slot.kind == "int":
            found[name] = int(arguments[name])
        elif slot.kind == "ints":
            found.update({f"{name}_{k}": int(v) for k, v in enumerate(arguments[name])})
    return found


def with_numbers(operator: str, arguments: Arguments, found: Mapping[str, int]) -> dict[str, Any]:
    """The same call with other sizes and integers; tensors are row-major."""
    made: dict[str, Any] = {}
    kinds = dict(slots(operator, arguments))

    def sized(name: str, t: Array) -> Array:
        return Array(t.dtype, tuple(found[f"{name}_{a}"] for a in range(len(t.shape))), None, t.fill)

    for name, value in arguments.items():
        if isinstance(value, Array):
            made[name] = sized(name, value)
        elif kinds[name].kind == "tensors":
            made[name] = tuple(v and sized(f"{name}_{k}", v) for k, v in enumerate(value))
        elif kinds[name].kind == "int":
            made[name] = found[name]
        elif kinds[name].kind == "ints":
            made[name] = tuple(found[f"{name}_{k}"] for k in range(len(value)))
        else:
            made[name] = value
    return made

"""What was learned of an operator: which calls it accepts, and what its results are like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from effcc.fuzz.learned.formula import Shape, Undefined, holds, shape
from effcc.fuzz.learned.record import Arguments, Array, Record
from effcc.fuzz.learned.structure import Slots, key, numbers, of_any_rank, slots, tensors


@dataclass(frozen=True)
class Types:
    """Which dtypes go together: for each tensor the dtypes that it may have, or the name of the tensor whose dtype it
    has; and of each result a dtype, or the tensor whose dtype it has, or `promoted`."""

    allowed: tuple[tuple[str, tuple[str, ...] | str], ...]
    results: tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """A kind of call that an operator accepts.

    needs: conditions that must hold together. gives: a formula of the shape of each result. types: its dtypes. seen: a
    call that eager accepted. any_rank: whether its tensors may have any rank.
    """

    operator: str
    slots: Slots
    needs: tuple[str, ...]
    gives: tuple[str, ...]
    types: Types
    seen: Mapping[str, int]
    any_rank: bool = False

    @property
    def writes(self) -> bool:
        """Whether the operator writes into an argument."""
        return is_in_place(self.operator)

    def fits(self, record: Record) -> bool:
        """Whether a call is of the kind that the rule is about."""
        found = key(slots(record.operator, record.arguments))
        return key(self.slots) == (of_any_rank(found) if self.any_rank else found)

    def accepts(self, given: Mapping[str, Any]) -> bool:
        """Whether sizes and integers are such as the operator accepts."""
        return all(holds(need, given) for need in self.needs)

    def predicts(self, record: Record) -> bool:
        """Whether it says of a call what eager does: that it is refused, or its results' shapes."""
        given = facts(record.operator, record.arguments)
        if record.results is None:
            return not self.accepts(given)
        try:
            found = [shape(text, given) for text in self.gives]
        except Undefined:
            return False
        return self.accepts(given) and found == [r.shape for r in record.results]


@dataclass(frozen=True)
class Concrete:
    """A call that eager accepted, of an operator without a rule."""

    operator: str
    arguments: Arguments
    results: tuple[Array, ...]

    @property
    def writes(self) -> bool:
        """Whether the operator writes into an argument."""
        return is_in_place(self.operator)


def is_in_place(operator: str) -> bool:
    """Whether an operator writes into an argument, as its name says."""
    return operator.split(".")[1].endswith("_")


def facts(operator: str, arguments: Arguments) -> dict[str, int | Shape]:
    """What formulas may name: the numbers of a call and its tensors' shapes."""
    found: dict[str, int | Shape] = dict(numbers(operator, arguments))
    found.update((name, t.shape) for name, t in tensors(arguments))
    return found


def dtypes(record: Record) -> tuple[str, ...]:
    """The dtypes of a call's tensors."""
    return tuple(t.dtype for _, t in tensors(record.arguments))

"""What a rule puts in a match's place: typed nodes, planned before any is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from effcc.errors import IRTypeError
from effcc.ir.dims import same_shape
from effcc.ir.graph import Value
from effcc.ir.ops import lookup
from effcc.ir.types import TensorType
from effcc.passes.rules.constants import as_held, constant_attrs, neighbour
from effcc.passes.rules.functions import UNDEFINED
from effcc.passes.rules.language import Computed, Number, NumberVariable, Operation, Rule, Tensor, Term
from effcc.passes.rules.matching import Facts, Match, value_of


@dataclass(frozen=True)
class Planned:
    """A node to be made: operands are existing values, or positions of nodes planned before it."""

    op: str
    operands: tuple[Value | int, ...]
    attrs: Mapping[str, Any]
    type: TensorType
    fixed: bool


@dataclass(frozen=True)
class Plan:
    """The nodes of a replacement, operands first, and what replaces the root: the position of a node, or a value."""

    nodes: tuple[Planned, ...]
    root: Value | int


def _number(term: Number | NumberVariable | Computed, match: Match) -> Any:
    match term:
        case Number():
            return term.value
        case NumberVariable():
            return match.scalars[term.name]
        case Computed():
            return value_of(term.value, match)


class _Misfit(Exception):
    """The replacement cannot stand here."""


def plan_replacement(rule: Rule, match: Match, facts: Facts) -> Plan | None:
    """The replacement's nodes, typed; None where it does not have the dtype and shape of what it replaces."""
    nodes: list[Planned] = []
    wanted = match.nodes[0].result.type

    def add(op: str, operands: tuple[Value | int, ...], attrs: Mapping[str, Any]) -> int:
        spec = lookup(op)
        types = tuple(map(typed, operands))
        complete = spec.complete_attrs(attrs)
        (type,) = spec.infer_types(types, complete)
        fixed = all(o in facts.fixed if isinstance(o, Value) else nodes[o].fixed for o in operands)
        nodes.append(Planned(spec.name, operands, complete, type, fixed))
        return len(nodes) - 1

    def typed(operand: Value | int) -> TensorType:
        return operand.type if isinstance(operand, Value) else nodes[operand].type

    def build(term: Term, like: TensorType) -> Value | int:
        if isinstance(term, Tensor):
            return match.tensors[term.name]
        if isinstance(term, Operation):
            # A constant takes its neighbour's dtype, so neighbours come first.
            built: dict[int, Value | int] = {
                i: build(t, like) for i, t in enumerate(term.operands) if isinstance(t, (Tensor, Operation))
            }
            known = [typed(built[i]) if i in built else None for i in range(len(term.operands))]
            near = neighbour(term.op, known) or like
            for i, operand in enumerate(term.operands):
                if i not in built:
                    built[i] = build(operand, TensorType(near.dtype, ()))
            attrs = {name: value_of(e, match) for name, e in term.attrs}
            if any(v is UNDEFINED for v in attrs.values()):
                raise _Misfit
            return add(term.op, tuple(built[i] for i in range(len(built))), attrs)
        number = _number(term, match)
        if number is UNDEFINED or as_held(number, like.dtype) is None:
            raise _Misfit
        op, attrs = constant_attrs(number, like)
        return add(op, (), attrs)

    try:
        root = build(rule.replacement, wanted)
    except (IRTypeError, _Misfit):
        return None
    made = typed(root)
    if made.dtype != wanted.dtype or made.encoding != wanted.encoding or not same_shape(made.shape, wanted.shape):
        return None
    return Plan(tuple(nodes), root)

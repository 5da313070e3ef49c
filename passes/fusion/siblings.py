"""Sums of one kind over one row, whose results meet: a row's gate and up products, multiplied point by point.

    G[n] = sum(k: X[k] * A[n,k]);  U[n] = sum(k: X[k] * B[n,k]);  O[n] = silu(G[n]) * U[n]

Neither sum reads from the other, so neither would join the other's cluster; what reads both joins one of them, and its
threads wait for all of the other. In one cluster both run in the same loops, X is read once for both, and what meets is
never stored. Products of many rows keep kernels of their own, whose tiles take all registers; so do sums of different
kinds (weights stored in different ways), whose loops are not the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from effcc.ir.contraction import contraction
from effcc.ir.dims import Dim, same
from effcc.ir.expr import Axis, Expr, Load, Reduce
from effcc.ir.kernel import Statement
from effcc.passes.fusion.cascade import Defined

if TYPE_CHECKING:
    from effcc.passes.fusion.cluster import Cluster


def named_alike(first: Cluster, second: Cluster, own: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    """What the shared axes of `second` are in `first`, by the axes of a statement that stand for one of each; empty
    where not all of both are the same."""
    named = {shared: own[a] for a, shared in other.items() if own.get(a) in first.shared}
    whole = set(named) == set(second.shared) and set(named.values()) == set(first.shared)
    return named if whole else {}


def are_siblings(first: Cluster, second: Cluster, extents: Mapping[str, Dim]) -> bool:
    """Whether each of two clusters has one sum, both of one kind, and neither must run before the other."""
    if first.before >> second.number & 1 or second.before >> first.number & 1:
        return False
    sums = [[i for i in c.items if i.statement.reduction is not None] for c in (first, second)]
    if any(len(found) != 1 for found in sums) or any(_is_special(i) for c in (first, second) for i in c.items):
        return False
    (one,), (other,) = ([i.statement for i in found] for found in sums)
    if not all(_has_one_row(s, extents) for s in (one, other)) or not _as_long(one, other, extents):
        return False
    common = {x.buffer for x in one.reads} & {x.buffer for x in other.reads}
    return bool(common - first.targets - second.targets) and _form(one, common) == _form(other, common)


def alike(first: Sequence[Defined], second: Sequence[Defined]) -> list[Defined]:
    """The members of `second`, whose sum runs along axes named as those of the sum in `first`, which is its sibling."""
    (axes,) = (i.statement.reduction.axes for i in first if i.statement.reduction is not None)

    def renamed(s: Statement) -> Statement:
        return s if s.reduction is None else s.transformed(_naming(dict(zip(s.reduction.axes, axes, strict=True))))

    return [replace(i, statement=renamed(i.statement)) for i in second]


def _form(s: Statement, common: Collection[str]) -> Expr:
    """What a statement computes, whatever the names of its axes, and of what it reads but for what is `common`."""

    def nameless(e: Expr) -> Expr:
        return replace(e, buffer="") if isinstance(e, Load) and e.buffer not in common else e

    numbered = {a: str(n) for n, a in enumerate(_loops(s))}
    return s.transformed(_naming(numbered)).transformed(nameless).value


def _loops(s: Statement) -> tuple[str, ...]:
    return (*s.axes, *(s.reduction.axes if s.reduction is not None else ()))


def _as_long(one: Statement, other: Statement, extents: Mapping[str, Dim]) -> bool:
    """Whether two statements run over loops of the same extents."""
    ours, theirs = _loops(one), _loops(other)
    return len(ours) == len(theirs) and all(same(extents[a], extents[b]) for a, b in zip(ours, theirs, strict=True))


def _naming(named: Mapping[str, str]) -> Callable[[Expr], Expr]:
    """Renames axes in an expression, node by node."""

    def one(e: Expr) -> Expr:
        match e:
            case Axis():
                return replace(e, name=named.get(e.name, e.name))
            case Reduce():
                return replace(e, axes=tuple(named.get(a, a) for a in e.axes))
        return e

    return one


def _has_one_row(s: Statement, extents: Mapping[str, Dim]) -> bool:
    """Whether it is a sum but no tile of outer products."""
    product = contraction(s)
    if product is None:
        return s.reduction is not None and s.reduction.operator == "sum"
    return any(all(extents[a] == 1 for a in axes) for axes in (product.rows, product.columns))


def _is_special(item: Defined) -> bool:
    s = item.statement
    return bool(item.scans or s.spans or s.kept_spans) or s.scatter is not None

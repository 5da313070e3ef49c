"""From a cluster of statements to a kernel: axes unified, names made canonical, buffers sorted into in and out.

Names depend on the cluster's shape only, not on the model, so that equal layers give equal kernels and share one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from effcc.ir.dims import contiguous_strides, same_shape
from effcc.ir.dims import same as same_size
from effcc.ir.dtypes import i64
from effcc.ir.expr import Axis, Call, Const, Expr, Load, Reduce, transform, walk
from effcc.ir.kernel import Kernel, Param, Scatter, Statement
from effcc.ir.program import Check
from effcc.ir.scalars import CHECKS
from effcc.ir.types import TensorType
from effcc.passes.fusion.cascade import Cascade, without_ones
from effcc.passes.fusion.cluster import Cluster
from effcc.passes.fusion.split import Groups, join_groups

_AXIS = re.compile(r"(?P<stem>(n\d+_)?[A-Za-z_]*?)(?P<number>\d+)?")


@dataclass(frozen=True)
class Cut:
    """A kernel under its canonical names, the buffers it is launched on, in its order of parameters and outputs, and
    what its run-time checks guard, by their numbers."""

    kernel: Kernel
    params: tuple[str, ...]
    outputs: tuple[str, ...]
    shared: tuple[str, ...]
    checks: tuple[Check, ...] = ()


def cut(
    cluster: Cluster,
    cascade: Cascade,
    escaping: Callable[[str], bool],
    types: Mapping[str, TensorType],
    weights: frozenset[str],
    whole: Mapping[str, Groups] | None = None,
) -> Cut:
    """The kernel of a cluster. `escaping` tells which targets are read outside it; `types` are those of buffers; those
    in `whole`, cut into groups where other kernels store them, are read without cuts.
    """
    statements, shared = _unify(cluster, cascade)
    statements, checks = _numbered(statements, cascade.checks)
    defined = {s.target for s in statements}
    read = list(dict.fromkeys(load.buffer for s in statements for load in s.reads if load.buffer not in defined))
    written = [t for t in dict.fromkeys(s.target for s in statements) if escaping(t)]
    axes = _canonical_axes(statements)
    buffers: dict[str, str] = {}
    for name in read:
        buffers[name] = _fresh("w" if name in weights else "x", buffers.values(), numbered=True)
    for s in statements:
        op = next(i.node.op for i in cluster.items if i.target == s.target)
        buffers.setdefault(s.target, _fresh(re.sub(r"\W", "_", op), buffers.values()))
    renamed = tuple(rename(s, axes, buffers) for s in statements)
    used = [a for a in axes if a in cascade.extents]
    scans = {axes[a] for i in cluster.items for a in i.scans if a in axes}
    if scans:
        # What a scan reads from its own past must outlive the step: it gets a buffer of its own.
        written += [
            s.target for s in statements if s.target not in written and any(r.buffer == s.target for r in s.reads)
        ]
    kernel = Kernel(
        name="",
        params=tuple(Param(buffers[n], types[n]) for n in read),
        outputs=tuple(Param(buffers[n], types[n]) for n in written),
        axes=tuple((axes[a], cascade.extents[a]) for a in used),
        statements=renamed,
        scans=tuple(a for a in axes.values() if a in scans),
        location="; ".join(dict.fromkeys(i.node.location for i in cluster.items if i.node.location)),
        weights=frozenset(buffers[n] for n in read if n in weights),
    )
    # While the cuts still count all dimensions:
    kernel = join_groups(kernel, {buffers[n]: whole[n] for n in read if n in whole} if whole else {})
    return Cut(_without_ones(kernel), tuple(read), tuple(written), tuple(axes[a] for a in shared), checks)


def _numbered(statements: list[Statement], known: Sequence[Check]) -> tuple[list[Statement], tuple[Check, ...]]:
    """The statements with their run-time checks numbered from 0, in the model's order, and what these guard."""

    def of(e: Expr) -> int | None:
        return int(e.operands[-1].value) if isinstance(e, Call) and e.function in CHECKS else None  # type: ignore[union-attr]

    everywhere = (e for s in statements for part in s.expressions for e in walk(part))
    found = sorted({number for e in everywhere if (number := of(e)) is not None})

    def one(e: Expr) -> Expr:
        number = of(e)
        if number is None:
            return e
        assert isinstance(e, Call)
        return replace(e, operands=(*e.operands[:-1], Const(found.index(number), i64)))

    return [s.transformed(one) for s in statements] if found else statements, tuple(known[n] for n in found)


def _canonical_axes(statements: Sequence[Statement]) -> dict[str, str]:
    """Names for the axes that say neither which node they come from nor how many axes of it stand before them."""
    found = dict.fromkeys(
        axis
        for s in statements
        for axis in (*s.axes, *(r for e in walk(s.value) if isinstance(e, Reduce) for r in e.axes))
    )
    numbered = {a: (m["stem"], int(m["number"] or 0)) for a in found if (m := _AXIS.fullmatch(a)) is not None}
    first: dict[str, int] = {}
    for stem, number in numbered.values():
        first[stem] = min(number, first.get(stem, number))
    axes: dict[str, str] = {}
    for axis in found:
        stem, number = numbered.get(axis, (axis, 0))
        after = number - first.get(stem, 0)
        axes[axis] = _fresh(re.sub(r"^n\d+_", "", stem) + (str(after) if after else ""), axes.values())
    return axes


def _without_ones(kernel: Kernel) -> Kernel:
    """The kernel with its parameters and outputs seen without dimensions of size 1, so that equal work looks equal."""
    ones = {a for a, e in kernel.axes if e == 1} - {*kernel.scans, *kernel.spans}  # a scan's guard needs its axis
    whole = {s.target for s in kernel.statements if s.scatter is not None or set(s.axes) & set(kernel.scans)}
    places = {
        p.name: tuple(n for n, d in enumerate(p.type.shape) if d == 1)
        for p in (*kernel.params, *kernel.outputs)
        if p.name not in whole
    }

    def narrow(p: Param) -> Param:
        gone = places.get(p.name, ())
        if not gone:
            return p
        shape = tuple(d for n, d in enumerate(p.type.shape) if n not in gone)
        strides = tuple(d for n, d in enumerate(p.type.layout) if n not in gone)
        plain = same_shape(strides, contiguous_strides(shape))
        return replace(p, type=replace(p.type, shape=shape, strides=None if plain else strides))

    statements = [without_ones(s, ones, places) for s in kernel.statements]
    used = {a for s in statements for a in s.axes} | {a for s in statements if s.reduction for a in s.reduction.axes}
    return replace(
        kernel,
        params=tuple(narrow(p) for p in kernel.params),
        outputs=tuple(narrow(p) for p in kernel.outputs),
        statements=tuple(statements),
        axes=tuple((a, e) for a, e in kernel.axes if a in used),
    )


def rename(statement: Statement, axes: Mapping[str, str], buffers: Mapping[str, str]) -> Statement:
    """The statement with axes and buffers renamed throughout."""

    def one(e: Expr) -> Expr:
        match e:
            case Axis():
                return replace(e, name=axes.get(e.name, e.name))
            case Load():
                return replace(e, buffer=buffers.get(e.buffer, e.buffer))
            case Reduce():
                spans = tuple(replace(span, axis=axes.get(span.axis, span.axis)) for span in e.spans)
                return replace(e, axes=tuple(axes.get(a, a) for a in e.axes), spans=spans)
        return e

    scatter = statement.scatter
    if scatter is not None:
        scatter = Scatter(tuple(transform(i, one) for i in scatter.index), scatter.combine)
    return Statement(
        buffers.get(statement.target, statement.target),
        tuple(axes.get(a, a) for a in statement.axes),
        transform(statement.value, one),
        scatter,
    )


def _unify(cluster: Cluster, cascade: Cascade) -> tuple[list[Statement], tuple[str, ...]]:
    """The cluster's statements with axes that mean the same under one name, and its shared axes."""
    definitions: dict[str, Statement] = {}
    done: list[Statement] = []
    for item in cluster.items:
        own = item.statement
        reduced = [a for e in walk(own.value) if isinstance(e, Reduce) for a in e.axes]
        chosen = {a: cluster.same[a] for a in own.axes if cluster.same.get(a) in cluster.shared}
        # Inner axes follow the definition of what is read, where that is consistent and one to one.
        for load in own.reads:
            definition = definitions.get(load.buffer)
            if definition is None:
                continue
            for wanted, index in zip(definition.axes, load.index, strict=True):
                if not isinstance(index, Axis) or index.name in chosen or wanted in chosen.values():
                    continue
                if index.name in (*own.axes, *reduced) and wanted not in cluster.shared:
                    if wanted in (*own.axes, *reduced) and wanted != index.name:
                        continue
                    if same_size(cascade.extents[wanted], cascade.extents[index.name]):
                        chosen[index.name] = wanted
        renamed = rename(own, chosen, {})
        definitions.setdefault(renamed.target, renamed)
        done.append(renamed)
    return done, cluster.shared


def _fresh(base: str, taken: object, numbered: bool = False) -> str:
    names = set(taken)  # type: ignore[call-overload]
    base = base or "i"
    if not numbered and base not in names:
        return base
    n = 0
    while f"{base}{n}" in names:
        n += 1
    return f"{base}{n}"

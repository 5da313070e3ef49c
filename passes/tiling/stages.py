"""A kernel cut into launches: on a GPU, what one program computed another can read only after the launch is over.

Within a launch an intermediate is a block that the program holds, so it can be read only at its own point. A pointwise
intermediate read anywhere else is computed again where it is read; a reduction's result, or a buffer that is scattered
to, ends the launch and goes through memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence, Set
from dataclasses import replace

from effcc.ir.expr import Axis, Expr, Load, substitute_axes, transform
from effcc.ir.kernel import Kernel, Param, Statement
from effcc.ir.types import TensorType


def cut_stages(kernel: Kernel) -> tuple[Kernel, ...]:
    """The kernels that compute `kernel` one after the other; buffers between them keep their statements' names.

    Each reads every intermediate at the point where it was computed, and scatters in its only statement.
    """
    kernel = recompute(kernel, frozenset())
    for position in _boundaries(kernel):
        first, rest = split(kernel, position)
        return (*cut_stages(first), *cut_stages(rest))
    return (kernel,)


def store_between_nests(kernel: Kernel, nests: Sequence[Collection[int]]) -> Kernel:
    """The kernel of a recurrence with all that outlives a nest, or is read away from its point, stored as an output.

    `nests` holds the positions of the statements that share loops. What one program stores it may read again, so a
    recurrence stays one launch: a program goes through the steps alone.
    """
    home = {i: n for n, members in enumerate(nests) for i in members}
    known = {p.name for p in kernel.signature}
    definitions: dict[str, int] = {}
    for position, s in enumerate(kernel.statements):
        definitions.setdefault(s.target, position)
    outlives = {
        load.buffer
        for position, s in enumerate(kernel.statements)
        for load in s.reads
        if load.buffer not in known
        and (
            home[definitions[load.buffer]] != home[position]
            or not own_point(kernel, kernel.statements[definitions[load.buffer]], load)
        )
    }
    extents = kernel.extents
    stored = [s for p, s in enumerate(kernel.statements) if s.target in outlives and definitions[s.target] == p]
    more = tuple(Param(s.target, TensorType(s.dtype, tuple(extents[a] for a in s.axes))) for s in stored)
    return replace(kernel, outputs=(*kernel.outputs, *more))


def recompute(kernel: Kernel, axes: Set[str]) -> Kernel:
    """The kernel without the pointwise intermediates that run over one of `axes` or are read away from their point.

    Their right sides stand where they were read.
    """
    outputs = {p.name for p in kernel.outputs}
    reads: dict[str, set[Load]] = {}
    for s in kernel.statements:
        for load in s.reads:
            reads.setdefault(load.buffer, set()).add(load)
    for s in kernel.statements:
        if s.reduction is not None or s.scatter is not None or s.target in outputs or _in_order(kernel, s):
            continue
        if axes & set(s.axes) or any(not own_point(kernel, s, load) for load in reads.get(s.target, ())):
            return recompute(_inlined(kernel, s), axes)
    return kernel


def own_point(kernel: Kernel, statement: Statement, load: Load) -> bool:
    """Whether a load reads a statement's result at the point where it was computed."""
    extents = kernel.extents
    return all(
        index == Axis(axis) or extents[axis] == 1 for axis, index in zip(statement.axes, load.index, strict=True)
    )


def split(kernel: Kernel, position: int) -> tuple[Kernel, Kernel]:
    """The statements before `position` and those from it on; what the second part reads of the first is stored."""
    first, rest = kernel.statements[:position], kernel.statements[position:]
    outputs = {p.name: p for p in kernel.outputs}
    read_later = {load.buffer for s in rest for load in s.reads} | {s.target for s in rest if s.scatter}
    extents = kernel.extents
    handed: dict[str, Param] = {}
    for s in first:
        if s.target in outputs:
            handed[s.target] = outputs[s.target]
        elif s.target in read_later:
            handed[s.target] = Param(s.target, TensorType(s.dtype, tuple(extents[a] for a in s.axes)))
    written = {s.target for s in rest}
    known = (*kernel.params, *(p for p in handed.values() if p.name not in written))
    return (
        _part(kernel, first, kernel.params, tuple(handed.values())),
        _part(kernel, rest, known, tuple(p for p in kernel.outputs if p.name in written)),
    )


def _part(
    kernel: Kernel, statements: tuple[Statement, ...], params: tuple[Param, ...], outputs: tuple[Param, ...]
) -> Kernel:
    read = {load.buffer for s in statements for load in s.reads}
    used = {a for s in statements for a in s.all_axes}
    return replace(
        kernel, statements=statements, params=tuple(p for p in params if p.name in read), outputs=outputs,
        axes=tuple((a, e) for a, e in kernel.axes if a in used), scans=tuple(a for a in kernel.scans if a in used),
        weights=kernel.weights & read,
    )  # fmt: skip


def _boundaries(kernel: Kernel) -> Iterator[int]:
    """Positions before which a launch must end."""
    definitions: dict[str, Statement] = {}
    for position, s in enumerate(kernel.statements):
        if position and (s.scatter is not None or kernel.statements[position - 1].scatter is not None):
            yield position
        for load in s.reads:
            source = definitions.get(load.buffer)
            if source is not None and not _in_order(kernel, source) and not own_point(kernel, source, load):
                yield position
        definitions.setdefault(s.target, s)


def _in_order(kernel: Kernel, statement: Statement) -> bool:
    """Whether the statement is part of a recurrence, whose earlier points are read on purpose."""
    return bool(set(kernel.scans) & set(statement.axes))


def _inlined(kernel: Kernel, s: Statement) -> Kernel:
    def expand(e: Expr) -> Expr:
        if isinstance(e, Load) and e.buffer == s.target:
            return substitute_axes(s.value, dict(zip(s.axes, e.index, strict=True)))
        return e

    def expanded(other: Statement) -> Statement:
        scatter = other.scatter
        if scatter is not None:
            scatter = replace(scatter, index=tuple(transform(i, expand) for i in scatter.index))
        return replace(other, value=transform(other.value, expand), scatter=scatter)

    return kernel.with_statements(tuple(expanded(o) for o in kernel.statements if o is not s))


__all__ = ["cut_stages", "own_point", "recompute", "split", "store_between_nests"]

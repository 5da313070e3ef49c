"""Long spans cut into pieces, so that no task has more than one piece's work, however long one row is.

    Y[i,f] = sum(j in A[i]..B[i]: V[j] * X[C[j],f])

A row of more than 2 L points is cut where a multiple of L lies inside it. `R` says which row that is, `H` has what the
pieces come to, and rows that were cut are then put together, in the order of their pieces, and computed to the end:

    R[c]   = -1
    R[c] set= i for i, c in ceil(A[i] / L)..ceil(B[i] / L)
    H[c,f] = sum(j in first(c)..last(c): ...)              # from c L on, or from where the row begins
    Y[i,f] = sum(j in A[i]..where(long(i), A[i], B[i]): ...)
    T[c,f] = sum(d in c..ceil(B[R[c]] / L): H[d,f])        # at the first piece of a row
    Y[R[c],f] set= T[c,f] for c, f

Pieces depend on the data alone, so results are the same for any number of threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

from effcc.ir.dependences import one_after_another, shared_axes
from effcc.ir.dims import elements
from effcc.ir.dtypes import i64
from effcc.ir.expr import (
    Axis,
    Call,
    Const,
    Expr,
    Load,
    Reduce,
    Span,
    add,
    both,
    compare,
    ends_at,
    floor_div,
    integer,
    multiply,
    substitute_axes,
    transform,
    walk,
    where,
)  # fmt: skip
from effcc.ir.kernel import Kernel, Param, Scatter, Statement, index_in_span
from effcc.ir.program import Buffer, Launch, Program, fresh_name
from effcc.ir.types import TensorType
from effcc.passes.fusion.polyhedra import guard_accesses

LEAST_WORK = 1 << 21
"""Points below which a kernel is not worth four more meetings of all threads."""
PIECES_A_CORE = 64
SHORTEST = 256
"""Points of a piece at least."""


def cut_long_spans(program: Program, cores: int, shortest: int = SHORTEST, least: int = LEAST_WORK) -> Program:
    """The program with kernels that cut what is too long for one task (`cut_spans`)."""
    kernels, buffers, more = dict(program.kernels), list(program.buffers), {}
    for name, kernel in program.kernels.items():
        found = None if cores == 1 else cut_spans(kernel, cores, shortest, least)
        if found is not None:
            kernels[name] = found
            more[name] = found.outputs[len(kernel.outputs) :]

    def with_results(launch: Launch) -> Launch:
        names = []
        for param in more.get(launch.kernel, ()):
            names.append(fresh_name(f"{launch.results[0]}.{param.name}", {b.name for b in buffers}))
            buffers.append(Buffer(names[-1], param.type, "arena"))
        return replace(launch, results=(*launch.results, *names))

    if not more:
        return program
    steps = tuple(with_results(s) if isinstance(s, Launch) else s for s in program.steps)
    prepare = tuple(with_results(s) if isinstance(s, Launch) else s for s in program.prepare)
    return replace(program, kernels=kernels, steps=steps, prepare=prepare, buffers=tuple(buffers))


def cut_spans(kernel: Kernel, cores: int, shortest: int = SHORTEST, least: int = LEAST_WORK) -> Kernel | None:
    """The kernel with its spans in pieces of at least so many points; None where it has none to cut, or too little."""
    row = _row_axis(kernel)
    if row is None:
        return None
    ((axis, span),) = kernel.spans.items()
    points = kernel.extents[axis]
    known = all(isinstance(kernel.extents[a], int) for s in kernel.statements for a in s.axes)
    if not known and len(kernel.statements) > 1:  # what pieces come to is held for the statements after, in full width
        return None
    widest = max(prod(elements((kernel.extents[a],)) for a in s.axes if a != row) for s in kernel.statements)
    if not isinstance(points, int) or points * widest < least:
        return None
    length = 1 << (max(points // (PIECES_A_CORE * cores), shortest) - 1).bit_length()
    pieces = -(-points // length)
    return _Cut(kernel, row, span, length, pieces).made() if pieces > 1 else None


def _row_axis(kernel: Kernel) -> str | None:
    """The axis at whose points spans begin and end, if all that the kernel computes is a row's own."""
    if len(kernel.spans) != 1 or kernel.scans or any(s.scatter is not None for s in kernel.statements):
        return None
    ((axis, span),) = kernel.spans.items()
    made = {s.target for s in kernel.statements}
    if len(made) < len(kernel.statements) or len(ends_at(span)) != 1:
        return None
    (row,) = ends_at(span)
    checked = any(isinstance(e, Call) and e.function == "holds" for e in walk(span.stop))
    if not (checked and one_after_another(span, row)):  # spans may overlap, and no call raises
        return None
    for s in kernel.statements:
        ragged = s.reduction is not None and s.reduction.axes == (axis,)
        if bool(s.spans) != ragged or (ragged and any(x.buffer in made for x in s.reads)):
            return None
        if s.reduction is not None and not ragged:
            return None
    return row if row in shared_axes(kernel) and isinstance(kernel.extents[row], int) else None


@dataclass(frozen=True)
class _Cut:
    """One kernel whose spans along `row` are cut into `pieces` of `length` points."""

    kernel: Kernel
    row: str
    span: Span
    length: int
    pieces: int

    def made(self) -> Kernel:
        kernel, taken = self.kernel, {**self.kernel.extents}
        new = {}
        for base in ("c", "c_row", "piece", "pieces", "whole"):
            new[base] = fresh_name(base, taken)
            taken[new[base]] = 0
        inner = fresh_name(f"{self.span.axis}_piece", taken)
        rows = self._name("rows")
        sums = {s.target: self._name(f"{s.target}_pieces") for s in kernel.statements if s.spans}
        statements = (
            Statement(rows, (new["c"],), Const(-1, i64)),
            self._marks(rows, new["c_row"]),
            *self._sums(rows, new["piece"], inner, sums),
            *self._short(),
            *self._whole(rows, new["whole"], new["pieces"], sums),
        )
        extents = {**dict.fromkeys(new.values(), self.pieces), inner: kernel.extents[self.span.axis]}
        outputs = [Param(rows, TensorType(i64, (self.pieces,)))]
        for s in kernel.statements:
            if s.target in sums:
                shape = (self.pieces, *(kernel.extents[a] for a in s.axes if a != self.row))
                outputs.append(Param(sums[s.target], TensorType(s.dtype, shape)))
        made = replace(
            kernel, statements=statements, outputs=(*kernel.outputs, *outputs), axes=(*kernel.axes, *extents.items())
        )
        return guard_accesses(made)

    def _name(self, base: str) -> str:
        return fresh_name(base, {p.name for p in self.kernel.signature} | {s.target for s in self.kernel.statements})

    def _up(self, e: Expr) -> Expr:
        """How many pieces begin before a point."""
        return floor_div(add(e, Const(self.length - 1, i64)), Const(self.length, i64))

    def _long(self, start: Expr, stop: Expr) -> Expr:
        return compare("gt", stop, add(start, Const(2 * self.length, i64)))

    def _marks(self, rows: str, c: str) -> Statement:
        """Which row each piece begins inside of."""
        inside = index_in_span(Span(c, self._up(self.span.start), self._up(self.span.stop)))
        return Statement(rows, (self.row, c), Axis(self.row), Scatter((inside,), "set"))

    def _ends(self, rows: str, c: str) -> tuple[Expr, Expr, Expr, Expr]:
        """At a piece: its row, where that begins and stops, and whether it is long."""
        found = Load(rows, (Axis(c),), i64)
        row = Call("maximum", (found, Const(0, i64)), i64)
        start, stop = (substitute_axes(e, {self.row: row}) for e in (self.span.start, self.span.stop))
        return row, start, stop, both(compare("le", Const(0, i64), found), self._long(start, stop))

    def _sums(self, rows: str, c: str, inner: str, sums: Mapping[str, str]) -> list[Statement]:
        """What pieces come to."""
        row, start, stop, long = self._ends(rows, c)
        begin = multiply(Axis(c), Const(self.length, i64))
        before = add(begin, Const(-self.length, i64))
        first, last = self._name("piece_begin"), self._name("piece_end")
        own = where(compare("gt", start, before), start, begin)
        end = Call("minimum", (stop, add(begin, Const(self.length, i64))), i64)
        made = [
            Statement(first, (c,), where(long, own, Const(0, i64))),
            Statement(last, (c,), where(long, end, Const(0, i64))),
        ]
        span = Span(inner, *(Load(name, (Axis(c),), i64) for name in (first, last)))
        for s in self.kernel.statements:
            if s.reduction is not None:
                body = substitute_axes(s.reduction.body, {self.row: row, self.span.axis: Axis(inner)})
                value = replace(s.reduction, axes=(inner,), body=body, spans=(span,))
                rest = (a for a in s.axes if a != self.row)
                made.append(Statement(sums[s.target], (c, *rest), value))
        return made

    def _short(self) -> list[Statement]:
        """Rows that are whole, as they were; of those that are cut, nothing."""
        start, stop = self.span.start, self.span.stop
        short = replace(self.span, stop=where(self._long(start, stop), start, stop))
        found = []
        for s in self.kernel.statements:
            cut = replace(s.reduction, spans=(short,)) if s.reduction is not None else s.value
            found.append(replace(s, value=cut))
        return found

    def _whole(self, rows: str, c: str, pieces: str, sums: Mapping[str, str]) -> list[Statement]:
        """Rows that were cut, put together at their first piece."""
        row, start, stop, long = self._ends(rows, c)
        before = multiply(add(Axis(c), Const(-1, i64)), Const(self.length, i64))
        begins = both(long, compare("gt", start, before))
        first, last = self._name("row_begin"), self._name("row_end")
        made = [
            Statement(first, (c,), where(begins, Axis(c), Const(0, i64))),
            Statement(last, (c,), where(begins, self._up(stop), Const(0, i64))),
        ]
        span = Span(pieces, *(Load(name, (Axis(c),), i64) for name in (first, last)))
        names = {s.target: self._name(f"{s.target}_row") for s in self.kernel.statements}
        written = []
        for s in self.kernel.statements:
            axes = tuple(c if a == self.row else a for a in s.axes)
            if s.reduction is not None:
                index: tuple[Expr, ...] = (Axis(pieces), *(Axis(a) for a in s.axes if a != self.row))
                part = Load(sums[s.target], index, s.dtype)
                value: Expr = Reduce(s.reduction.operator, (pieces,), part, s.dtype, spans=(span,))
            else:
                value = self._at_row(s.value, row, c, names)
            made.append(Statement(names[s.target], axes, value))
            if any(p.name == s.target for p in self.kernel.outputs):
                found = Load(rows, (Axis(c),), i64)
                size = integer(self.kernel.extents[self.row])
                inside = both(compare("lt", Load(first, (Axis(c),), i64), Load(last, (Axis(c),), i64)),
                              compare("le", Const(0, i64), found), compare("lt", found, size))  # fmt: skip
                index = tuple(where(inside, found, Const(-1, i64)) if a == self.row else Axis(a) for a in s.axes)
                result = Load(names[s.target], tuple(map(Axis, axes)), s.dtype)
                written.append(Statement(s.target, axes, result, Scatter(index, "set")))
        return [*made, *written]

    def _at_row(self, e: Expr, row: Expr, c: str, names: Mapping[str, str]) -> Expr:
        """An expression of a row, at the row of a piece; what the kernel computes of rows, at the piece."""

        def own(e: Expr) -> Expr:
            if not isinstance(e, Load) or e.buffer not in names:
                return e
            return Load(names[e.buffer], tuple(Axis(c) if i == Axis(self.row) else i for i in e.index), e.dtype)

        return substitute_axes(transform(e, own), {self.row: row})

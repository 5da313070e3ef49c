"""Kernels: one loop nest to be, written as a cascade of extended einsums over named axes.

    kernel @softmax(X: f32[4,s0]) -> (P: f32[4,s0]) over i=4, n=s0 {
      M[i] = max(n: X[i,n])
      E[i,n] = exp(X[i,n] - M[i])
      D[i] = sum(n: E[i,n])
      P[i,n] = E[i,n] / D[i]
    }

The notation follows TeAAL (arXiv:2304.07931) and FuseMax (arXiv:2406.10491). What it means:

- a statement defines `target[axes]` for every point of the box of its axes; statements run in order, each once;
- a reduction binds its axes, ranges over their whole extent, and accumulates in the dtype it carries;
- `where(c, a, b)` evaluates one branch only: that is how piecewise domains (padding, concatenation, masks) are written;
- an axis is ragged where a reduction gives it a span, points that are data: `Y[i] = sum(j in P[i]..P[i + 1]: V[j])`;
  its extent bounds them. So is one that is kept, where a statement writes what lies in a span,
  `Y[j,n] set= T[g,j,n] for g, j in P[g]..P[g + 1], n`; what is read there alone is computed there alone;
- an axis listed under `scan` runs in order, and statements over it may read their own earlier points
  (`H[t] = where(t > 0, H[t - 1], 0.0) + X[t]`), so recurrences are statements like any other;
- a statement with `scatter` writes `target[scatter]` instead, over the box of its axes in order, combining with what an
  earlier statement put there (`set`, `add`, `mul`, `max`, `min`): `Y[I[i],j] add= X[i,j] for i, j`; where an index is
  -1 it writes nothing. (A kept span is such an index: `where(P[g] <= j and j < P[g + 1], j, -1)`.)

The grammar, on one page, is `effcc/ir/grammar.lark`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from effcc.ir.dims import Dim, symbols
from effcc.ir.dtypes import DType, i64
from effcc.ir.expr import (
    Axis,
    Call,
    Const,
    Expr,
    Load,
    Reduce,
    Size,
    Span,
    both,
    compare,
    ends_at,
    free_axes,
    loads,
    transform,
    walk,
    where,
)
from effcc.ir.types import TensorType


@dataclass(frozen=True)
class Param:
    """A buffer that a kernel reads (parameter) or writes (output), with its full type."""

    name: str
    type: TensorType


@dataclass(frozen=True)
class Scatter:
    """Where a scattering statement writes (nowhere: -1), and how it combines: `set`, `add`, `mul`, `max` or `min`."""

    index: tuple[Expr, ...]
    combine: str


def index_in_span(span: Span) -> Expr:
    """The index that is a span's axis inside it, and nowhere outside."""
    axis = Axis(span.axis)
    return where(both(compare("le", span.start, axis), compare("lt", axis, span.stop)), axis, Const(-1, i64))


def span_of_index(index: Expr) -> Span | None:
    """The span that an index of a scatter says, if it is one of `index_in_span`."""
    match index:
        case Call("where", (Call("and", (Call("le", (start, _)), Call("lt", (_, stop)))), Axis(name), _)):
            span = Span(name, start, stop)
            return span if name not in ends_at(span) and index == index_in_span(span) else None
    return None


@dataclass(frozen=True)
class Statement:
    """`target[axes] = value`, for every point of the axes' box."""

    target: str
    axes: tuple[str, ...]
    value: Expr
    scatter: Scatter | None = None

    @property
    def dtype(self) -> DType:
        return self.value.dtype

    @property
    def reduction(self) -> Reduce | None:
        """The reduction that is the whole right side, if it is one."""
        return self.value if isinstance(self.value, Reduce) else None

    @property
    def expressions(self) -> tuple[Expr, ...]:
        """The right side, and the indices that it scatters to."""
        return (self.value, *(self.scatter.index if self.scatter is not None else ()))

    @functools.cached_property
    def reads(self) -> tuple[Load, ...]:
        """Every load on the right side and in the scatter index."""
        return tuple(load for e in self.expressions for load in loads(e))

    @functools.cached_property
    def spans(self) -> tuple[Span, ...]:
        """The spans of the ragged axes that it reduces over, and of those that it keeps."""
        reduced = tuple(span for e in walk(self.value) if isinstance(e, Reduce) for span in e.spans)
        return reduced + self.kept_spans

    @functools.cached_property
    def kept_spans(self) -> tuple[Span, ...]:
        """The spans in which it writes its target."""
        index = self.scatter.index if self.scatter is not None else ()
        return tuple(span for i in index if (span := span_of_index(i)) is not None)

    def transformed(self, f: Callable[[Expr], Expr]) -> Statement:
        """The statement with `f` applied to every node of its expressions, bottom-up."""
        value = transform(self.value, f)
        if self.scatter is None:
            return replace(self, value=value)
        index = tuple(transform(i, f) for i in self.scatter.index)
        return replace(self, value=value, scatter=replace(self.scatter, index=index))

    @property
    def all_axes(self) -> set[str]:
        """Every axis that it runs over, reads at or reduces."""
        found = set(self.axes)
        for e in self.expressions:
            found |= free_axes(e)
            found |= {a for part in walk(e) if isinstance(part, Reduce) for a in part.axes}
        return found


@dataclass(frozen=True)
class Kernel:
    """A cascade: parameters in, outputs out, the extents of all axes (bound ones too), and the statements in order.

    `weights` names the parameters that do not change between calls, so that packing them once pays.
    `location` says which ops and lines of the user's model it stands for; it has no meaning for the computation.
    """

    name: str
    params: tuple[Param, ...]
    outputs: tuple[Param, ...]
    axes: tuple[tuple[str, Dim], ...]
    statements: tuple[Statement, ...]
    scans: tuple[str, ...] = ()
    location: str = ""
    weights: frozenset[str] = frozenset()

    @property
    def signature(self) -> tuple[Param, ...]:
        """What a launch binds to buffers: the parameters, then the outputs."""
        return (*self.params, *self.outputs)

    @property
    def extents(self) -> dict[str, Dim]:
        return dict(self.axes)

    @property
    def given_sizes(self) -> tuple[str, ...]:
        """The size symbols that statements mention and neither a shape nor an extent holds: a program gives them."""
        held = symbols([*(d for p in self.signature for d in p.type.shape), *self.extents.values()])
        indices = (i for s in self.statements if s.scatter is not None for i in s.scatter.index)
        parts = (*self.expressions(), *(part for i in indices for part in walk(i)))
        mentioned = symbols(e.value for e in parts if isinstance(e, Size))
        return tuple(s.name for s in mentioned if s not in held)

    @functools.cached_property
    def spans(self) -> dict[str, Span]:
        """The ragged axes, each with its span: the one that all statements give it (`verify_kernel`)."""
        return {span.axis: span for s in self.statements for span in s.spans}

    def definition(self, target: str) -> Statement | None:
        """The statement that first defines `target`; None for a parameter."""
        return next((s for s in self.statements if s.target == target), None)

    def readers(self, target: str) -> list[Statement]:
        """The statements that load `target`."""
        return [s for s in self.statements if any(load.buffer == target for load in s.reads)]

    def expressions(self) -> Iterator[Expr]:
        """Every node of every right side."""
        for statement in self.statements:
            yield from walk(statement.value)

    def with_statements(self, statements: tuple[Statement, ...]) -> Kernel:
        return replace(self, statements=statements)

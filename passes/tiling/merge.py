"""Neighbouring axes that every access walks as one become one: rows of an image, a batch and its positions.

    Y[y,x,n] = sum(k: X[y,x,k] * W[n,k])  over y=7, x=7   becomes   Y[y_x,n] = sum(k: X[y_x,k] * W[n,k])  over y_x=49

A register tile of 14 rows then finds 49 rows instead of 7 times 7, lanes have one rest instead of one a row, and a
weight's panel is read once for all rows. Two axes are one where all accesses have both, next to each other, and the
outer one's stride is the inner one's times its extent, or both as one index already, `W[n,7 * y + x]`; an axis that is
compared, offset or read alone stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from effcc.ir.dims import Dim, Shape, dim, same
from effcc.ir.expr import Axis, Call, Const, Expr, Load, Reduce, children, rebuild, transform, walk
from effcc.ir.kernel import Kernel, Param, Statement
from effcc.ir.types import TensorType


def merge_axes(kernel: Kernel) -> Kernel:
    """The kernel with every pair of axes merged that can be; its buffers' shapes follow."""
    if any(s.scatter is not None for s in kernel.statements):
        return kernel
    pending = True
    while pending:
        pending = False
        for outer, inner in _neighbours(kernel):
            merged = _Merge.of(kernel, outer, inner)
            if merged is not None:
                kernel, pending = merged, True
                break
    return kernel


def _neighbours(kernel: Kernel) -> Iterator[tuple[str, str]]:
    """The pairs of axes that stand side by side in an access."""
    pairs: dict[tuple[str, str], None] = {}
    for s in kernel.statements:
        pairs.update(dict.fromkeys(zip(s.axes, s.axes[1:], strict=False)))
        for load in s.reads:
            for a, b in zip(load.index, load.index[1:], strict=False):
                if isinstance(a, Axis) and isinstance(b, Axis):
                    pairs[a.name, b.name] = None
    return iter(pairs)


class _ApartError(Exception):
    """The axes cannot be one."""


@dataclass(frozen=True)
class _Merge:
    """One attempt: `outer` and `inner` become `name` in all statements, or `_ApartError` says they cannot."""

    kernel: Kernel
    outer: str
    inner: str
    name: str
    positions: dict[str, int]
    """Where the pair stands in each buffer that has it."""

    @staticmethod
    def of(kernel: Kernel, outer: str, inner: str) -> Kernel | None:
        extents = kernel.extents
        if outer == inner or not isinstance(extents[inner], int) or {outer, inner} & {*kernel.scans, *kernel.spans}:
            return None
        name = f"{outer}_{inner}"
        if name in extents:
            return None
        merge = _Merge(kernel, outer, inner, name, {})
        try:
            return merge._kernel(extents)
        except _ApartError:
            return None

    def _kernel(self, extents: Mapping[str, Dim]) -> Kernel:
        kernel = self.kernel
        statements = tuple(self._statement(s) for s in kernel.statements)
        both = dim(extents[self.outer] * extents[self.inner])
        axes = tuple((self.name, both) if a == self.outer else (a, e) for a, e in kernel.axes if a != self.inner)
        params, outputs = (tuple(self._param(p) for p in side) for side in (kernel.params, kernel.outputs))
        return replace(kernel, params=params, outputs=outputs, axes=axes, statements=statements)

    def _statement(self, s: Statement) -> Statement:
        axes = tuple(Axis(a) for a in s.axes)
        kept = tuple(a.name for a in self._index(s.target, axes) if isinstance(a, Axis))
        return replace(s, axes=kept, value=self._expression(s.value))

    def _expression(self, e: Expr) -> Expr:
        match e:
            case Axis() if e.name in (self.outer, self.inner):
                raise _ApartError
            case Load():
                return replace(e, index=self._index(e.buffer, e.index))
            case Reduce():
                if e.rescale is not None and {self.outer, self.inner} & set(e.axes):
                    raise _ApartError
                axes = tuple(a for a in e.axes if a != self.inner)
                if (self.outer in e.axes) != (self.inner in e.axes):
                    raise _ApartError
                e = replace(e, axes=tuple(self.name if a == self.outer else a for a in axes))
        parts = children(e)
        return rebuild(e, tuple(self._expression(p) for p in parts)) if parts else e

    def _index(self, buffer: str, index: tuple[Expr, ...]) -> tuple[Expr, ...]:
        """An access with the pair as one: side by side, at one place in all accesses of the buffer, or not at all."""
        index = tuple(transform(i, self._as_one) for i in index)
        uses = [p for p, i in enumerate(index) if any(e in (Axis(self.outer), Axis(self.inner)) for e in walk(i))]
        position = uses[0] if uses else -1
        if self.positions.setdefault(buffer, position) != position:
            raise _ApartError
        if not uses:
            return index
        if index[position : position + 2] != (Axis(self.outer), Axis(self.inner)) or len(uses) != 2:
            raise _ApartError
        return (*index[:position], Axis(self.name), *index[position + 2 :])

    def _as_one(self, e: Expr) -> Expr:
        """The pair where it is one index: `outer * extent + inner`."""
        match e:
            case Call("add", (Call("mul", (Axis(self.outer), Const(extent))), Axis(self.inner))):
                return Axis(self.name) if extent == self.kernel.extents[self.inner] else e
        return e

    def _param(self, p: Param) -> Param:
        position = self.positions.get(p.name, -1)
        if position < 0:
            return p
        extents = self.kernel.extents
        shape, layout = p.type.shape, p.type.layout
        whole = same(shape[position], extents[self.outer]) and same(shape[position + 1], extents[self.inner])
        dense = same(layout[position], dim(layout[position + 1] * extents[self.inner]))
        if p.type.encoding is not None or not whole or not dense:
            raise _ApartError
        merged: Shape = (*shape[:position], dim(shape[position] * shape[position + 1]), *shape[position + 2 :])
        if p.type.strides is None:
            return replace(p, type=TensorType(p.type.dtype, merged))
        return replace(p, type=TensorType(p.type.dtype, merged, (*layout[:position], *layout[position + 1 :])))

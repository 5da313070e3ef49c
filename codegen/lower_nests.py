"""Nests to loops: kept axes outside, accumulators in registers, reduced axes inside, then what follows there."""

from __future__ import annotations

from dataclasses import replace

from effcc.codegen.lower_places import Factors, Places, Ranges, Registers, local_name, tile_axes
from effcc.ir.expr import (
    Axis,
    Call,
    Const,
    Expr,
    Load,
)
from effcc.ir.kernel import Statement
from effcc.ir.loops import Alloc, Stmt, Tile, TileAxis
from effcc.ir.scalars import reduction
from effcc.ir.schedule import Nest, TiledAxis

Accumulators = dict[int, str]
"""The register buffer of each reduction, by the statement's position."""


class Nests(Places):
    """Lowers one nest at a time, at the places that the loops around it have set."""

    def _nest(self, nest: Nest, ranges: Ranges) -> list[Stmt]:
        factors = {t.axis: ("unroll", t.tile) for t in nest.unroll}
        if nest.lanes is not None:
            factors[nest.lanes.axis] = ("lanes", nest.lanes.tile)
        order = nest.order or (*nest.kept, *nest.reduced)
        kept = tuple(a for a in order if a in nest.kept)
        reduced = tuple(a for a in order if a in nest.reduced)
        return self._over(kept, factors, ranges, lambda inner: self._at_kept(nest, kept, reduced, factors, inner))

    def _at_kept(
        self, nest: Nest, kept: tuple[str, ...], reduced: tuple[str, ...], factors: Factors, ranges: Ranges
    ) -> list[Stmt]:
        """The reductions of a nest at the current points of its kept axes, and what follows them there."""
        statements = self.kernel.statements
        registers: Registers = {}
        out: list[Stmt] = []
        if not nest.reductions:
            for i in nest.body:
                out += self._pointwise(statements[i], nest, ranges, registers)
            return out
        if nest.chunk is None:
            code, accumulators = self._accumulate(nest, kept, reduced, factors, ranges)
        else:
            code, accumulators = self._accumulate_in_chunks(nest, nest.chunk, kept, reduced, factors, ranges)
        out += code
        for i in nest.reductions:
            out += self._finish(statements[i], accumulators[i], kept, nest, ranges, registers)
        for i in nest.epilogue:
            out += self._pointwise(statements[i], nest, ranges, registers)
        return out

    def _accumulate(
        self, nest: Nest, kept: tuple[str, ...], axes: tuple[str, ...], factors: Factors, ranges: Ranges
    ) -> tuple[list[Stmt], Accumulators]:
        """Fresh accumulators, and the loops over `axes` that fill them."""
        statements = self.kernel.statements
        tiles = _accumulator_tiles(nest, kept, ranges)
        index = tuple(Axis(t.name) for t in tiles)
        accumulators = {i: self._fresh(f"{local_name(statements[i].target)}_acc") for i in nest.reductions}
        code: list[Stmt] = []
        for i, name in accumulators.items():
            code += _cleared(statements[i], name, tiles)

        def at_point(inner: Ranges) -> list[Stmt]:
            code: list[Stmt] = []
            registers: Registers = {}
            for i in nest.body:
                code += self._pointwise(statements[i], nest, inner, registers)
            at = tile_axes((*kept, *nest.reduced), inner)
            for i, name in accumulators.items():
                s = statements[i]
                assert s.reduction is not None
                code.append(Tile(at, name, index, _combine(s), self._value(s.reduction.body, inner, registers)))
            return code

        return code + self._over(axes, factors, ranges, at_point), accumulators

    def _accumulate_in_chunks(
        self,
        nest: Nest,
        chunk: TiledAxis,
        kept: tuple[str, ...],
        reduced: tuple[str, ...],
        factors: Factors,
        ranges: Ranges,
    ) -> tuple[list[Stmt], Accumulators]:
        """Totals, and the loops over chunks whose accumulators join them."""
        statements = self.kernel.statements
        tiles = _accumulator_tiles(nest, kept, ranges)
        index = tuple(Axis(t.name) for t in tiles)
        totals = {i: self._fresh(f"{local_name(statements[i].target)}_sum") for i in nest.reductions}
        outside = reduced.index(chunk.axis)
        code: list[Stmt] = []
        for i, name in totals.items():
            code += _cleared(statements[i], name, tiles)

        def in_chunk(inner: Ranges) -> list[Stmt]:
            code, accumulators = self._accumulate(nest, kept, reduced[outside:], factors, inner)
            for i, name in totals.items():
                part = Load(accumulators[i], index, statements[i].dtype)
                code.append(Tile(tiles, name, index, _combine(statements[i]), part))
            return code

        def at_chunk(inner: Ranges) -> list[Stmt]:
            return self._cut(chunk.axis, self._fresh(f"{chunk.axis}_chunk"), chunk.tile, inner, in_chunk, again=True)

        return code + self._over(reduced[:outside], factors, ranges, at_chunk), totals

    def _finish(
        self,
        s: Statement,
        accumulator: str,
        kept: tuple[str, ...],
        nest: Nest,
        ranges: Ranges,
        registers: Registers,
    ) -> list[Stmt]:
        """After the reduced loops: fold the lanes together, resume partial results, store or keep in registers."""
        assert s.reduction is not None
        kept_tiles = tile_axes(kept, ranges)
        lanes = nest.lanes if nest.lanes is not None and nest.lanes.axis in nest.reduced else None
        out: list[Stmt] = []
        combine = reduction(s.reduction.operator).combine
        index = tuple(Axis(t.name) for t in kept_tiles)
        name = accumulator
        if lanes is not None or self._accumulates(s):
            name = self._fresh(f"{local_name(s.target)}_total")
            out.append(Alloc(name, s.dtype, tuple(t.extent for t in kept_tiles), "register"))
            identity = Const(reduction(s.reduction.operator).identity(s.dtype), s.dtype)
            start = self._resumed(s, ranges) if self._accumulates(s) else identity
            outer, folded = kept_tiles, index
            if lanes is not None:
                outer = tuple(replace(t, kind="unroll") for t in kept_tiles)
                folded = (*index, Axis(lanes.axis))
            out.append(Tile(outer, name, index, "set", start))
            part = (*outer, TileAxis(lanes.axis, lanes.tile, "lanes")) if lanes is not None else outer
            out.append(Tile(part, name, index, combine, Load(accumulator, folded, s.dtype)))
        registers[s.target] = (name, kept)
        result = Load(name, index, s.dtype)
        if s.target in self._previous() and self._accumulates(s):
            before = Load(local_name(s.target), self._local_index(s, s.axes, ranges), s.dtype)
            out.append(
                Tile(kept_tiles, local_name(s.target) + "_before", self._local_index(s, s.axes, ranges), "set", before)
            )
        if s.target in self.locals:
            out.append(Tile(kept_tiles, local_name(s.target), self._local_index(s, s.axes, ranges), "set", result))
        elif s.target in {p.name for p in self.kernel.outputs}:
            out.append(
                Tile(kept_tiles, s.target, tuple(self._absolute(Axis(a), ranges) for a in s.axes), "set", result)
            )
        return out

    def _resumed(self, s: Statement, ranges: Ranges) -> Expr:
        """What the sequential loop has accumulated so far, rescaled where the reduction is online."""
        assert s.reduction is not None
        so_far: Expr = self._load_local(s.target, tuple(Axis(a) for a in s.axes), ranges)
        if s.reduction.rescale is None:
            return so_far
        factor = self._value(s.reduction.rescale, ranges, {})
        return Call("mul", (so_far, factor), s.dtype)

    def _pointwise(self, s: Statement, nest: Nest, ranges: Ranges, registers: Registers) -> list[Stmt]:
        """A statement at the current point: into a register where later members read it, and to its buffer."""
        members = [self.kernel.statements[i] for i in (*nest.body, *nest.reductions, *nest.epilogue)]
        read_here = any(load.buffer == s.target for m in members for load in m.reads)
        order = tuple(a for a in (*nest.kept, *nest.reduced) if a in ranges)
        axes = tuple(a for a in order if a in s.axes)
        tiles = tile_axes(axes, ranges)
        out: list[Stmt] = []
        value = self._value(s.value, ranges, registers)
        stored = s.target in self.locals or s.target in {p.name for p in self.kernel.outputs}
        if read_here and s.scatter is None:
            name = self._fresh(f"{local_name(s.target)}_reg")
            index = tuple(Axis(t.name) for t in tiles)
            out.append(Alloc(name, s.dtype, tuple(t.extent for t in tiles), "register"))
            out.append(Tile(tiles, name, index, "set", value))
            registers[s.target] = (name, axes)
            value = Load(name, index, s.dtype)
        if not stored:
            return out
        if s.scatter is not None:
            at = tuple(self._value(i, ranges, registers) for i in s.scatter.index)
            combine = {"set": "set", "add": "add", "mul": "mul", "max": "maximum", "min": "minimum"}[s.scatter.combine]
            out.append(Tile(tiles, s.target, at, combine, value))
        elif s.target in self.locals:
            out.append(Tile(tiles, local_name(s.target), self._local_index(s, s.axes, ranges), "set", value))
        else:
            out.append(Tile(tiles, s.target, tuple(self._absolute(Axis(a), ranges) for a in s.axes), "set", value))
        return out


def _accumulator_tiles(nest: Nest, kept: tuple[str, ...], ranges: Ranges) -> tuple[TileAxis, ...]:
    """The axes of a nest's accumulators: the kept axes' tiles, and the lanes where they run along a reduced axis."""
    tiles = tile_axes(kept, ranges)
    if nest.lanes is not None and nest.lanes.axis in nest.reduced:
        return (*tiles, TileAxis(nest.lanes.axis, nest.lanes.tile, "lanes"))
    return tiles


def _cleared(s: Statement, name: str, tiles: tuple[TileAxis, ...]) -> list[Stmt]:
    """A register buffer that holds the identity of the statement's reduction."""
    assert s.reduction is not None
    identity = Const(reduction(s.reduction.operator).identity(s.dtype), s.dtype)
    index = tuple(Axis(t.name) for t in tiles)
    shape = tuple(t.extent for t in tiles)
    return [Alloc(name, s.dtype, shape, "register"), Tile(tiles, name, index, "set", identity)]


def _combine(s: Statement) -> str:
    assert s.reduction is not None
    return reduction(s.reduction.operator).combine

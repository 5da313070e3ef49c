"""Tile statements in Triton: block assignments, products, reductions, stores and atomic updates."""

from __future__ import annotations

from dataclasses import dataclass

from effcc.codegen.triton.contraction import Dot, as_dot, matrix, result_block
from effcc.codegen.triton.expressions import LONG, Printer, Scope
from effcc.codegen.triton.spelling import ATOM, COMPARE, TYPES, fold, literal
from effcc.codegen.triton.values import Shape, Value, converted, widened
from effcc.errors import UnsupportedError
from effcc.ir.dtypes import DType, bf16, boolean, f16
from effcc.ir.expr import Axis, Call, Const, Expr, Load, compare, free_axes, integer, walk
from effcc.ir.loops import Tile
from effcc.ir.scalars import REDUCTIONS

_IDENTITY = {r.combine: r.identity for r in REDUCTIONS.values()}
_ATOMIC_BITS = (32, 64)
"""Sizes of numbers that GPUs combine in memory in one step."""


@dataclass(frozen=True)
class TileWriter:
    """Writes tile statements. `limits` are the masks of axes in scope; `fresh` holds blocks still at their identity."""

    scope: Scope
    limits: dict[str, Value]
    dtypes: dict[str, DType]
    fresh: dict[str, Tile]

    def lines(self, tile: Tile) -> list[str]:
        """The statement's text; what it loads has been defined through the scope by then."""
        if tile.buffer not in self.scope.registers:
            alone = not tile.axes and tile.combine != "set"
            barrier = ["tl.debug_barrier()"] if tile.buffer in self.scope.changing or alone else []
            return [self._update(tile) if alone else self._write(tile), *barrier]
        if tile.combine == "set":
            return [self._assign(tile)]
        dot = as_dot(tile)
        return [self._dot(tile, dot) if dot is not None else self._reduce(tile)]

    def _printer(self, tile: Tile, order: tuple[str, ...] | None = None) -> Printer:
        extents = {a.name: a.extent for a in tile.axes}
        shape = Shape(extents if order is None else {a: extents[a] for a in order})
        limits = {a: m for a, m in self.limits.items() if a in shape.extents}
        return Printer(self.scope, shape, limits, f"{tile.buffer.removesuffix('_block')}_part")

    # Registers ------------------------------------------------------------------------------------------------------

    def _assign(self, tile: Tile) -> str:
        printer = self._printer(tile)
        kept = tuple(i.name for i in tile.index if isinstance(i, Axis))
        value = printer.shape.fill(widened(printer.whole(tile.value)), kept)
        return f"{self.scope.registers[tile.buffer]} = {value.text}"

    def _reduce(self, tile: Tile) -> str:
        kept = tuple(i.name for i in tile.index if isinstance(i, Axis))
        reduced = tuple(a.name for a in tile.axes if a.name not in kept)
        printer = self._printer(tile, (*kept, *reduced))
        dtype = self.dtypes[tile.buffer]
        value = widened(self._neutral(printer, tile, reduced, dtype))
        present = tuple(a for a in printer.shape.order if a in value.axes or a in reduced)
        value = printer.shape.fill(value, present)
        spelled = fold(tile.combine)
        if dtype in (f16, bf16):
            value = converted(value, "tl.float32")
        text = value.text
        template = spelled.reduce if dtype.is_float else spelled.integer_reduce
        for axis in reversed(reduced):
            text = template.format(text, present.index(axis))
        rest = tuple(a for a in present if a not in reduced)
        folded = Value(text, rest, dtype, ATOM if reduced else value.binding)
        if reduced and dtype == boolean:
            folded = Value(f"{text} != 0", rest, dtype, COMPARE)
        elif reduced and dtype.bits < 32:
            folded = converted(folded, TYPES[dtype])
        name = self.scope.registers[tile.buffer]
        if self.fresh.pop(tile.buffer, None) is None:
            folded = printer.call(spelled.function, [Value(name, kept, dtype), folded], dtype)
        return f"{name} = {printer.shape.fill(folded, kept).text}"

    def _neutral(self, printer: Printer, tile: Tile, reduced: tuple[str, ...], dtype: DType) -> Value:
        """The value to reduce, the operator's identity wherever a reduced axis is beyond its limit."""
        neutral = literal(_IDENTITY[tile.combine](dtype), dtype)
        limited = [a for a in reduced if a in self.limits]
        if not limited:
            return printer.whole(tile.value)
        if isinstance(tile.value, Load) and self._masked_load(tile.value, limited):
            return printer.load(tile.value, other=neutral)
        value = printer.whole(tile.value)
        mask = printer.shape.all_of(printer.masks(tuple(limited)))
        assert mask is not None
        if value.constant:
            value = printer.shape.full(value, ())
        axes = printer.shape.union([value, mask])
        texts = [printer.shape.expand(v, axes).text for v in (mask, value)]
        return Value(f"tl.where({texts[0]}, {texts[1]}, {neutral})", axes, value.dtype)

    def _dot(self, tile: Tile, dot: Dot) -> str:
        kept = tuple(i.name for i in tile.index if isinstance(i, Axis))
        left = self._side(tile, dot.left, dot.rows, dot.depth, dot.rows)
        right = self._side(tile, dot.right, dot.depth, dot.columns, dot.columns)
        shape = self._printer(tile).shape
        precision = "" if dot.left.dtype in (f16, bf16) else ', input_precision="ieee"'
        name = self.scope.registers[tile.buffer]
        fresh = self.fresh.pop(tile.buffer, None) is not None
        if len(kept) == 2:
            accumulator = "" if fresh else f", {name}"
            return f"{name} = tl.dot({left.text}, {right.text}{accumulator}{precision})"
        block = result_block(shape, f"tl.dot({left.text}, {right.text}{precision})", dot, kept)
        return f"{name} = {block}" if fresh else f"{name} = {name} + {block}"

    def _side(
        self, tile: Tile, e: Expr, first: tuple[str, ...], second: tuple[str, ...], outer: tuple[str, ...]
    ) -> Value:
        """One operand as a matrix, zero wherever an axis is beyond its limit."""
        printer = self._printer(tile, (*first, *second))
        value = widened(printer.whole(e))
        limited = [a for a in (*first, *second) if a in self.limits and a not in outer]
        if limited and not self._masked_load(e, limited):
            mask = printer.shape.all_of(printer.masks(tuple(limited)))
            assert mask is not None
            value = printer.shape.fill(value, (*first, *second))
            text = f"tl.where({printer.shape.expand(mask, value.axes).text}, {value.text}, 0.0)"
            value = Value(text, value.axes, value.dtype)
        return matrix(printer.shape, value, first, second)

    def _masked_load(self, e: Expr, axes: list[str]) -> bool:
        """Whether the value is a load whose mask covers the limits of all the axes (so that it is zero beyond)."""
        match e:
            case Call("cast" | "neg", (operand,)):
                return self._masked_load(operand, axes)
            case Load(buffer=buffer):
                return buffer in self.scope.pointers and all(_depends(e, a) for a in axes)
        return False

    # Memory ---------------------------------------------------------------------------------------------------------

    def _update(self, tile: Tile) -> str:
        """One element of memory combined with a value, by the only program there is."""
        printer = self._printer(tile)
        value = widened(printer.whole(tile.value))
        address, mask = printer.address(tile.buffer, tile.index, _written(printer, tile), axes=())
        masked = "" if mask is None else f", mask={mask.text}"
        dtype = self.dtypes[tile.buffer]
        before = Value(self.scope.define("before", f"tl.load({address.text}{masked})"), (), dtype)
        combined = printer.call(fold(tile.combine).function, [before, value], dtype)
        return f"tl.store({address.text}, {combined.text}{masked})"

    def _write(self, tile: Tile) -> str:
        printer = self._printer(tile)
        axes = printer.shape.order
        value = printer.shape.fill(widened(printer.whole(tile.value)), axes)
        if len(value.text) > LONG:
            value = Value(self.scope.define(f"{tile.buffer}_block", value.text), value.axes, value.dtype)
        address, mask = printer.address(tile.buffer, tile.index, _written(printer, tile), axes=axes)
        masked = "" if mask is None else f", mask={printer.shape.expand(mask, axes).text}"
        if tile.combine == "set":
            return f"tl.store({address.text}, {value.text}{masked})"
        dtype = self.dtypes[tile.buffer]
        atomic = fold(tile.combine).atomic
        exact = dtype.bits in _ATOMIC_BITS or (dtype in (f16, bf16) and tile.combine == "add")
        if not atomic or not exact or (dtype.is_float and tile.combine != "add"):
            raise UnsupportedError(
                f"the Triton backend cannot combine {dtype} values by {tile.combine!r} in {tile.buffer!r}, where "
                "programs meet: expected sums, or integers of 32 or 64 bits; compile the model for the CPU"
            )
        return f'{atomic}({address.text}, {value.text}{masked}, sem="relaxed")'


def starts_at_identity(tile: Tile) -> bool:
    """Whether a statement only sets a register block to a constant, which a first reduction may take the place of."""
    return tile.combine == "set" and isinstance(tile.value, Const)


def _written(printer: Printer, tile: Tile) -> tuple[Value, ...]:
    """Where a scatter writes: where no index that is data is -1."""
    data = [i for i in tile.index if any(isinstance(node, Load) for node in walk(i))]
    return tuple(printer.value(compare("ge", i, integer(0))) for i in data)


def _depends(load: Load, axis: str) -> bool:
    return any(axis in free_axes(i) for i in load.index)

"""Contractions: sums of products whose factors differ in axes, C[b,m,n] = sum over k of A[b,m,k] * B[b,k,n].

Recognised here and nowhere else: fusion, the models of CPUs and GPUs and the printers all ask `contraction`, of a
kernel's statement or of a tile of it, and read one value: which axes are rows, columns, depth and batch, what each
factor loads and what decodes it, which factor is constant.

>>> from effcc.ir.parser import parse_kernel
>>> kernel = parse_kernel("kernel @k(A: f32[4,8], B: f32[6,8]) -> (C: f32[4,6]) over m=4, n=6, k=8 {"
...                       "C[m,n] = sum(k: A[m,k] * B[n,k]) }")
>>> print(contraction(kernel.statements[0], frozenset({"B"})))
C[m,n] = sum(k: A * B), B constant
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from effcc.ir.dots import DOTS, LIGHT_DEPTH, PACKED, TILE_DOTS
from effcc.ir.dtypes import DType, bf16, f16, f32, i32, l8
from effcc.ir.expr import Axis, Call, Expr, Load, children, free_axes, walk
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.loops import Tile


@dataclass(frozen=True)
class Operand:
    """One factor: `value` as it is written, and what it loads. The last of `loads` is its data, those before it decode.

    Loads that only say where another one reads are no data. `constant`: all that it loads are weights.
    """

    value: Expr
    loads: tuple[Load, ...]
    constant: bool

    @property
    def data(self) -> Load:
        return self.loads[-1]

    @cached_property
    def axes(self) -> frozenset[str]:
        """The axes that decide which elements it loads."""
        return frozenset(e.name for x in self.loads for i in x.index for e in walk(i) if isinstance(e, Axis))

    @cached_property
    def followed(self) -> frozenset[str]:
        """The axes that its data's index follows itself, not through what it reads there."""
        return frozenset[str]().union(*map(_outside_loads, self.data.index))

    @property
    def unwidened(self) -> Expr:
        """Its value before it was widened, from a half type to f32 or from a small integer to i32: both keep products
        exact.
        """
        return _unwidened(self.value)

    @property
    def gathered(self) -> bool:
        """Whether data say where it reads."""
        return any(isinstance(e, Load) for x in self.loads for i in x.index for e in walk(i))


@dataclass(frozen=True)
class PackedDot:
    """A dot product of packed lanes (`effcc.ir.dots`) of `left` and `right`: so many `neighbours` make one sum."""

    left: DType
    right: DType
    neighbours: int

    def fits_tiles(self, lanes_of: DType) -> bool:
        """Whether a matrix unit has it, where the factor with lanes has elements of `lanes_of`."""
        rows_of = self.left if lanes_of == self.right else self.right
        return any((rows_of, lanes_of) == form[:2] for form in TILE_DOTS)

    @property
    def is_light(self) -> bool:
        """Whether several steps fit in i16 (`effcc.ir.dots`), summed there before they are in i32."""
        return l8 in (self.left, self.right)

    @property
    def deepest(self) -> int:
        """How many packed points vectors sum in one step, at most."""
        return LIGHT_DEPTH if self.is_light else self.neighbours

    @property
    def bytes(self) -> int:
        """Of one element, of either factor."""
        return self.left.bytes


@dataclass(frozen=True)
class Contraction:
    """`target = sum(depth: left * right)`: rows are the kept axes of `left` alone, columns those of `right` alone,
    batch those of both or of neither, each in the statement's order. Sums are accumulated in `accumulator`.

    Where a factor is gathered along the other's axes, its own are those that its index follows by itself.
    """

    target: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    depth: tuple[str, ...]
    batch: tuple[str, ...]
    left: Operand
    right: Operand
    accumulator: DType

    @property
    def is_outer(self) -> bool:
        """Whether tiles of it are outer products: neither factor depends on the other's rows or columns."""
        return not set(self.rows) & self.right.axes and not set(self.columns) & self.left.axes

    @property
    def dot(self) -> PackedDot | None:
        """The dot product of packed lanes that sums exactly what it does: both factors are elements as they are stored,
        widened by nothing but the product.
        """
        found = packed_factors((self.left.value, self.right.value), self.accumulator)
        return None if found is None else found[2]

    @property
    def turned(self) -> Contraction:
        """The same, with the factors and so rows and columns in the other order."""
        return replace(self, rows=self.columns, columns=self.rows, left=self.right, right=self.left)

    @property
    def in_place(self) -> bool:
        """Whether each factor follows a kept axis that the other does not: no rows that are gathered at run time."""
        return all(_sides((*self.batch, *self.rows, *self.columns), self.left.followed, self.right.followed))

    @property
    def is_block_product(self) -> bool:
        """Whether blocks of it are matrix products: no factor depends on more axes than it loads along, and every depth
        axis is an axis of both.
        """
        known = {*self.batch, *self.rows, *self.columns, *self.depth}  # a tile's values also depend on where it begins
        a, b = (free_axes(o.value) & known for o in (self.left, self.right))
        loaded = a == self.left.axes & known and b == self.right.axes & known
        return self.is_outer and loaded and set(self.depth) <= a & b

    def __str__(self) -> str:
        kept = ",".join((*self.batch, *self.rows, *self.columns))
        constant = [o.data.buffer for o in (self.left, self.right) if o.constant]
        note = f", {' and '.join(constant)} constant" if constant else ""
        names = f"{self.left.data.buffer} * {self.right.data.buffer}"
        return f"{self.target}[{kept}] = sum({','.join(self.depth)}: {names}){note}"


def contraction(statement: Statement, weights: Collection[str] = frozenset()) -> Contraction | None:
    """The contraction that a statement is; None for any other. `weights`: the buffers that do not change."""
    reduce = statement.reduction
    if reduce is None or reduce.operator != "sum" or reduce.spans or statement.scatter is not None:
        return None
    return _contraction(statement.target, statement.axes, reduce.axes, reduce.body, reduce.dtype, weights)


def contraction_of_tile(tile: Tile) -> Contraction | None:
    """The contraction that a tile of a sum is, over the tile's axes; None for any other."""
    if tile.combine != "add":
        return None
    kept = tuple(i.name for i in tile.index if isinstance(i, Axis))
    depth = tuple(a.name for a in tile.axes if a.name not in kept)
    return _contraction(tile.buffer, kept, depth, tile.value, tile.value.dtype, frozenset())


def _contraction(
    target: str,
    kept: tuple[str, ...],
    depth: tuple[str, ...],
    body: Expr,
    accumulator: DType,
    weights: Collection[str],
) -> Contraction | None:
    factors = factors_of(body)
    if factors is None:
        return None
    left, right = (_operand(f, weights) for f in factors)
    if not left.loads or not right.loads:
        return None
    rows, columns = _sides(kept, left.axes, right.axes)
    if not rows or not columns:
        rows, columns = _sides(kept, left.followed, right.followed)
    if not rows or not columns:
        return None
    batch = tuple(x for x in kept if x not in rows and x not in columns)
    return Contraction(target, rows, columns, depth, batch, left, right, accumulator)


def _sides(
    kept: Sequence[str], left: Collection[str], right: Collection[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The kept axes of the left factor alone, and those of the right one alone."""
    rows = tuple(a for a in kept if a in left and a not in right)
    return rows, tuple(a for a in kept if a in right and a not in left)


def contractions(kernel: Kernel) -> dict[int, Contraction]:
    """The contractions among a kernel's statements, by position."""
    found = ((n, contraction(s, kernel.weights)) for n, s in enumerate(kernel.statements))
    return {n: c for n, c in found if c is not None}


def packed_factors(factors: tuple[Expr, Expr], accumulator: DType) -> tuple[Load, Load, PackedDot] | None:
    """The elements that two factors are as they are stored, and the dot product of packed lanes for them.

    They come in the order in which it wants them, unsigned before signed ones.
    """
    for a, b in (map(_unwidened, factors), map(_unwidened, reversed(factors))):
        if isinstance(a, Load) and isinstance(b, Load) and (neighbours := DOTS.get((a.dtype, b.dtype, accumulator))):
            return a, b, PackedDot(a.dtype, b.dtype, neighbours)
    return None


def _unwidened(e: Expr) -> Expr:
    match e:
        case Call("cast", (operand,), dtype) if dtype == f32 and operand.dtype in (f16, bf16):
            return operand
        case Call("cast", (operand,), dtype) if dtype == i32 and operand.dtype in PACKED and operand.dtype.is_integer:
            return operand
    return e


def factors_of(e: Expr) -> tuple[Expr, Expr] | None:
    """The factors of a product, of which a sum may be rounded once for both."""
    match e:
        case Call("mul", (left, right)):
            return left, right
    return None


def summands_of(e: Expr) -> tuple[Expr, ...]:
    """What a multiply-add adds up, product by product, outermost first; of anything else, itself."""
    match e:
        case Call("mul_add", (left, right, rest)):
            return Call("mul", (left, right), e.dtype), *summands_of(rest)
    return (e,)


def _operand(value: Expr, weights: Collection[str]) -> Operand:
    loads = tuple(_data(value))
    return Operand(value, loads, bool(loads) and all(x.buffer in weights for x in loads))


def _data(e: Expr) -> list[Load]:
    """The loads of an expression, without those that only say where another one reads."""
    return [e] if isinstance(e, Load) else [load for part in children(e) for load in _data(part)]


def _outside_loads(e: Expr) -> frozenset[str]:
    if isinstance(e, Axis):
        return frozenset((e.name,))
    return frozenset() if isinstance(e, Load) else frozenset[str]().union(*map(_outside_loads, children(e)))

"""Nests of a kernel in the terms of the schedule models: axes with roles and hints, operands with strides.

The models (`contraction`, `pointwise`, `reduction`) know no kernels; equal descriptions are solved once a process.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from math import prod
from types import MappingProxyType

from effcc.ir.affine import coefficient
from effcc.ir.codes import FEW_CODES, reads_table, tabled, unmasked
from effcc.ir.contraction import Contraction, factors_of, summands_of
from effcc.ir.contraction import Operand as Factor
from effcc.ir.dependences import is_copy, is_made_anew, walked_axis
from effcc.ir.dims import Shape, elements
from effcc.ir.dots import TILE_ROW_BYTES
from effcc.ir.dtypes import boolean, f32
from effcc.ir.expr import Axis as AxisExpr
from effcc.ir.expr import Call, Expr, Load, Reduce, free_axes, loads, walk
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.scalars import function
from effcc.passes.tiling.access import layouts, stride
from effcc.passes.tiling.contraction import (
    ContractionNest,
    ContractionSchedule,
    Joins,
    Made,
    aliased_rows,
    schedule_contraction,
)
from effcc.passes.tiling.copies import TURN_SLOTS
from effcc.passes.tiling.cost import FAR_BYTES
from effcc.passes.tiling.dots import is_turned, step_slots, sums_twice
from effcc.passes.tiling.matrix import matrix_schedules
from effcc.passes.tiling.nests import NestPlan
from effcc.passes.tiling.operands import CACHE_LINE, MANY, Axis, Operand, operand_bytes
from effcc.passes.tiling.pointwise import PointwiseNest, PointwiseSchedule, schedule_pointwise
from effcc.passes.tiling.reduction import LIVE_VALUES, ReductionNest, ReductionSchedule, schedule_reduction
from effcc.passes.tiling.taps import Taps, guards
from effcc.passes.tiling.window import WindowNest, WindowSchedule, window_schedules
from effcc.target import Target

STORE_SLOTS = 2
"""Slots to store a vector: there is one store port."""
LOOKUP, LONG_LOOKUP = 1.0, 4.0
"""Instructions to look elements up in a table that one register holds, or two."""
MASK_REGISTERS = 3
"""Where masks are vectors: the lanes' numbers, zeros, and the mask itself."""


def contraction_of(
    kernel: Kernel,
    product: Contraction,
    counts: Mapping[str, int],
    lane_axis: str,
    row_axis: str,
    reduced: Sequence[str],
    rows_of: Factor,
    columns_of: Factor,
    packed: bool,
    shared: Collection[str],
    block_k: bool,
    target: Target,
    rank: int = 0,
    depth: int = 1,
    joins: Joins | None = None,
) -> ContractionSchedule:
    """The best schedule of a sum of products with lanes along `lane_axis` and register rows along `row_axis`.

    depth: so many packed points of the innermost reduced axis are summed at once, on the matrix unit if they fill a row
    of a tile register. shared: the axes along which there can be parallel tasks. block_k: whether partial
    sums may rest in the cache. rank: how many that are predicted to be faster are passed over, here and below. joins:
    see `ContractionNest`.
    """
    kept = (*product.batch, *product.rows, *product.columns)
    in_rows, in_columns = (set(kept) & o.axes for o in (rows_of, columns_of))
    axes = []
    for a in kept:
        if a in (lane_axis, row_axis):
            continue
        role = "m" if a in in_rows - in_columns else "n" if a in in_columns - in_rows else "batch"
        axes.append(Axis(a, max(counts[a], 1), role))  # type: ignore[arg-type]
    axes += [Axis(row_axis, max(counts[row_axis], 1), "m"), Axis(lane_axis, max(counts[lane_axis], 1), "n")]
    axes += [Axis(a, max(counts[a], 1), "k") for a in reduced]
    layout = layouts(kernel)
    row_stride = stride(rows_of.data, row_axis, layout[rows_of.data.buffer])
    known = isinstance(row_stride, int) and row_stride > 0
    masking = _masking(columns_of, lane_axis, reduced[-1], target)
    nest = ContractionNest(
        tuple(axes),
        lhs_bytes=rows_of.data.dtype.bytes,
        rhs_bytes=columns_of.data.dtype.bytes,
        out_bytes=product.accumulator.bytes,
        rhs="packed" if packed else "rows",
        lhs_row_stride=int(row_stride) * rows_of.data.dtype.bytes if known else None,  # type: ignore[arg-type]
        # Packed lanes are summed as stored.
        decode_slots=_decode_slots(columns_of, lane_axis) + masking.slots if depth == 1 else 0,
        row_slots=_decode_slots(rows_of, row_axis) if depth == 1 and _reads_codes(rows_of) else 0,
        accumulator_bytes=product.accumulator.bytes,
        block_k=block_k,
        whole=frozenset(a for a in kept if a not in shared),
        depth=depth,
        dot_slots=1 if depth == 1 or product.dot is None else step_slots(product.dot, depth, target),
        neighbours=depth // product.dot.neighbours if depth > 1 and product.dot and product.dot.is_light else 1,
        ones=depth > 1 and product.dot is not None and sums_twice(product.dot, target),
        turned=depth > 1 and product.dot is not None and is_turned(product.dot, target),
        made=_made(kernel, columns_of.data.buffer, lane_axis),
        joins=joins,
        rhs_row_stride=None
        if packed or _is_copied(kernel, columns_of)
        else _apart(kernel, columns_of, reduced[-1], max(counts[reduced[-1]], 1), target),
        masks=masking.registers + _is_padded(rows_of),
        spread=_is_spread(kernel, product, lane_axis, row_axis),
    )
    return _contraction(nest, target, rank)


def _is_spread(kernel: Kernel, product: Contraction, lane_axis: str, row_axis: str) -> bool:
    """Whether what is made of a product, point by point, is stored in f32 apart along the lanes, and side by side along
    the rows."""
    layout = layouts(kernel)
    made = {product.target}
    for s in kernel.statements:
        if s.reduction is None and any(x.buffer in made for x in s.reads):
            made.add(s.target)
    for output in (p for p in kernel.outputs if p.name in made and p.type.dtype == f32):
        last = next(s for s in kernel.statements if s.target == output.name)
        place = Load(output.name, tuple(map(AxisExpr, last.axes)), f32)
        if stride(place, row_axis, layout[output.name]) == 1:
            return stride(place, lane_axis, layout[output.name]) not in (0, 1)
    return False


@dataclass(frozen=True)
class _Masking:
    """What it takes to read a factor whose lanes may lie partly outside: instructions a step, registers throughout."""

    slots: int = 0
    registers: int = 0


def _masking(factor: Factor, lanes: str, innermost: str, target: Target) -> _Masking:
    """What masks of a factor's lanes take: they are made anew at each step of an axis that they depend on."""
    conditions = {
        c for e in walk(factor.value) if isinstance(e, Call) and e.function == "where" for c in e.operands[:1]
    }
    compared = {x for c in conditions for x in walk(c) if _is_comparison(x) and lanes in free_axes(x)}
    if not compared:
        return _Masking()
    anew = sum(innermost in free_axes(x) for x in compared)
    if target.isa == "avx512":
        return _Masking(slots=2 * anew)
    # Each is a broadcast, a comparison and an "and" in registers that hold vectors; then loads test and blend.
    return _Masking(slots=5 * anew + 3, registers=MASK_REGISTERS)


def _is_padded(factor: Factor) -> bool:
    """Whether a factor's elements may lie outside of what it is read from: zeros for these take a register, without
    which a tile of 14 sums with AVX2 keeps one of them in memory (1.6 times what 14 loads take, 3x3 of 512 x 7 x 7)."""
    return any(isinstance(e, Call) and e.function == "where" for e in walk(factor.value))


def _is_comparison(e: Expr) -> bool:
    return isinstance(e, Call) and e.dtype == boolean != e.operands[0].dtype


def _apart(kernel: Kernel, factor: Factor, innermost: str, steps: int, target: Target) -> int | None:
    """Bytes between what two steps of the innermost reduced axis read, where that is at least half a page, or where
    lines of so many steps share sets of L1 before it is full."""
    step = stride(factor.data, innermost, layouts(kernel)[factor.data.buffer])
    apart = abs(step) * factor.data.dtype.bytes if isinstance(step, int) else 0
    lines = aliased_rows(apart, target.l1_bytes) if apart else steps
    return apart if apart >= FAR_BYTES or (lines < steps and lines < target.l1_bytes // CACHE_LINE) else None


def joins_of(s: Statement, groups: int, axis: str) -> Joins:
    """What it takes to add a product's sums up, of so many groups, as a statement does; lanes along `axis`."""
    loads_ = len({x for x in s.reads if axis in free_axes(x)}) - 1
    return Joins(groups, max(1, round(_operations(s.value, axis))), loads_)


def _decode_slots(factor: Factor, axis: str) -> int:
    """Instructions that make a vector of a factor: of codes what is computed of them, else one a further load."""
    if _reads_codes(factor):
        return max(1, round(_operations(factor.value, axis)))
    return max(0, len(factor.loads) - 1)


def _reads_codes(factor: Factor) -> bool:
    """Whether a factor is computed of integers, or of a table's element that one says."""
    if any(load.dtype.is_integer for load in factor.loads):
        return True
    tables = (e for e in walk(factor.value) if isinstance(e, Load) and reads_table(e))
    return any(loads(i) for e in tables for i in e.index)


def _is_copied(kernel: Kernel, factor: Factor) -> bool:
    """Whether a factor is what each task copies for itself, its lanes side by side."""
    s = kernel.definition(factor.data.buffer)
    return s is not None and is_copy(kernel, s)


def _made(kernel: Kernel, buffer: str, axis: str) -> Made | None:
    """What it takes to make panels of a factor that the kernel decodes for itself, lanes along `axis`."""
    s = kernel.definition(buffer)
    if s is None or not is_made_anew(kernel, s) or walked_axis(kernel) is not None:
        return None
    read = {x.buffer for x in s.reads}
    stored = sum(elements(p.type.shape) * p.type.dtype.bytes for p in kernel.params if p.name in read)
    if is_copy(kernel, s):
        (source,) = s.reads
        beside = stride(source, axis, layouts(kernel)[source.buffer]) == 1
        return Made(1 + STORE_SLOTS if beside else TURN_SLOTS, stored)
    loads_ = sum(not reads_table(x) for x in s.reads)
    return Made(max(1, round(_operations(s.value, axis))) + loads_ + STORE_SLOTS, stored)


def pointwise_of(
    layout: Mapping[str, Shape],
    statements: Sequence[Statement],
    counts: Mapping[str, int],
    axis: str,
    crossing: str | None,
    shared: Collection[str],
    given: int,
    target: Target,
    rank: int = 0,
    once: bool = False,
) -> PointwiseSchedule:
    """The best schedule of pointwise statements with lanes along `axis`; `layout`: the strides of every buffer.

    crossing: the axis along which an operand is contiguous whose elements along the lanes are apart. shared: the axes
    along which there can be tasks. given: the points along `axis` that a task has, 0 where that is still open. once:
    see `Choice`.
    """
    axes = (*(Axis(a, max(n, 1)) for a, n in counts.items() if a != axis), Axis(axis, max(counts[axis], 1)))
    nest = PointwiseNest(
        axes,
        _operands(layout, statements, counts),
        max(1, round(sum(_operations(s.value, axis, target.vector_lanes) for s in statements))),
        element_bytes=_widest(statements),
        whole=frozenset(counts).difference(shared),
        given=given,
        once=once,
    )
    return _pointwise(nest, axis, crossing if crossing in counts else None, target, rank)


def reduction_of(
    layout: Mapping[str, Shape],
    statements: Sequence[Statement],
    counts: Mapping[str, int],
    reduced: Sequence[str],
    axis: str,
    together: int,
    shared: Collection[str],
    given: int,
    target: Target,
    rank: int = 0,
    once: bool = False,
    sharing: str = "",
) -> ReductionSchedule:
    """The best schedule of a nest with reductions, with lanes along `axis`; `layout`: the strides of every buffer.

    together: points of another axis that have accumulators of their own. shared, given, once: as in `pointwise_of`.
    sharing: see `ReductionNest`.
    """
    sums = sum(s.reduction is not None and s.scatter is None for s in statements)
    nest = ReductionNest(
        tuple(Axis(a, max(n, 1), "reduced" if a in reduced else "kept") for a, n in counts.items()),
        _operands(layout, statements, counts),
        max(1, round(sum(_operations(s.value, axis, target.vector_lanes) for s in statements))),
        live_values=max(LIVE_VALUES, 2 * together, sums * together + 1),
        element_bytes=_widest(statements),
        whole=frozenset(counts).difference(shared),
        given=given,
        once=once,
        stores=_stores_apart(layout, statements[-1], axis, target) / together,
        sharing=sharing,
        ragged=any(s.spans for s in statements),
    )
    return _reduction(nest, axis, target, rank)


def _stores_apart(layout: Mapping[str, Shape], last: Statement, axis: str, target: Target) -> int:
    """How many stores a vector of results takes whose lanes lie apart; none where it is one store."""
    step = stride(Load(last.target, tuple(AxisExpr(a) for a in last.axes), last.dtype), axis, layout[last.target])
    return 0 if step in (0, 1) else target.vector_lanes


def _widest(statements: Sequence[Statement]) -> int:
    """Bytes of the widest type that a nest computes in, which decides how many lanes a register has."""
    return max(4, *(s.value.dtype.bytes for s in statements))


def window_of(
    kernel: Kernel,
    plan: NestPlan,
    counts: Mapping[str, int],
    axis: str,
    taps: Taps,
    packed: Collection[Load],
    target: Target,
    rank: int = 0,
    lanes: Mapping[str, str] = MappingProxyType({}),
    shared: Collection[str] | None = None,
) -> WindowSchedule:
    """The best register tile of windows, with lanes along `axis`; `packed`: what will be packed for them; `lanes`: see
    `layouts`; `shared`: the axes along which there can be tasks, all that are kept if it is not given."""
    shared = plan.kept if shared is None else shared
    statements = [kernel.statements[i] for i in (*plan.body, *plan.reductions, *plan.epilogue)]
    work = [_operations(kernel.statements[i].value, axis, target.vector_lanes) for i in (*plan.body, *plan.reductions)]
    weighted = any(len(kernel.statements[i].reads) > 1 for i in plan.reductions)
    layout = layouts(kernel, lanes)
    operands = _operands(layout, statements, counts)
    axes = [Axis(a, n) for a, n in counts.items()]
    reads = (load for i in plan.reductions for load in kernel.statements[i].reads)
    apart = any(stride(load, axis, layout[load.buffer]) not in (0, 1) for load in reads if load not in packed)
    return _window(
        WindowNest(
            line=max(counts[taps.line], 1),
            stride=taps.stride,
            taps=counts[taps.tap],
            reach=taps.dilation * (counts[taps.tap] - 1) + 1,
            rows=max(prod(counts[a] for a in plan.reduced if a != taps.tap), 1),
            channels=max(counts[axis], 1),
            lines=max(prod(counts[a] for a in plan.kept if a in shared and a not in (taps.line, axis)), 1),
            lines_each=max(prod(counts[a] for a in plan.kept if a not in (*shared, taps.line, axis)), 1),
            together=axis not in shared,
            weighted=weighted,
            operations=max(1, round(sum(work))),
            bytes=sum(operand_bytes(o, axes) for o in operands),
            element_bytes=_widest(statements),
            padded=any(guards(kernel.statements[i].value) for i in plan.reductions),
            load_slots=2 * target.vector_lanes if apart else 1,
        ),
        target,
        rank,
    )


def _operations(e: Expr, axis: str, lanes: int = FEW_CODES, known: set[Expr] | None = None) -> float:
    """Vector instructions of an expression with `lanes` along `axis`: what is the same in all lanes is computed apart,
    and what is written twice, `known` by then, once."""
    known = set() if known is None else known
    if isinstance(e, Reduce):
        # A product is added as it is multiplied; of several that are added up, this one is the first.
        *_, first = summands_of(e.body)
        multiplied = factors_of(first) is not None and first.dtype.is_float
        return _operations(e.body, axis, lanes, known) + (0.0 if multiplied else 1.0)
    if axis not in free_axes(e) or e in known:
        return 0.0
    known.add(e)
    match e:
        case Load() if reads_table(e):
            code = unmasked(e.index[0])
            return (LOOKUP if lanes >= FEW_CODES else LONG_LOOKUP) + _operations(code, axis, lanes, known)
        case Call() if e.dtype.name == "i64" and not loads(e):
            return 0.0
        case Call() if lanes == FEW_CODES and (found := tabled(e)) is not None:
            return LOOKUP + _operations(found[0], axis, lanes, known)
        case Call():
            own = function(e.function).instructions
            return own + sum(_operations(o, axis, lanes, known) for o in e.operands)
    return 0.0


def _operands(
    layout: Mapping[str, Shape], statements: Sequence[Statement], counts: Mapping[str, int]
) -> tuple[Operand, ...]:
    """What a nest reads and writes in memory: its own results are in registers when it reads them again."""
    found: dict[tuple[str, tuple[tuple[str, int], ...], bool], Operand] = {}
    own = {s.target for s in statements}
    places: dict[tuple[str, tuple[tuple[str, int], ...], bool], set[Load]] = {}
    for s in statements:
        stores = [] if s.reduction is not None else [Load(s.target, tuple(AxisExpr(a) for a in s.axes), s.dtype)]
        reads = (x for x in s.reads if x.buffer not in own and not reads_table(x))
        for load, written in [*((x, False) for x in reads), *((x, True) for x in stores)]:
            strides: dict[str, int] = {}
            for a in counts:
                step = stride(load, a, layout[load.buffer])
                strides[a] = MANY if step is None else elements((step,)) if not isinstance(step, int) else step
            key = (load.buffer, tuple(sorted(strides.items())), written)
            near = frozenset(a for a, step in strides.items() if step == MANY and _in_row(load, a, layout[load.buffer]))
            found.setdefault(key, Operand(load.buffer, strides, load.dtype.bytes, written, near=near))
            if MANY in strides.values() and not written:
                places.setdefault(key, set()).add(load)
    return tuple(replace(o, places=len(places.get(key, (o,)))) for key, o in found.items())


def _in_row(load: Load, axis: str, layout: Shape) -> bool:
    """Whether an axis that moves a load unevenly moves it along a row of neighbours."""
    return all(step == 1 for i, step in zip(load.index, layout, strict=True) if coefficient(i, axis) is None)


@lru_cache(maxsize=4096)
def _window(nest: WindowNest, target: Target, rank: int) -> WindowSchedule:
    return list(islice(window_schedules(nest, target), rank + 1))[-1]


@lru_cache(maxsize=4096)
def _contraction(nest: ContractionNest, target: Target, rank: int) -> ContractionSchedule:
    if nest.depth * nest.lhs_bytes == TILE_ROW_BYTES:
        return list(islice(matrix_schedules(nest, target), rank + 1))[-1]
    return schedule_contraction(nest, target, rank + 1)[-1]


@lru_cache(maxsize=4096)
def _pointwise(nest: PointwiseNest, axis: str, crossing: str | None, target: Target, rank: int) -> PointwiseSchedule:
    return schedule_pointwise(nest, target, rank + 1, axis, crossing)[-1]


@lru_cache(maxsize=4096)
def _reduction(nest: ReductionNest, axis: str, target: Target, rank: int) -> ReductionSchedule:
    return schedule_reduction(nest, target, rank + 1, axis)[-1]

"""The integer problem of a kernel's blocks on a GPU, in the notation of `notation`, written out from its statements.

Names: `b_m` is the block of axis m, `e_m` its extent, `warps` and `stages` as in a schedule. For the product
C[m,n] = sum(k: A * B) on a grid over m and n this comes out as

    programs = ceil(e_m / b_m) * ceil(e_n / b_n)
    b_m >= 16 ; b_n >= 16 ; b_k >= 16                              # what a block product needs
    b_m * b_n <= warps * warp * 64                                 # accumulators in registers
    stages * (4 * b_m * b_k + 4 * b_k * b_n) <= shared_bytes        # operands of the turns in flight
    minimize max(waves * compute, programs * traffic * byte) + waves * (steps * latency / stages + start)

with `traffic` counted in sectors of 32 bytes, so that a block which is short along the contiguous axis pays for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from effcc.gpu import GpuTarget
from effcc.ir.contraction import Contraction, contraction
from effcc.ir.dependences import online_axis
from effcc.ir.dims import Shape, elements
from effcc.ir.dtypes import DType, bf16, f16, f32
from effcc.ir.expr import Axis, Call, Expr, Load, walk
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.scalars import function
from effcc.passes.tiling.access import layouts, stride
from effcc.passes.tiling.constraints import Problem
from effcc.passes.tiling.nests import NestPlan
from effcc.passes.tiling.notation import parse_problem

FEMTO = 1e15
DOT_BLOCK = 16
"""The least extent of each side of a block product."""
MAX_BLOCK = 128
"""The largest extent of a block along an axis of a product; eight times that where nothing is multiplied."""
SECTOR_BYTES = 32
"""What memory moves at least for one access."""
THREAD_WORDS = 64
"""Registers of a thread that blocks may fill; the rest is for addresses, operands and the compiler."""
THREAD_OPERATIONS = 4096
"""Operations of one turn that a thread may have in line: more only lengthens the code."""
CALL_OPERATIONS = 16
"""What a transcendental function counts, in additions."""
STEP_SECONDS, START_SECONDS = 5e-7, 1e-6
"""One turn of a loop that waits for memory, and starting a kernel."""


def block_product(s: Statement) -> Contraction | None:
    """The contraction that block products compute, which sum in f32; None for any other statement."""
    found = contraction(s)
    return found if found is not None and found.accumulator == f32 and found.is_block_product else None


def scatters_in_turn(kernel: Kernel) -> bool:
    """Whether a kernel scatters what memory cannot combine atomically: then one program takes point after point."""
    s = kernel.statements[0]
    if s.scatter is None or s.scatter.combine == "set":
        return False
    if s.dtype.is_float:
        return s.scatter.combine != "add"
    return s.scatter.combine == "mul" or s.dtype.bits < 32


def power_of_two(n: int) -> int:
    """The least power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()


class BlockModel:
    """The problem of one kernel whose `shared` axes are spread over the grid and whose `whole` axes are one block."""

    def __init__(
        self, kernel: Kernel, plans: Sequence[NestPlan], shared: Sequence[str], whole: frozenset[str], target: GpuTarget
    ) -> None:
        self.kernel, self.plans, self.target = kernel, plans, target
        self.shared, self.whole = shared, whole
        self.extents = {a: elements((e,)) for a, e in kernel.axes if e != 1}
        self.found = {s.target: x for s in kernel.statements if (x := block_product(s)) is not None}
        groups = {name: tuple(self._real(g) for g in (x.rows, x.columns, x.depth)) for name, x in self.found.items()}
        self.product_sides = {name: three for name, three in groups.items() if all(three)}
        self.products = list(self.product_sides.values())
        self.batch = {a for name in self.product_sides for a in self.found[name].batch}
        self.in_products = {a for groups in self.products for g in groups for a in g}
        self.loops = [a for a in self.extents if a not in shared and a not in whole]

    def _real(self, group: Collection[str]) -> tuple[str, ...]:
        """The axes of a group that can be blocks: not those of one point, and no steps of a recurrence."""
        return tuple(a for a in self.extents if a in group and a not in self.kernel.scans)

    def blocks(self, values: Mapping[str, int]) -> dict[str, int]:
        """The block of every axis in a solution."""
        return {a: values.get(f"b_{a}", self._whole_block(a)) for a in self.extents}

    def problem(self) -> Problem:
        """The problem, with domains and numbers."""
        warps = [w for w in (1, 2, 4, 8) if w <= self.target.max_warps]
        deep = self.products and self.loops and not self.kernel.scans
        domains: dict[str, list[int]] = {f"b_{a}": self._domain(a) for a in self.extents if a not in self.whole}
        domains |= {"warps": warps, "stages": [1, 2, 3, 4] if deep else [1]}
        parameters = {f"e_{a}": e for a, e in self.extents.items()}
        parameters |= {f"b_{a}": self._whole_block(a) for a in self.extents if a in self.whole}
        parameters |= self._machine()
        return parse_problem(self.text(), domains, parameters)

    def text(self) -> str:
        """Constraints and objective."""
        compute, traffic = self._compute(), self._traffic()
        lines = [f"programs = {_product(f'ceil(e_{a} / b_{a})' for a in self.shared)}"]
        for groups in self.products:
            lines += [f"{_product(f'b_{a}' for a in group)} >= {DOT_BLOCK}" for group in groups]
            lines.append(f"{self._block(sum(groups, ()))} <= warps * warp * {THREAD_OPERATIONS}")
        operands = [
            f"4 * {self._block(g)}" for rows, columns, depth in self.products for g in (rows + depth, depth + columns)
        ]
        if operands:
            lines.append(f"stages * ({' + '.join(operands)}) <= shared_bytes")
        held = list(dict.fromkeys(self._block(s.axes) for s in self.kernel.statements))
        lines.append(f"{' + '.join(held)} <= warps * warp * {THREAD_WORDS}")
        for s in self.kernel.statements:
            if s.reduction is not None and s.target not in self.product_sides:
                lines.append(f"{self._block((*s.axes, *s.reduction.axes))} <= warps * warp * {THREAD_WORDS}")
        lines += [
            "waves = ceil(programs / multiprocessors)",
            f"compute = ({compute}) * 4 / min(warps, 4)",
            f"traffic = {traffic}",
            f"steps = {self._steps()}",
            "minimize max(waves * compute, programs * traffic * byte) + waves * (steps * latency / stages + start)",
        ]
        return "\n".join(lines)

    # Numbers --------------------------------------------------------------------------------------------------------

    def _machine(self) -> dict[str, int]:
        t = self.target
        return {
            "warp": t.warp,
            "shared_bytes": t.shared_bytes,
            "multiprocessors": t.multiprocessors,
            "flop": max(1, round(FEMTO * t.multiprocessors / t.f32_flops)),
            "half_flop": max(1, round(2 * 512 * FEMTO * t.multiprocessors / t.half_flops)),  # 512 multiply-adds
            "byte": max(1, round(FEMTO / t.memory_bandwidth)),
            "latency": round(FEMTO * STEP_SECONDS),
            "start": round(FEMTO * START_SECONDS),
        }

    def _domain(self, axis: str) -> list[int]:
        if axis in self.batch or axis in self.kernel.scans or scatters_in_turn(self.kernel):
            return [1]
        top = power_of_two(self.extents[axis])
        limit = MAX_BLOCK if self.in_products or axis == online_axis(self.kernel) else 8 * MAX_BLOCK
        top = min(top, limit)
        if axis in self.in_products:
            top = max(top, DOT_BLOCK)
        return [1 << i for i in range(top.bit_length())]

    def _whole_block(self, axis: str) -> int:
        block = power_of_two(self.extents[axis])
        return max(block, DOT_BLOCK) if axis in self.in_products else block

    # Terms ----------------------------------------------------------------------------------------------------------

    def _block(self, axes: Sequence[str]) -> str:
        return _product(f"b_{a}" for a in axes if a in self.extents)

    def _range(self, axis: str) -> str:
        """How many points of an axis one program covers."""
        return f"b_{axis}" if axis in self.shared or axis in self.whole else f"ceil(e_{axis} / b_{axis}) * b_{axis}"

    def _points(self, axes: Sequence[str]) -> str:
        return _product(self._range(a) for a in axes if a in self.extents)

    def _compute(self) -> str:
        terms = []
        for s in self.kernel.statements:
            reduced = s.reduction.axes if s.reduction is not None else ()
            points = self._points((*s.axes, *reduced))
            if s.target in self.product_sides and _half_operands(self.found[s.target]):
                terms.append(f"half_flop * {points} / 512")
            else:
                terms.append(f"flop * {_operations(s.value)} * {points}")
        return " + ".join(terms)

    def _traffic(self) -> str:
        layout = layouts(self.kernel)
        known = {p.name: p.type.dtype for p in (*self.kernel.params, *self.kernel.outputs)}
        moved = {load: None for s in self.kernel.statements for load in s.reads if load.buffer in known}
        for s in self.kernel.statements:
            if s.target in known and s.scatter is None:
                moved[Load(s.target, tuple(Axis(a) for a in s.axes), s.dtype)] = None
        terms = Counter(self._moved(load, known[load.buffer], layout) for load in moved)
        return " + ".join(_product([str(n), term]) for term, n in terms.items()) or "0"

    def _moved(self, load: Load, dtype: DType, layout: Mapping[str, Shape]) -> str:
        """The bytes of a load in one program, in whole sectors."""
        axes = [
            a for a in self.extents if any(isinstance(e, Axis) and e.name == a for i in load.index for e in walk(i))
        ]
        for axis in axes:
            if stride(load, axis, layout[load.buffer]) == 1:
                rest = self._points([a for a in axes if a != axis])
                turns = "1" if axis in self.shared or axis in self.whole else f"ceil(e_{axis} / b_{axis})"
                return _product([rest, turns, f"max(b_{axis} * {dtype.bytes}, {SECTOR_BYTES})"])
        return _product([self._points(axes), str(SECTOR_BYTES if axes else dtype.bytes)])

    def _steps(self) -> str:
        turns = []
        for plan in self.plans:
            axes = [a for a in (*plan.kept, *plan.reduced) if a in self.loops]
            turns.append(_product(f"ceil(e_{a} / b_{a})" for a in axes))
        return " + ".join(turns)


def _operations(value: Expr) -> int:
    calls = [e.function for e in walk(value) if isinstance(e, Call) and e.dtype in (f32, f16, bf16)]
    return 1 + sum(1 if function(f).instructions == 1 else CALL_OPERATIONS for f in calls)


def _half_operands(found: Contraction) -> bool:
    """Whether both factors of a product are half types, widened: then the matrix units multiply them."""
    return all(o.unwidened.dtype in (f16, bf16) for o in (found.left, found.right))


def _product(factors: Iterable[str]) -> str:
    return " * ".join(f for f in factors if f != "1") or "1"

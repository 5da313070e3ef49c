"""Tiles as whole blocks, for programs that compute on blocks of points: how a GPU's schedule cuts axes.

An axis has blocks of one size. Where one block covers it, there is no loop over it, and its points are there from the
outside in; a block that sticks out at the axis's end is masked by the limit of its tile axis, so there is no second
copy of the code for what is left over. The value of axis `m` is `m_0 + m`: the loop variable's and the tile axis's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from effcc.codegen.lower_ranges import ZERO, Cutter, Emit, Range, Ranges, entered
from effcc.errors import ScheduleError
from effcc.ir.dtypes import i64
from effcc.ir.expr import Axis, Call, Expr, integer
from effcc.ir.kernel import Kernel
from effcc.ir.loops import For, Stmt, TileAxis
from effcc.ir.schedule import Loop, Schedule, nodes


def block_start(axis: str) -> str:
    """The loop variable that runs over the beginnings of an axis's blocks."""
    return f"{axis}_0"


@dataclass
class BlockCutter(Cutter):
    """Writes loops over whole blocks. `blocks` are the sizes of those of more than one point, by axis."""

    blocks: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def of(kernel: Kernel, schedule: Schedule) -> BlockCutter:
        loops = (node for _, node in nodes(schedule.body) if isinstance(node, Loop))
        return BlockCutter(extents=kernel.extents, blocks={x.axis: x.step for x in loops if x.step > 1})

    @property
    def in_blocks(self) -> bool:
        return True

    def begin(self) -> Ranges:
        return {a: self._block(a, ZERO) if self._is_whole(a) else Range.whole(n) for a, n in self.extents.items()}

    def order(self, axes: Iterable[str], ranges: Ranges) -> tuple[str, ...]:
        """All axes of a result, as its statement has them; each has to be in a block or at a point."""
        missing = [a for a in axes if not ranges[a].placed]
        if missing:
            raise ScheduleError(
                f"axes {', '.join(missing)} are looped over where their points are needed at once: put what needs them "
                "into the loops over their blocks, or cut the kernel into stages first"
            )
        return tuple(axes)

    def register(self, target: str, role: str) -> str:
        name = f"{target}_block"
        return self.first_or_fresh(f"{target}_{role}_block" if name in self.names else name)

    def cut(
        self,
        axis: str,
        step: int,
        together: str,
        ranges: Ranges,
        emit: Emit,
        seen: tuple[Expr, Expr] | None = None,
    ) -> list[Stmt]:
        if ranges[axis].placed:
            return list(emit(ranges))
        return self._loop("serial", axis, step, ranges, emit)

    def spread(self, loops: Sequence[tuple[str, int]], ranges: Ranges, emit: Emit) -> list[Stmt]:
        if not loops:
            return list(emit(ranges))
        (axis, step), *inner = loops
        return self._loop("parallel", axis, step, ranges, lambda inside: self.spread(inner, inside, emit))

    def _loop(self, kind: str, axis: str, step: int, ranges: Ranges, emit: Emit) -> list[Stmt]:
        start = block_start(axis)
        self.steps[start] = step
        inside = entered(ranges, axis, self._block(axis, Axis(start)))
        return [For(start, ZERO, integer(self.extents[axis]), step, kind, tuple(emit(inside)))]

    def _is_whole(self, axis: str) -> bool:
        """Whether one block is the whole axis. (An empty axis is a loop that never turns.)"""
        extent = self.extents[axis]
        return isinstance(extent, int) and 1 <= extent <= self.blocks.get(axis, 1)

    def _block(self, axis: str, base: Expr) -> Range:
        """One block of an axis from `base` on; of one point, the point."""
        block, extent = self.blocks.get(axis, 1), self.extents[axis]
        if block == 1:
            return Range(1, 1, (base,), placed=True)
        limit: Expr | None = None
        if base == ZERO:
            limit = None if extent == block else integer(extent)
        elif not (isinstance(extent, int) and extent % block == 0):
            limit = Call("sub", (integer(extent), base), i64)
        return Range(block, block, (base, Axis(axis)), TileAxis(axis, block, "unroll", limit), placed=True)

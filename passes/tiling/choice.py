"""What is being decided for one kernel: shared by the nests of a schedule while they are chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from effcc.ir.dims import elements
from effcc.ir.expr import ends_at
from effcc.ir.kernel import Kernel
from effcc.ir.schedule import Pack
from effcc.passes.tiling.build import TiledAxis
from effcc.passes.tiling.nests import NestPlan
from effcc.target import Target


@dataclass
class Choice:
    """The decisions so far. `sequential` is cut outside all nests, and so are the axes of `cut`, into so many points.

    shared: the axes that parallel loops outside may cut into tiles, which `tiles` gives. `outer` and `inner`: those of
    them that must come first and last. `lanes`: for what a nest computes, the axis on its vector unit. `seconds`: the
    prediction for all cores. `rank`: which of each model's schedules is taken, 0 for the one predicted to be fastest.
    `once`: whether the kernel runs once, so that its code should be short rather than quick.
    """

    kernel: Kernel
    target: Target
    shared: tuple[str, ...]
    sequential: TiledAxis | None = None
    cut: Mapping[str, int] = field(default_factory=dict)
    tiles: dict[str, int] = field(default_factory=dict)
    lanes: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    rank: int = 0
    once: bool = False
    outer: str = ""
    inner: str = ""
    packs: list[Pack] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def count(self, axis: str) -> int:
        """How many points of an axis a nest can tile: those of its tile where a loop outside already cuts it."""
        if self.sequential is not None and axis == self.sequential.axis:
            return self.sequential.tile
        return self.cut.get(axis) or max(elements((self.kernel.extents[axis],)), 1)

    def counts(self, plan: NestPlan) -> dict[str, int]:
        """How many points of each of its axes a nest can tile; of a ragged one as many as a span has on average."""
        counts = {a: self.count(a) for a in (*plan.kept, *plan.reduced)}
        for span in plan.spans(self.kernel):
            ends = [a for a in ends_at(span) if a in counts]  # slabs are summed over, and end as results do
            spans = prod(max(elements((self.kernel.extents[a],)), 1) for a in ends)
            counts[span.axis] = max(counts[span.axis] // spans, 1)
        return counts

    def turns(self, plan: NestPlan) -> int:
        """How often the sequential loop runs a nest."""
        if self.sequential is None or plan.phase != "inside":
            return 1
        return -(-max(elements((self.kernel.extents[self.sequential.axis],)), 1) // self.sequential.tile)

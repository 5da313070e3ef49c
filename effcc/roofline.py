"""What a kernel must do at least: operations and bytes, and the time that a machine's peak and bandwidths allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from effcc.ir.dims import evaluate
from effcc.ir.expr import Axis, Call, Expr, Load, Reduce, children, ends_at, loads, walk
from effcc.ir.kernel import Kernel
from effcc.target import Target


@dataclass(frozen=True)
class Work:
    """Arithmetic operations (a fused multiply-add counts two) and bytes that one launch reads and writes.

    moved: the bytes of each parameter and output.
    """

    flops: float
    bytes: float
    moved: Mapping[str, float] = field(default_factory=dict)

    def seconds(self, target: Target, cached: bool) -> float:
        """The roofline: all operations at the peak, or all bytes from L3 (`cached`) or memory, whichever takes
        longer."""
        return max(self.flops / target.peak_flops, self.bytes / bandwidth(target, cached))

    def bound_by(self, target: Target, cached: bool) -> str:
        """Which of the two it is: `compute` or `memory`."""
        return "compute" if self.flops / target.peak_flops >= self.seconds(target, cached) else "memory"


def bandwidth(target: Target, cached: bool) -> float:
    """Bytes a second from L3 (`cached`) or memory."""
    return target.l3_bandwidth if cached else target.memory_bandwidth


def work(kernel: Kernel, sizes: Mapping[str, int]) -> Work:
    """What one launch of `kernel` does. A buffer counts once, or as often as it is read, whichever is less."""
    extents = {axis: evaluate(extent, sizes) for axis, extent in kernel.extents.items()}
    flops = 0.0
    touched: dict[str, float] = {}
    for statement in kernel.statements:
        points = prod(extents[a] for a in statement.axes)
        flops += _operations(statement.value, points, extents)
        touched[statement.target] = touched.get(statement.target, 0.0) + points
        indices = statement.scatter.index if statement.scatter is not None else ()
        for e in (statement.value, *indices):
            for name, times in _reads(e, points, extents):
                touched[name] = touched.get(name, 0.0) + times
    moved = {}
    for p in kernel.signature:
        whole = prod(evaluate(d, sizes) for d in p.type.shape)
        moved[p.name] = min(whole, touched.get(p.name, 0.0)) * p.type.dtype.bytes
    return Work(flops, float(sum(moved.values())), moved)


def _operations(e: Expr, points: float, extents: Mapping[str, int]) -> float:
    """Arithmetic on numbers. Where a condition on indices chooses, one side is computed and nothing else done; indices
    and what is read to find them count nothing."""
    if isinstance(e, Reduce):
        apart = {a for span in e.spans for a in ends_at(span)}  # spans are taken to be disjoint
        inside = points * prod(extents[a] for a in e.axes) / max(prod(extents[a] for a in apart), 1)
        return inside + sum(_operations(c, inside, extents) for c in children(e))
    if isinstance(e, Call) and e.function == "where":
        condition, *sides = (_operations(c, points, extents) for c in e.operands)
        chosen = points if e.dtype.is_float and loads(e.operands[0]) else 0.0  # by data, not by where the point is
        return chosen + condition + max(sides)
    if isinstance(e, Load):
        return 0.0
    own = points if isinstance(e, Call) and e.dtype.is_float else 0.0
    return own + sum(_operations(c, points, extents) for c in children(e))


def _reads(e: Expr, points: float, extents: Mapping[str, int]) -> list[tuple[str, float]]:
    """Each load's buffer, and how many different elements it may touch."""
    found = []
    for load in (x for x in walk(e) if isinstance(x, Load)):
        axes = {x.name for i in load.index for x in walk(i) if isinstance(x, Axis)}
        found.append((load.buffer, float(prod(extents[a] for a in axes))))
    return found

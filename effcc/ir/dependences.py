"""Which axes of a kernel have points that run on their own: asked by fusion, tiling and the verifier of schedules."""

from __future__ import annotations

from collections.abc import Set

from effcc.ir.expr import Axis, walk
from effcc.ir.kernel import Kernel


def step_axes(kernel: Kernel) -> tuple[str, ...]:
    """The axes whose points can run on their own within each step of a scan, when all have finished the step before."""
    scans = set(kernel.scans)
    return shared_axes(kernel, scans) if all(scans & set(s.axes) for s in kernel.statements) else ()


def shared_axes(kernel: Kernel, ordered: Set[str] = frozenset()) -> tuple[str, ...]:
    """The axes that every statement has and reads its predecessors' results at: each point can run on its own.

    A scatter's points are apart along an axis that is an index of its target by itself: `Y[I[i],j] add= X[i,j]` meets
    itself along i, never along j. ordered: axes whose earlier points are finished before later ones begin, so that
    anything of them may be read.
    """
    extents = kernel.extents
    shared = [a for a in kernel.statements[0].axes if a not in kernel.scans and extents[a] != 1]
    definitions: dict[str, tuple[str, ...]] = {}
    for s in kernel.statements:
        shared = [a for a in shared if a in s.axes]
        if s.scatter is None:
            definitions.setdefault(s.target, s.axes)
            continue
        if kernel.readers(s.target):
            return ()
        written = definitions.get(s.target)
        apart = {i.name for p, i in enumerate(s.scatter.index) if isinstance(i, Axis) and _stands(written, p, i.name)}
        shared = [a for a in shared if a in apart]
    for s in kernel.statements:
        for load in s.reads:
            axes = definitions.get(load.buffer)
            if axes is None or any(a in ordered and i != Axis(a) for a, i in zip(axes, load.index, strict=True)):
                continue
            for axis, index in zip(axes, load.index, strict=True):
                inside = {e.name for e in walk(index) if isinstance(e, Axis)}
                if axis in shared and index != Axis(axis):
                    shared.remove(axis)
                shared = [a for a in shared if a not in inside or index == Axis(a) == Axis(axis)]
    return tuple(shared)


def _stands(written: tuple[str, ...] | None, place: int, axis: str) -> bool:
    """Whether what a scatter writes into was written with the axis at this place, if a statement wrote it at all."""
    return written is None or written[place] == axis


def online_axis(kernel: Kernel) -> str | None:
    """The axis that the kernel's online reductions follow; None if it has none."""
    for s in kernel.statements:
        if s.reduction is not None and s.reduction.rescale is not None:
            return s.reduction.axes[0]
    return None

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

    ordered: axes whose earlier points are finished before later ones begin, so that anything of them may be read.
    """
    if any(s.scatter is not None for s in kernel.statements):
        return ()
    extents = kernel.extents
    shared = [a for a in kernel.statements[0].axes if a not in kernel.scans and extents[a] != 1]
    definitions: dict[str, tuple[str, ...]] = {}
    for s in kernel.statements:
        shared = [a for a in shared if a in s.axes]
        definitions.setdefault(s.target, s.axes)
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


def online_axis(kernel: Kernel) -> str | None:
    """The axis that the kernel's online reductions follow; None if it has none."""
    for s in kernel.statements:
        if s.reduction is not None and s.reduction.rescale is not None:
            return s.reduction.axes[0]
    return None

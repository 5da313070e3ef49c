"""The axes that schedules name, one normal form: neighbours merged (`effcc.passes.tiling.merge`), and an axis of tasks
added where a scatter's targets may meet. Nothing merges, splits or adds axes after this step.

    Y[where(in_range(I[i], 2000, 0), I[i], -1),c] add= S[i,c] for i, c

becomes, for 4 tasks,

    Y[where(in_range(I[i], 2000, 0) and I[i] % 4 == t, I[i], -1),c] add= S[i,c] for t, i, c

so that each task reads all indices and writes the rows that are its own, in the order of i: results are the same, bit
for bit, whatever the number of tasks and threads. Rows next to each other, of which one may be popular because the
other is, go to different tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

from effcc.errors import IRTypeError, noting
from effcc.gpu import device_of
from effcc.ir.dependences import computed_where_written, guarded, picks_places
from effcc.ir.dims import elements
from effcc.ir.dtypes import boolean, i64
from effcc.ir.expr import Axis, Call, Const, Expr, both, modulo, where
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.program import Program, fresh_name
from effcc.passes.tiling.merge import merge_axes
from effcc.passes.tiling.scatters import (
    INDEX_SECONDS,
    LINE_BYTES,
    WORTH_SHARING,
    meeting,
    outside,
    rows,
    scatters,
    seconds_of,
    sections,
)
from effcc.target import Target

TASKS_A_CORE = 2
"""Each task reads all indices again."""


def settle(program: Program, target: Target) -> Program:
    """The program whose kernels have the axes that their schedules cut."""
    kernels = {}
    for name, kernel in program.kernels.items():
        with noting(location=kernel.location, kernel=kernel):
            kernels[name] = settle_axes(kernel, target)
    return replace(program, kernels=kernels)


def verify_settled(program: Program) -> None:
    """Raise IRTypeError where a kernel has axes that would be one in the normal form."""
    for kernel in program.kernels.values():
        merged = merge_axes(kernel)
        if merged is not kernel:
            gone = ", ".join(a for a in kernel.extents if a not in merged.extents)
            raise IRTypeError(f"kernel @{kernel.name}: all accesses walk {gone} as one axis: merge them before tiling")


def settle_axes(kernel: Kernel, target: Target) -> Kernel:
    """The kernel with the axes that its schedule cuts."""
    merged = merge_axes(kernel)
    if device_of(target) is not None:  # where scatters meet atomically
        return merged
    tasks = 1 << (TASKS_A_CORE * target.cores - 1).bit_length()
    return merged if target.cores == 1 else in_tasks(merged, tasks, lambda k, s: _pays(k, s, tasks, target))


def in_tasks(kernel: Kernel, tasks: int, wanted: Callable[[Kernel, Statement], bool]) -> Kernel:
    """The kernel with an axis of tasks for each scatter that can have one and is wanted to."""
    together = any(len(part.statements) > 1 for part in sections(kernel) if scatters(part))
    if kernel.scans or together:
        return kernel
    statements = list(kernel.statements)
    for number, s in enumerate(statements):
        if s.scatter is None or not meeting(s) or s.kept_spans or picks_places(s) or not computed_where_written(s):
            continue
        if wanted(kernel, s):
            axis = fresh_name("t", kernel.extents)
            (position, *_), index = meeting(s), list(s.scatter.index)
            index[position] = _picked(index[position], axis, tasks)
            statements[number] = replace(s, axes=(axis, *s.axes), scatter=replace(s.scatter, index=tuple(index)))
            kernel = replace(kernel, axes=(*kernel.axes, (axis, tasks)), statements=tuple(statements))
    return kernel


def _pays(kernel: Kernel, s: Statement, tasks: int, target: Target) -> bool:
    """Whether tasks that each read all indices are sooner done than one that reads them once, and no axis of the
    scatter has tasks."""
    own = rows(s)
    counts = {a: elements((kernel.extents[a],)) for a in s.axes}
    if any(counts[a] >= tasks for a in outside(s)):
        return False
    row = prod(counts[a] for a in own)
    alone = seconds_of(s, counts)
    again = prod(counts.values()) / row * INDEX_SECONDS * (tasks - 1)
    return bool(own) and row * s.dtype.bytes >= LINE_BYTES and (alone + again) / target.cores + WORTH_SHARING < alone


def _picked(index: Expr, axis: str, tasks: int) -> Expr:
    """The index where it is one of a task's, else nowhere. One that is known to be inside has no guard."""
    guards, place = (index.operands[:1], index.operands[1]) if guarded(index) else ((), index)
    own = Call("eq", (modulo(place, Const(tasks, i64)), Axis(axis)), boolean)
    return where(both(*guards, own), place, Const(-1, i64))

"""Layouts of intermediates: each buffer in the arena gets that dimension innermost that its users vectorize.

A convolution whose lanes are output channels writes channels last; a key matrix whose positions are lanes is written
transposed by whoever computes it. Nothing here knows either: the cost of every access along its kernel's lanes decides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import prod

from effcc.errors import noting
from effcc.ir.dims import Dim, Shape, contiguous_strides, dim, elements
from effcc.ir.expr import Axis, Load, Reduce, walk
from effcc.ir.kernel import Kernel, Param, Statement
from effcc.ir.program import Buffer, Launch, Program
from effcc.ir.schedule import Place, Schedule, places
from effcc.ir.types import TensorType
from effcc.passes.tiling.access import lane_cost
from effcc.passes.tiling.choose import choose
from effcc.target import Target

ROUNDS = 3
"""Schedules depend on layouts and layouts on schedules: both are chosen again so often, or until nothing changes. The
first schedules are chosen as if every layout that is still open suited them: row-major order would only confirm itself.
"""


@dataclass(frozen=True)
class _Access:
    """A load or store of a buffer: its index, the lanes axis of its nest, and how many vectors it moves."""

    load: Load
    lanes: str
    times: float


def arrange(program: Program, target: Target) -> Program:
    """The program with the layouts of arena buffers chosen; graph inputs and outputs keep theirs."""
    schedules: dict[Kernel, tuple[Kernel, Schedule]] = {}
    fixed = _fixed(program)
    for turn in range(1 + ROUNDS):
        accesses: dict[str, list[_Access]] = defaultdict(list)
        for step in program.steps:
            if not isinstance(step, Launch):
                continue
            kernel = program.kernels[step.kernel]
            supposed = kernel if turn else _with_open_layouts(kernel, program, step, fixed)
            if supposed not in schedules:
                with noting(location=kernel.location, kernel=kernel):
                    schedules[supposed] = choose(supposed, target)
            names = dict(zip((p.name for p in kernel.signature), step.touched, strict=True))
            for access in _accesses(kernel, schedules[supposed][1]):
                accesses[names[access.load.buffer]].append(access)
        changed = {}
        for buffer in program.buffers:
            if _is_open(buffer, fixed):
                best = _best(buffer.type, accesses[buffer.name])
                if best != buffer.type:
                    changed[buffer.name] = best
        if not changed and turn:
            return program
        program = _retype(program, changed) if changed else program
    return program


def _is_open(buffer: Buffer, fixed: Collection[str]) -> bool:
    """Whether the layout of a buffer can be chosen."""
    return buffer.space == "arena" and buffer.type.rank > 1 and buffer.name not in fixed


def _with_open_layouts(kernel: Kernel, program: Program, step: Launch, fixed: Collection[str]) -> Kernel:
    """A kernel as schedules see it whose open buffers are contiguous along every axis: one step moves one element."""

    def supposed(p: Param, name: str) -> Param:
        if not _is_open(program.buffer(name), fixed):
            return p
        return replace(p, type=TensorType(p.type.dtype, p.type.shape, (1,) * p.type.rank))

    return replace(
        kernel,
        params=tuple(supposed(p, n) for p, n in zip(kernel.params, step.arguments, strict=True)),
        outputs=tuple(supposed(p, n) for p, n in zip(kernel.outputs, step.results, strict=True)),
    )


def _fixed(program: Program) -> set[str]:
    """Buffers whose layout must stay: PyTorch reads or writes them, or a kernel sees them in another shape."""
    known = program.by_name
    found: set[str] = set()
    for step in (*program.prepare, *program.steps):
        if not isinstance(step, Launch):
            found.update(step.touched)
            continue
        kernel = program.kernels[step.kernel]
        for p, name in zip(kernel.signature, step.touched, strict=True):
            if p.type.shape != known[name].type.shape:
                found.add(name)
    return found


def _accesses(kernel: Kernel, schedule: Schedule) -> list[_Access]:
    outside = {p.name for p in kernel.signature}
    found = []
    for place in places(kernel, schedule):
        if place.lanes is None:
            continue
        s = kernel.statements[place.position]
        for load in s.reads:
            if load.buffer in outside:
                found.append(_Access(load, place.lanes, _times(kernel, place, s, load)))
        if s.target in outside and s.scatter is None:
            store = Load(s.target, tuple(Axis(a) for a in s.axes), s.dtype)
            found.append(_Access(store, place.lanes, _times(kernel, place, s, store, False)))
    return found


def _times(kernel: Kernel, place: Place, s: Statement, load: Load, inside: bool = True) -> float:
    """How often this vector is moved: points of the statement's box, less what registers reuse."""
    axes = [*s.axes, *(s.value.axes if inside and isinstance(s.value, Reduce) else ())]
    used = {e.name for i in load.index for e in walk(i) if isinstance(e, Axis)}
    reuse = prod(x.step for x in place.loops if x.together == "unroll" and x.axis not in used)
    return elements(tuple(kernel.extents[a] for a in axes)) / reuse


def _best(type: TensorType, accesses: list[_Access]) -> TensorType:
    """The type with the cheapest innermost dimension; ties keep the row-major order."""
    if not accesses:
        return type
    candidates = [_innermost(type.shape, d) for d in reversed(range(type.rank)) if type.shape[d] != 1]

    def cost(layout: Shape) -> float:
        return sum(a.times * lane_cost(a.load, a.lanes, {a.load.buffer: layout}) for a in accesses)

    if not candidates:
        return type
    best = min(candidates, key=cost)
    if best == contiguous_strides(type.shape):
        return TensorType(type.dtype, type.shape)
    return TensorType(type.dtype, type.shape, best)


def _innermost(shape: Shape, position: int) -> Shape:
    """Strides in which `position` is contiguous and the other dimensions keep their order outside it."""
    order = [*(d for d in range(len(shape)) if d != position), position]
    strides: list[Dim] = [1] * len(shape)
    step: Dim = 1
    for d in reversed(order):
        strides[d] = step
        step = dim(step * shape[d])
    return tuple(strides)


def _retype(program: Program, changed: Mapping[str, TensorType]) -> Program:
    """The program with buffers' types replaced, and kernels specialized to the types they are launched on."""
    buffers = tuple(replace(b, type=changed.get(b.name, b.type)) for b in program.buffers)
    kernels: dict[str, Kernel] = {}
    known: dict[Kernel, str] = {}

    def specialize(step: Launch) -> Launch:
        kernel = program.kernels[step.kernel]

        def param(p: Param, name: str) -> Param:
            return replace(p, type=changed[name]) if name in changed else p

        made = replace(
            kernel,
            params=tuple(param(p, n) for p, n in zip(kernel.params, step.arguments, strict=True)),
            outputs=tuple(param(p, n) for p, n in zip(kernel.outputs, step.results, strict=True)),
        )
        key = replace(made, name="", location="")
        if key not in known:
            base, n = kernel.name, 0
            while (name := base if n == 0 else f"{base}_v{n}") in kernels:
                n += 1
            known[key] = name
            kernels[name] = replace(made, name=name)
        return replace(step, kernel=known[key])

    prepare = tuple(specialize(s) if isinstance(s, Launch) else s for s in program.prepare)
    steps = tuple(specialize(s) if isinstance(s, Launch) else s for s in program.steps)
    return replace(program, buffers=buffers, kernels=kernels, steps=steps, prepare=prepare)

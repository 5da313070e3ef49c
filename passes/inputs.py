"""What many rows read alike and compute alike is computed once a call: inputs as codes of few bits ask for them.

    kernel @linear(X: f32[128], Q: u8[96,64]) -> (O: f32[96]) over n=96, j=64 {
      O[n] = sum(j: (X[2 * j] - X[2 * j + 1] * 0.0625) * f32(Q[n,j] & 15) + ...)
    }

computes the same difference for all n, of elements apart in memory. It becomes two kernels, the first of which stores
what lanes then read side by side:

    kernel @linear_inputs(X: f32[128]) -> (O.input0: f32[64]) over j=64 {
      O.input0[j] = X[2 * j] - X[2 * j + 1] * 0.0625
    }
    kernel @linear(O.input0: f32[64], Q: u8[96,64]) -> (O: f32[96]) over n=96, j=64 {
      O[n] = sum(j: O.input0[j] * f32(Q[n,j] & 15) + ...)
    }

Kernels that read the same inputs alike share them. Products of many rows have tiles, which read an operand for many
results at once: they stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from math import prod

from effcc.ir.affine import coefficient
from effcc.ir.codes import largest_code
from effcc.ir.contraction import contraction
from effcc.ir.dims import Dim
from effcc.ir.expr import Axis, Call, Expr, Load, Reduce, children, free_axes, loads, rebuild, walk
from effcc.ir.kernel import Kernel, Param, Statement
from effcc.ir.program import Buffer, Launch, Program, Step, fresh_name
from effcc.ir.scalars import is_check
from effcc.ir.types import TensorType
from effcc.passes.group_sums import VECTORS, Vectors, sum_vectors
from effcc.target import Target

ROWS = 64
"""So many results at least read what a launch of its own stores: it takes as long as a few rows."""


@dataclass(frozen=True)
class _Apart:
    """A kernel that stores inputs, the rest that reads them, and the buffers between."""

    first: Kernel
    rest: Kernel
    inputs: tuple[Param, ...]


def share_inputs(program: Program, target: Target) -> Program:
    """The program with such inputs stored by launches of their own, and groups of codes summed before their scale."""
    lanes = target.vector_lanes
    found = {name: apart for name, kernel in program.kernels.items() if (apart := _apart(kernel, lanes)) is not None}
    if not found:
        return program
    kernels, names = dict(program.kernels), dict[Kernel, str]()
    for name, apart in found.items():
        kernels[name] = apart.rest
        if apart.inputs and apart.first not in names:
            names[apart.first] = fresh_name(f"{name}_inputs", kernels)
            kernels[names[apart.first]] = replace(apart.first, name=names[apart.first])
    buffers = {b.name: b for b in program.buffers}
    stored: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}

    def launched(step: Step) -> Iterator[Step]:
        if isinstance(step, Launch) and (apart := found.get(step.kernel)) is not None and apart.inputs:
            given = dict(zip((p.name for p in program.kernels[step.kernel].params), step.arguments, strict=True))
            read = tuple(given[p.name] for p in apart.first.params)
            key = (names[apart.first], read)
            if key not in stored:
                stored[key] = tuple(_buffer(buffers, f"{step.results[0]}.input", p) for p in apart.inputs)
                yield Launch(names[apart.first], read, stored[key])
            given.update(zip((p.name for p in apart.inputs), stored[key], strict=True))
            step = replace(step, arguments=tuple(given[p.name] for p in apart.rest.params))
        yield step
        written = {program.memory_of(r) for r in step.results if r in program.by_name}
        for key in [k for k in stored if any(program.memory_of(name) in written for name in k[1])]:
            del stored[key]

    prepare = tuple(made for step in program.prepare for made in launched(step))
    stored.clear()
    steps = tuple(made for step in program.steps for made in launched(step))
    return replace(program, kernels=kernels, buffers=tuple(buffers.values()), steps=steps, prepare=prepare)


def _buffer(buffers: dict[str, Buffer], base: str, like: Param) -> str:
    name = fresh_name(base, buffers)
    buffers[name] = Buffer(name, like.type, "arena")
    return name


def _apart(kernel: Kernel, lanes: int) -> _Apart | None:
    """The kernel in two, the first of which may store nothing; None where nothing of it changes."""
    if kernel.scans or kernel.spans or any(s.scatter is not None for s in kernel.statements):
        return None
    made: dict[Expr, Statement] = {}
    extents = dict(kernel.axes)
    rest = tuple(_reading(kernel, s, made, extents, lanes) for s in kernel.statements)
    if rest == kernel.statements:
        return None
    kernel = replace(kernel, axes=tuple(extents.items()))
    inputs = tuple(Param(s.target, TensorType(s.dtype, tuple(extents[a] for a in s.axes))) for s in made.values())
    first = _part(kernel, tuple(made.values()), kernel.params, inputs)
    return _Apart(replace(first, name=""), _part(kernel, rest, (*inputs, *kernel.params), kernel.outputs), inputs)


def _part(
    kernel: Kernel, statements: tuple[Statement, ...], params: tuple[Param, ...], outputs: tuple[Param, ...]
) -> Kernel:
    """A kernel of some of the statements, with the axes and parameters that they use."""
    used = {a for s in statements for a in s.all_axes}
    read = {x.buffer for s in statements for x in s.reads}
    return replace(
        kernel, statements=statements, params=tuple(p for p in params if p.name in read), outputs=outputs,
        axes=tuple(a for a in kernel.axes if a[0] in used), weights=kernel.weights & read,
    )  # fmt: skip


def _reading(
    kernel: Kernel, s: Statement, made: dict[Expr, Statement], extents: dict[str, Dim], lanes: int
) -> Statement:
    """A sum over codes that reads its inputs as they are stored by statements of their own, which are added to `made`,
    and sums the vectors of a group before its scale, along an axis that is added to `extents`; any other statement as
    it is."""
    found = s.reduction
    if found is None or s.value is not found or not _sums_codes(found) or contraction(s, kernel.weights) is not None:
        return s
    rows = [extents[a] for a in s.axes if extents[a] != 1]
    if prod(n for n in rows if isinstance(n, int)) < ROWS:
        return s
    given = {p.name for p in kernel.params} - {p.name for p in kernel.outputs} - kernel.weights
    vectors = _vectors(found, extents, lanes)
    ends = (found.axes[-1], *([vectors.lane] if vectors is not None else []))
    axes = (*found.axes[:-1], *ends)

    def alike(e: Expr) -> bool:
        return _is_alike(e, axes, given)

    def stored(e: Expr) -> Expr:
        kept = tuple(a for a in axes if a in free_axes(e))
        if not alike(e) or not kept or kept[-1] not in ends or not _is_worth_storing(e, kept[-1]):
            return rebuild(e, tuple(map(stored, children(e)))) if isinstance(e, Call) else e
        if e not in made:
            made[e] = Statement(f"{s.target}.input{len(made)}", kept, e)
        return Load(made[e].target, tuple(Axis(a) for a in made[e].axes), e.dtype)

    summed = sum_vectors(found.body, vectors, alike, stored) if vectors is not None else None
    if summed is None or vectors is None:
        return replace(s, value=replace(found, body=stored(found.body)))
    extents[vectors.lane] = vectors.lanes
    return replace(s, value=replace(found, axes=(*found.axes[:-1], vectors.lane), body=summed))


def _vectors(found: Reduce, extents: Mapping[str, Dim], lanes: int) -> Vectors | None:
    """How the last axis of a sum, a group's, is cut into vectors; None where it is one, or a whole row."""
    last = found.axes[-1]
    extent = extents[last]
    if len(found.axes) < 2 or not isinstance(extent, int) or extent % lanes or not 1 < extent // lanes <= VECTORS:
        return None
    lane = f"{last}_l"
    return Vectors(last, lane, lanes, extent // lanes) if lane not in extents or extents[lane] == lanes else None


def _sums_codes(found: Reduce) -> bool:
    """Whether a sum reads integers of few bits."""
    read = [x for x in loads(found.body) if largest_code(x) is not None]
    return found.operator == "sum" and not found.spans and bool(read)


def _is_alike(e: Expr, axes: Sequence[str], given: Set[str]) -> bool:
    """Whether all rows compute a float of inputs alike."""
    read = loads(e)
    if not e.dtype.is_float or not read or not free_axes(e) <= {*axes}:
        return False
    return all(x.buffer in given and x.dtype.is_float for x in read) and not any(is_check(x) for x in walk(e))


def _is_worth_storing(e: Expr, last: str) -> bool:
    """Whether what rows compute alike is computed, or read apart along the axis that lanes run along."""
    if isinstance(e, Load):
        return any(coefficient(i, last) not in (0, 1, None) for i in e.index)
    return isinstance(e, Call)


__all__ = ["share_inputs"]

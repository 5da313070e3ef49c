"""Products of half types on CPUs: what every column of a product reads becomes f32 once, not once for each column.

    linear[m,n] = sum(k: cast<f32>(x[m,k]) * cast<f32>(w[n,k]))            # x: bf16
    becomes  wide[i,j] = cast<f32>(x[i,j]);  linear[m,n] = sum(k: wide[m,k] * cast<f32>(w[n,k]))

A half in all lanes takes three instructions that a f32, which a multiply-add reads from memory, does not: a product
whose rows are bf16 took twice as long as one of f32. Results are the same to the bit. Weights stay as they are: their
vectors become f32 as they are loaded, and they are most of what is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod

from effcc.ir.contraction import contractions
from effcc.ir.dtypes import bf16, f16, f32
from effcc.ir.expr import Axis, Call, Expr, Load, cast
from effcc.ir.kernel import Kernel, Param, Statement
from effcc.ir.program import Buffer, Launch, Program, Step, fresh_name
from effcc.ir.types import TensorType
from effcc.passes.tiling.dots import packed_product
from effcc.target import Target

_COLUMNS = 64
"""So many columns must read an element: fewer are less than what they would be spared."""
_POINTS = 1 << 18
"""So many products take some microseconds to turn into f32, as threads do to meet after a step of its own."""


def widen_rows(program: Program, target: Target) -> Program:
    """The program with such operands in f32 buffers of their own, made just before they are read first.

    Where the target sums products of half types as they are, nothing is widened; nor is what is prepared, once.
    """
    kernels = dict(program.kernels)
    once = program.prepared_by
    often = {name: kernel for name, kernel in program.kernels.items() if name not in once}
    wanted = {name: wide for name, kernel in often.items() if (wide := _wanted(kernel, target))}
    if not wanted:
        return program
    changed = {name: _reading(program.kernels[name], wide) for name, wide in wanted.items()}
    kernels.update(changed)
    buffers = {b.name: b for b in program.buffers}
    made: dict[tuple[str, TensorType], str] = {}  # of a buffer, read as a type: its f32 copy
    casters: dict[TensorType, str] = {}
    steps: list[Step] = []
    for step in program.steps:
        if isinstance(step, Launch) and step.kernel in changed:
            params = program.kernels[step.kernel].params
            given = {p.name: (a, p.type) for p, a in zip(params, step.arguments, strict=True)}
            copied = [given[name] for name in wanted[step.kernel]]
            for source, type in copied:
                if (source, type) in made:
                    continue
                if type not in casters:
                    casters[type] = fresh_name("widen", kernels)
                    kernels[casters[type]] = _caster(casters[type], type)
                copy = fresh_name(f"{source}.f32", buffers)
                buffers[copy] = Buffer(copy, TensorType(f32, type.shape), "arena")
                made[source, type] = copy
                steps.append(Launch(casters[type], (source,), (copy,)))
            kept = [given[p.name][0] for p in changed[step.kernel].params if p.name in given]
            step = replace(step, arguments=(*kept, *(made[one] for one in copied)))
        steps.append(step)
        # What is written again, under any of its names, is another value from here on.
        again = {program.memory_of(n) for n in step.results if n in program.by_name}
        made = {key: copy for key, copy in made.items() if program.memory_of(key[0]) not in again}
    used = {s.kernel for s in (*program.prepare, *steps) if isinstance(s, Launch)}
    kernels = {n: k for n, k in kernels.items() if n in used}
    return replace(program, buffers=tuple(buffers.values()), kernels=kernels, steps=tuple(steps))


def _wanted(kernel: Kernel, target: Target) -> dict[str, Param]:
    """The parameters to be read as f32."""
    params = {p.name: p for p in kernel.params if p.type.dtype in (bf16, f16) and p.name not in kernel.weights}
    found: dict[str, Param] = {}
    for c in contractions(kernel).values():
        if packed_product(kernel, c, target) is not None:
            continue
        for operand in (c.left, c.right):
            half = operand.value == cast(operand.data, f32) and operand.data.buffer in params
            columns = _points(kernel, [a for a in (*c.batch, *c.rows, *c.columns) if a not in operand.axes])
            pays = columns >= _COLUMNS and columns * _points(kernel, sorted(operand.axes)) >= _POINTS
            if half and pays and not operand.gathered:
                found[operand.data.buffer] = params[operand.data.buffer]
    return found


def _points(kernel: Kernel, axes: Iterable[str]) -> int:
    """How many points axes have, at least."""
    return prod(n for a in axes if isinstance(n := kernel.extents[a], int))


def _reading(kernel: Kernel, wide: Mapping[str, Param]) -> Kernel:
    """The kernel reading f32 where it made f32 of them."""
    taken = {p.name for p in kernel.signature} | {s.target for s in kernel.statements} | {a for a, _ in kernel.axes}
    names: dict[str, str] = {}
    for name in wide:
        names[name] = fresh_name(f"{name}_f32", taken)
        taken.add(names[name])

    def redirect(e: Expr) -> Expr:
        match e:
            case Call("cast", (Load(buffer, index),)) if buffer in names and e.dtype == f32:
                return Load(names[buffer], index, f32)
        return e

    statements = tuple(s.transformed(redirect) for s in kernel.statements)
    read = {x.buffer for s in statements for x in s.reads}
    kept = tuple(p for p in kernel.params if p.name in read or p.name not in wide)
    params = (*kept, *(Param(names[n], TensorType(f32, p.type.shape)) for n, p in wide.items()))
    return replace(kernel, statements=statements, params=params)


def _caster(name: str, type: TensorType) -> Kernel:
    """The kernel that makes f32 of a tensor."""
    axes = tuple(f"i{d}" for d in range(type.rank))
    value = cast(Load("x", tuple(Axis(a) for a in axes), type.dtype), f32)
    return Kernel(
        name=name,
        params=(Param("x", type),),
        outputs=(Param("wide", TensorType(f32, type.shape)),),
        axes=tuple(zip(axes, type.shape, strict=True)),
        statements=(Statement("wide", axes, value),),
    )

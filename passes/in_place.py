"""Updates stored where they belong: a cache that is written at a few places is not copied.

A program ends with steps that copy the new values of inputs into them. A new value becomes another name of its input's
memory, and the copy at the end is left out, where one kernel computes it and nothing reads the old value after that:

    writes:     the kernel copies the whole input and then writes some places (`index_put` into a key-value cache): it
                writes them alone
    own points: the kernel reads the input only at the point that it computes (`x.add_(y)`, a step of an optimizer)
    unread:     no step reads the input at all (the result of a branch)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from effcc.ir.expr import Axis, Expr, Load
from effcc.ir.kernel import Kernel, Param, Statement
from effcc.ir.program import Buffer, Extern, Launch, Program, Step, fresh_name


def store_in_place(program: Program) -> Program:
    """The program with updates stored as they are computed, where that is safe."""
    for step in program.steps:
        if isinstance(step, Launch) and _is_copy(program.kernels[step.kernel]):
            program = _stored(program, step)
    used = {s.kernel for s in (*program.prepare, *program.steps) if isinstance(s, Launch)}
    return replace(program, kernels={n: k for n, k in program.kernels.items() if n in used})


def _is_copy(kernel: Kernel) -> bool:
    """Whether a kernel stores one tensor in another, element by element."""
    if len(kernel.params) != 1 or len(kernel.statements) != 1:
        return False
    (statement,) = kernel.statements
    own = tuple(Axis(a) for a in statement.axes)
    return statement.value == Load(kernel.params[0].name, own, statement.dtype) and statement.scatter is None


def _stored(program: Program, copy: Launch) -> Program:
    """The program without the copy, or as it is where the copy is needed."""
    (source,), (target,) = copy.arguments, copy.results
    new, old = program.buffer(source), program.buffer(target)
    makers = [s for s in program.steps if source in s.results]
    if old.space not in ("input", "weight") or not _may_share(program, new, old) or len(makers) != 1:
        return program
    (maker,) = makers
    computed = isinstance(maker, Launch) or (isinstance(maker, Extern) and maker.regions)
    if computed and not any(target in s.touched for s in program.steps if s is not copy):
        return _without(program, copy, new, old)
    if not isinstance(maker, Launch) or target in maker.results:
        return program
    steps = _ordered(program, maker, copy)
    if any(target in s.touched for s in steps[steps.index(maker) + 1 :] if s is not copy):
        return program
    kernel = program.kernels[maker.kernel]
    if maker.arguments.count(target) != 1:
        return program
    param = kernel.params[maker.arguments.index(target)]
    output = kernel.outputs[maker.results.index(source)]
    made = _writes_alone(kernel, param, output) or (kernel if _reads_own_points(kernel, param, output) else None)
    if made is None:
        return program
    given = dict(zip((p.name for p in kernel.params), maker.arguments, strict=True))
    name = maker.kernel if made is kernel else _name_of(program, replace(made, name=f"{maker.kernel}_in_place"))
    launch = Launch(name, tuple(given[p.name] for p in made.params), maker.results, maker.checks)
    steps = tuple(launch if s is maker else s for s in steps)
    kernels = {**program.kernels, name: replace(made, name=name)}
    return _without(replace(program, steps=steps, kernels=kernels), copy, new, old)


def _without(program: Program, copy: Launch, new: Buffer, old: Buffer) -> Program:
    """The program whose buffer `new` is another name of `old`, so that nothing is to be copied."""
    steps = tuple(s for s in program.steps if s is not copy)
    buffers = tuple(replace(b, space=old.space, alias=old.name) if b is new else b for b in program.buffers)
    return replace(program, steps=steps, buffers=buffers)


def _may_share(program: Program, new: Buffer, old: Buffer) -> bool:
    """Whether two buffers can be one: nothing else stands behind either, and their elements lie alike."""
    aliased = {b.alias for b in program.buffers}
    free = new.space == "arena" and not new.alias and not old.alias and not {new.name, old.name} & aliased
    return free and new.type == old.type and old.name not in program.outputs


def _ordered(program: Program, maker: Launch, copy: Launch) -> tuple[Step, ...]:
    """The steps with a launch as late as the copy of its result, where others read the old value in between, and it can
    wait for them."""
    (target,) = copy.results
    first, last = program.steps.index(maker), program.steps.index(copy)
    between = program.steps[first + 1 : last]
    made, read = set(maker.results), {program.memory_of(n) for n in maker.arguments}
    needed = any(not made.isdisjoint(s.touched) for s in between)
    changed = any(program.memory_of(n) in read for s in between for n in s.results)
    if needed or changed or not any(target in s.touched for s in between):  # where it stands, memory is free sooner
        return program.steps
    return (*program.steps[:first], *between, maker, *program.steps[last:])


def _name_of(program: Program, kernel: Kernel) -> str:
    """The name of an equal kernel that the program has, or a new one."""
    for name, known in program.kernels.items():
        if replace(known, name=kernel.name) == kernel:
            return name
    return fresh_name(kernel.name, program.kernels)


def _writes_alone(kernel: Kernel, param: Param, output: Param) -> Kernel | None:
    """The kernel without the statement that copies all of `param` into `output` first; None if it has none."""
    written = [s for s in kernel.statements if s.target == output.name]
    first = written[0]
    if len(written) < 2 or not isinstance(first.value, Load) or first.scatter is not None:
        return None
    if not _same_place(kernel, first, first.value, param, output) or first.value.buffer != param.name:
        return None
    rest = tuple(s for s in kernel.statements if s is not first)
    if any(load.buffer == param.name for s in rest for load in s.reads):
        return None
    used = {a for s in rest for a in s.all_axes}
    params = tuple(p for p in kernel.params if p is not param)
    axes = tuple((a, e) for a, e in kernel.axes if a in used)
    return replace(kernel, statements=rest, params=params, axes=axes, weights=kernel.weights - {param.name})


def _reads_own_points(kernel: Kernel, param: Param, output: Param) -> bool:
    """Whether `param` is read only where the same element of `output` is computed, which is read again at most where
    other elements are computed from it, each at its own point."""
    written = [s for s in kernel.statements if s.target == output.name]
    first = written[0]
    if len(written) != 1 or first.reduction is not None or first.scatter is not None or kernel.scans:
        return False
    for s in kernel.statements:
        again = [x for x in s.reads if x.buffer == output.name]
        if any(s is not first or not _same_place(kernel, first, x, param, output) for x in s.reads
               if x.buffer == param.name):  # fmt: skip
            return False
        own = s.reduction is None and s.scatter is None and tuple(map(Axis, s.axes))
        if again and (s is first or any(x.index != own for x in again)):
            return False
    return True


def _same_place(kernel: Kernel, statement: Statement, load: Load, param: Param, output: Param) -> bool:
    """Whether a load of `param` reads the element whose place in `output` the statement writes."""
    if load.buffer != param.name:
        return False
    extents = kernel.extents

    def moving(index: Sequence[Expr], of: Param) -> list[tuple[Expr, object]]:
        steps = zip(index, of.type.shape, of.type.layout, strict=True)
        return [(e, step) for e, size, step in steps if size != 1]

    own = [Axis(a) for a in statement.axes]
    fixed = all(extents[a] == size for a, size in zip(statement.axes, output.type.shape, strict=True))
    return fixed and moving(load.index, param) == moving(own, output)

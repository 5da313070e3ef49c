"""What holds in every program: kernels that make sense, buffers that fit them and are written before they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from effcc.errors import IRTypeError
from effcc.ir.dims import Dim, dim, symbols
from effcc.ir.dtypes import boolean
from effcc.ir.kernel import Param
from effcc.ir.op import require
from effcc.ir.program import Branch, Buffer, Extern, Join, Launch, Loop, Program, Step, within
from effcc.ir.verifier.expressions import surely_differ
from effcc.ir.verifier.kernels import verify_kernel

SPACES = ("input", "weight", "prepared", "output", "arena")


def verify_program(program: Program) -> None:
    """Raise IRTypeError, naming the program, unless it makes sense."""
    sizes = sizes_of(program)
    for kernel in program.kernels.values():
        verify_kernel(kernel, sizes)
    try:
        _check(program)
    except IRTypeError as error:
        raise IRTypeError(f"program @{program.name}: {error}") from None


def sizes_of(program: Program) -> frozenset[str]:
    """The size symbols of a program's buffers: what its kernels may mention."""
    return frozenset(s.name for s in symbols(d for b in program.buffers for d in (*b.type.shape, *b.type.layout)))


def _check(program: Program) -> None:
    buffers = program.by_name
    require(len(buffers) == len(program.buffers), "a buffer is declared twice")
    for buffer in program.buffers:
        require(buffer.space in SPACES, f"space of {buffer.name!r} must be one of {', '.join(SPACES)}")
        _check_alias(buffer, buffers)
    named = (*program.inputs, *program.outputs, *(name for pair in program.updates for name in pair))
    _require_known(named, buffers)
    _check_prepared(program)
    given = {b.name for b in program.buffers if b.space in ("input", "weight")} | set(program.inputs)
    written: Set[str] = {program.memory_of(name) for name in given}
    written = _check_steps(program, program.prepare, written)
    written = _check_steps(program, program.steps, written)
    for name in (*program.outputs, *(value for _, value in program.updates)):
        require(program.memory_of(name) in written, f"buffer {name!r} is returned, but no step writes it")


def _check_steps(program: Program, steps: Iterable[Step], written: Set[str]) -> Set[str]:
    """Check steps where the memory of the buffers `written` holds something; give whose memory does afterwards."""
    for step in steps:
        if isinstance(step, Branch):
            _check_condition(program, step, written)
            ends = [_check_steps(program, block, written) for block in step.blocks]
            written = ends[0] & ends[1]
            continue
        if isinstance(step, Loop):
            written = _check_steps(program, step.test, written)
            _check_condition(program, step, written)
            _check_steps(program, step.body, written)
            continue
        _require_known(step.touched, program.by_name)
        _check_step(program, step)
        for name in step.arguments:
            known = program.memory_of(name) in written
            require(known, f"buffer {name!r} is read by {_label(step)} before it is written")
        written = written | {program.memory_of(name) for name in step.results}
    return written


def _check_condition(program: Program, step: Branch | Loop, written: Set[str]) -> None:
    name = step.condition
    _require_known((name,), program.by_name)
    type = program.buffer(name).type
    require(type.dtype == boolean and type.rank == 0, f"the condition {name!r} must be bool[], got {type}")
    require(program.memory_of(name) in written, f"the condition {name!r} is read before it is written")


def _check_prepared(program: Program) -> None:
    """What is prepared is prepared once, for every size."""
    for step in within(program.prepare):
        kernel = program.kernels.get(step.kernel) if isinstance(step, Launch) else None
        types = [program.buffer(n).type for n in step.touched]
        extents = kernel.extents.values() if kernel is not None else ()
        held = symbols([*(d for t in types for d in (*t.shape, *t.layout)), *extents])
        names = {*(s.name for s in held), *(kernel.given_sizes if kernel is not None else ())}
        listed = ", ".join(sorted(names))
        require(not names, f"{_label(step)} prepares what depends on weights alone, but mentions the sizes {listed}")


def _check_alias(buffer: Buffer, buffers: Mapping[str, Buffer]) -> None:
    seen = {buffer.name}
    while buffer.alias:
        require(buffer.alias in buffers, f"{buffer.name!r} is an alias of {buffer.alias!r}, which is no buffer")
        require(buffer.alias not in seen, f"the aliases of {buffer.name!r} go round in a circle")
        seen.add(buffer.alias)
        buffer = buffers[buffer.alias]


def _require_known(names: Iterable[str], buffers: Mapping[str, Buffer]) -> None:
    for name in names:
        require(name in buffers, f"{name!r} is no buffer")


def _label(step: Launch | Join | Extern) -> str:
    if isinstance(step, Join):
        return "join"
    return f"@{step.kernel}" if isinstance(step, Launch) else f"extern {step.op}"


def _check_step(program: Program, step: Launch | Join | Extern) -> None:
    if isinstance(step, Join):
        _check_join(program, step)
    if not isinstance(step, Launch):
        return
    require(step.kernel in program.kernels, f"kernel @{step.kernel} is launched, but not there")
    kernel = program.kernels[step.kernel]
    sides = (("parameters", kernel.params, step.arguments), ("outputs", kernel.outputs, step.results))
    for kind, params, given in sides:
        require(len(params) == len(given), f"@{step.kernel} has {len(params)} {kind}, got {len(given)}")
        for param, name in zip(params, given, strict=True):
            _check_fit(step.kernel, param, program.buffer(name))


def _check_join(program: Program, step: Join) -> None:
    """The operands fit one after the other."""
    (joined,) = (program.buffer(n).type for n in step.results)
    require(bool(step.arguments), "join of nothing")
    require(0 <= step.axis < joined.rank, f"join of {joined} along {step.axis}")
    total: Dim = 0
    for name in step.arguments:
        type = program.buffer(name).type
        other = [
            surely_differ(a, z)
            for n, (a, z) in enumerate(zip(type.shape, joined.shape, strict=False))
            if n != step.axis
        ]
        fits = type.dtype == joined.dtype and type.rank == joined.rank and not any(other)
        require(fits, f"join of {name}: {type} into {joined} along {step.axis}")
        total = dim(total + type.shape[step.axis])
    size = joined.shape[step.axis]
    require(not surely_differ(total, size), f"join of {total} along {step.axis} into {joined}")


def _check_fit(kernel: str, param: Param, buffer: Buffer) -> None:
    """A kernel may see a buffer in another shape, but with the same elements."""
    dtypes = param.type.dtype == buffer.type.dtype
    sizes = not surely_differ(param.type.size, buffer.type.size)
    require(dtypes and sizes, f"@{kernel} takes {param.name}: {param.type}, got {buffer.name}: {buffer.type}")

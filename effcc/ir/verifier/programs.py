"""What holds in every program: kernels that make sense, buffers that fit them and are written before they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from effcc.errors import IRTypeError
from effcc.ir.dims import Dim, dim, symbols
from effcc.ir.kernel import Param
from effcc.ir.op import require
from effcc.ir.program import Buffer, Join, Launch, Program, Step
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
    roots = {name: program.memory_of(name) for name in buffers}
    written = {roots[b.name] for b in program.buffers if b.space in ("input", "weight") or b.name in program.inputs}
    for step in (*program.prepare, *program.steps):
        _require_known(step.touched, buffers)
        _check_step(program, step)
        for name in step.arguments:
            require(roots[name] in written, f"buffer {name!r} is read by {_label(step)} before it is written")
        written.update(roots[name] for name in step.results)
    for name in (*program.outputs, *(value for _, value in program.updates)):
        require(roots[name] in written, f"buffer {name!r} is returned, but no step writes it")


def _check_prepared(program: Program) -> None:
    """What is prepared is prepared once, for every size."""
    for step in program.prepare:
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


def _label(step: Step) -> str:
    if isinstance(step, Join):
        return "join"
    return f"@{step.kernel}" if isinstance(step, Launch) else f"extern {step.op}"


def _check_step(program: Program, step: Step) -> None:
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

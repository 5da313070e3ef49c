"""What holds in every kernel: statements in order, on known axes, of declared types; recurrences along scan axes."""

from __future__ import annotations

from effcc.errors import IRTypeError, UnknownNameError
from effcc.ir.dependences import distance
from effcc.ir.dims import symbols
from effcc.ir.dtypes import DType
from effcc.ir.expr import Load, Span
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.op import require
from effcc.ir.printer.kernels import show_statement
from effcc.ir.verifier.expressions import Scope, surely_differ

COMBINES = ("set", "add", "mul", "max", "min")


def verify_kernel(kernel: Kernel, sizes: frozenset[str] = frozenset()) -> None:
    """Raise IRTypeError, naming the kernel and the statement, unless the kernel makes sense.

    `sizes`: size symbols that have a value whether or not a shape of the kernel holds them, as a program's have.
    """
    try:
        _check_header(kernel)
    except IRTypeError as error:
        raise IRTypeError(f"kernel @{kernel.name}: {error}") from None
    buffers = {p.name: (p.type.dtype, p.type.rank) for p in kernel.signature}
    for statement in kernel.statements:
        buffers.setdefault(statement.target, (statement.dtype, _rank(statement)))
    spans: dict[str, Span] = {}
    for position, statement in enumerate(kernel.statements):
        try:
            _check_statement(kernel, position, buffers, sizes)
            for span in statement.spans:
                known = spans.setdefault(span.axis, span)
                require(span == known, f"{span.axis!r} has another span here than in the statements before")
        except (IRTypeError, UnknownNameError) as error:
            text = show_statement(statement, frozenset(kernel.extents))
            raise IRTypeError(f"kernel @{kernel.name}: {error}\n  in: {text}") from None


def _rank(statement: Statement) -> int:
    return len(statement.axes) if statement.scatter is None else len(statement.scatter.index)


def _check_header(kernel: Kernel) -> None:
    names = [p.name for p in kernel.signature]
    for kind, found in (("buffer", names), ("axis", [name for name, _ in kernel.axes]), ("scan", list(kernel.scans))):
        twice = next((n for n in found if found.count(n) > 1), None)
        require(twice is None, f"{kind} {twice!r} is declared twice")
    for scan in kernel.scans:
        require(scan in kernel.extents, f"scan axis {scan!r} has no extent")
    for name, extent in kernel.axes:
        require(not isinstance(extent, int) or extent >= 0, f"axis {name!r} has the extent {extent}")
    defined = {s.target for s in kernel.statements}
    for output in kernel.outputs:
        require(output.name in defined, f"output {output.name!r} is defined by no statement")


def _check_statement(
    kernel: Kernel, position: int, buffers: dict[str, tuple[DType, int]], sizes: frozenset[str]
) -> None:
    statement = kernel.statements[position]
    extents = kernel.extents
    for axis in statement.axes:
        require(axis in extents, f"axis {axis!r} has no extent; the kernel's axes are: {', '.join(extents)}")
    require(len(set(statement.axes)) == len(statement.axes), "an axis stands twice on the left side")
    require(statement.target not in {p.name for p in kernel.params}, f"parameter {statement.target!r} is written")
    dtype, rank = buffers[statement.target]
    require(statement.dtype == dtype, f"{statement.target!r} is {dtype}, its value {statement.dtype}")
    require(_rank(statement) == rank, f"{statement.target!r} has {rank} dimensions, got {_rank(statement)}")
    _check_shape(kernel, statement)
    _check_order(kernel, position)
    shapes = [*(size for p in kernel.signature for size in p.type.shape), *extents.values()]
    known = sizes | {s.name for s in symbols(shapes)}
    scope = Scope(frozenset(statement.axes), buffers, known, frozenset(extents))
    scope.check(statement.value)
    if statement.scatter is not None:
        scope.check_index(statement.scatter.index)
        combine = statement.scatter.combine
        require(combine in COMBINES, f"a scatter combines by {', '.join(COMBINES)}, not {combine!r}")
        before = {s.target for s in kernel.statements[:position]} | {p.name for p in kernel.outputs}
        require(statement.target in before, f"{statement.target!r} must be defined before a scatter writes into it")


def _check_shape(kernel: Kernel, statement: Statement) -> None:
    """A statement covers its target: the output's shape, or that of the target's first definition."""
    if statement.scatter is not None:
        return
    output = next((p for p in kernel.outputs if p.name == statement.target), None)
    first = kernel.definition(statement.target) or statement
    shape = output.type.shape if output is not None else tuple(kernel.extents[a] for a in first.axes)
    for axis, size in zip(statement.axes, shape, strict=True):
        extent = kernel.extents[axis]
        fits = not surely_differ(extent, size)
        require(fits, f"axis {axis!r} has the extent {extent}, the dimension of {statement.target!r} the size {size}")


def _check_order(kernel: Kernel, position: int) -> None:
    """Reads are of parameters, of earlier statements, or of earlier points along a scan axis."""
    statement = kernel.statements[position]
    before = {p.name for p in kernel.params} | {s.target for s in kernel.statements[:position]}
    for load in statement.reads:
        if load.buffer in before:
            continue
        source = kernel.definition(load.buffer)
        if source is None:
            raise IRTypeError(f"buffer {load.buffer!r} is read, but is neither a parameter nor defined")
        earlier = _reads_earlier_point(kernel, statement, source, load)
        require(earlier, f"{load.buffer!r} is read before it is defined, and not at an earlier point of a scan axis")


def _reads_earlier_point(kernel: Kernel, statement: Statement, source: Statement, load: Load) -> bool:
    """Whether the load's first scan index that is not the present point is before it."""
    if source.scatter is not None or len(load.index) != len(source.axes):
        return False
    index = dict(zip(source.axes, load.index, strict=True))
    for scan in kernel.scans:
        if scan in index and scan in statement.axes:
            away = distance(index[scan], scan)
            if away != 0:
                return away is not None and away < 0
    return False

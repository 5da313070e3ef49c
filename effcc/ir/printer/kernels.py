"""Kernels as text: the header with parameters, outputs and axes, and one line for each statement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from effcc.ir.dims import show
from effcc.ir.dtypes import DType
from effcc.ir.expr import Axis
from effcc.ir.kernel import Kernel, Param, Statement, span_of_index
from effcc.ir.printer.expressions import show_expression, show_index, show_span


def print_kernel(kernel: Kernel, indent: str = "", locations: bool = True) -> str:
    """The text of a kernel; `locations` adds its location as a comment, which the parser drops."""
    axes = frozenset(kernel.extents)
    header = f"kernel @{kernel.name}({show_params(kernel.params)}) -> ({show_params(kernel.outputs)})"
    if kernel.axes:
        header += " over " + ", ".join(f"{name}={show(extent)}" for name, extent in kernel.axes)
    if kernel.scans:
        header += " scan " + ", ".join(kernel.scans)
    header += show_given(kernel.given_sizes)
    dtypes = {p.name: p.type.dtype for p in kernel.signature}
    recurrent = _read_early(kernel)
    dtypes.update(recurrent)
    lines = [header + " {" + show_location(kernel.location, locations)]
    for statement in kernel.statements:
        lines.append("  " + show_statement(statement, axes, dtypes, recurrent.pop(statement.target, None)))
        dtypes.setdefault(statement.target, statement.dtype)
    return "\n".join(indent + line for line in [*lines, "}"])


def _read_early(kernel: Kernel) -> dict[str, DType]:
    """The intermediates that are read before their definition ends (recurrences): they say their dtype."""
    found: dict[str, DType] = {}
    defined = {p.name for p in kernel.signature}
    dtypes = {s.target: s.dtype for s in reversed(kernel.statements)}
    for statement in kernel.statements:
        early = {load.buffer for load in statement.reads if load.buffer not in defined}
        found.update({name: dtypes[name] for name in early if name in dtypes})
        defined.add(statement.target)
    return found


def show_statement(
    statement: Statement,
    axes: Set[str] = frozenset(),
    dtypes: Mapping[str, DType] | None = None,
    declare: DType | None = None,
) -> str:
    """One statement. The target's dtype, if among `dtypes`, gives constants theirs; `declare` is written out."""
    value = show_expression(statement.value, axes, (dtypes or {}).get(statement.target))
    declared = "" if declare is None else f": {declare.name}"
    if statement.scatter is None:
        return f"{statement.target}[{','.join(statement.axes)}]{declared} = {value}"
    ends = {s.axis: f" in {show_span(s, axes)}" for s in statement.kept_spans}
    over = f" for {', '.join(a + ends.get(a, '') for a in statement.axes)}" if statement.axes else ""
    plain = tuple(Axis(s.axis) if (s := span_of_index(i)) is not None else i for i in statement.scatter.index)
    index = show_index(plain, axes)
    return f"{statement.target}{index}{declared} {statement.scatter.combine}= {value}{over}"


def show_params(params: Iterable[Param]) -> str:
    """`X: f32[4,n], Y: i64[4]`."""
    return ", ".join(f"{p.name}: {p.type}" for p in params)


def show_given(sizes: tuple[str, ...]) -> str:
    """` given s0, s1`; nothing where there are none."""
    return " given " + ", ".join(sizes) if sizes else ""


def show_location(location: str, wanted: bool = True) -> str:
    """A location as a trailing comment on one line; nothing where there is none."""
    return "  # " + " ".join(location.split()) if location and wanted else ""

"""A whole graph as one cascade: every node's index form, with axes made unique and views read through.

After this step nothing knows ops any more; fusion works on statements, their boxes and their accesses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from effcc.errors import noting
from effcc.ir.dims import Dim
from effcc.ir.dtypes import i64
from effcc.ir.expr import Axis, Call, Const, Expr, Load, Reduce, cast, loads, substitute_axes, transform
from effcc.ir.form import FormBuilder
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.kernel import Param, Statement
from effcc.ir.ops import lookup
from effcc.ir.program import Check
from effcc.ir.types import TensorType

LARGEST_CONCAT = 32
"""So many tensors a statement may concatenate: it asks of every point which one it lies in. More are copied, one by
one."""


@dataclass(frozen=True)
class Defined:
    """A statement of the graph-wide cascade, with the node it comes from and the scan axes it runs under."""

    statement: Statement
    node: Node
    scans: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        return self.statement.target


@dataclass(frozen=True)
class Opaque:
    """A node that is no statement: a call that PyTorch runs, or a concatenation of many tensors."""

    node: Node


@dataclass
class Cascade:
    """Statements and opaque nodes in order, the extents of all axes, and the types of everything with a name.

    `checks` says what the run-time checks in the statements guard, by their numbers.
    """

    items: list[Defined | Opaque] = field(default_factory=list)
    extents: dict[str, Dim] = field(default_factory=dict)
    types: dict[str, TensorType] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)


def is_opaque(node: Node, joins: bool = False) -> bool:
    """Whether a node stays whole: it has no index form, or (`joins`) it concatenates too many tensors for one."""
    return lookup(node.op).form is None or (joins and node.op == "concat" and len(node.operands) > LARGEST_CONCAT)


def to_cascade(graph: Graph, joins: bool = False) -> Cascade:
    """The index forms of all nodes, in order. Temporaries of a form get the name of the result they serve."""
    cascade = Cascade()
    for param in graph.params:
        cascade.types[param.name] = param.type
    for number, node in enumerate(graph.nodes):
        for result in node.results:
            cascade.types[result.name] = result.type
        form = lookup(node.op).form
        if form is None or is_opaque(node, joins):
            cascade.items.append(Opaque(node))
            continue
        builder = FormBuilder(
            [_param(v) for v in node.operands],
            [_param(v) for v in node.results],
            node.attrs,
            prefix=f"n{number}_",
            first_check=len(cascade.checks),
        )
        with noting(location=node.location):
            form(builder)
        said = str(node.attrs.get("message", node.op))
        cascade.checks += [Check(number, kind, said, node.location, d) for kind, d in builder.checks]
        cascade.extents.update(builder.extents)
        for statement in builder.statements:
            shape = tuple(builder.extents[a] for a in statement.axes)
            if statement.target not in cascade.types:
                cascade.types[statement.target] = TensorType(statement.dtype, shape)
            scans = tuple(a for a in builder.scans if a in statement.axes)
            cascade.items.append(Defined(statement, node, scans))
    return cascade


def _param(value: Value) -> Param:
    return Param(value.name, value.type.plain())


def squeeze(cascade: Cascade, kept: Collection[str]) -> Cascade:
    """Axes of extent 1 leave every expression, and the statements and types of all targets but those in `kept`.

    They carry nothing, and two of them with different names would hide that two boxes are equal. Scan axes stay: the
    guard that keeps a scan's first step from reading the one before is an expression of the axis; and ragged ones,
    whose span may be empty.
    """
    needed = {a for i in cascade.items if isinstance(i, Defined) for a in i.scans}
    needed |= {span.axis for i in cascade.items if isinstance(i, Defined) for span in i.statement.spans}
    ones = {a for a, e in cascade.extents.items() if e == 1} - needed
    types = dict(cascade.types)
    dropped: dict[str, tuple[int, ...]] = {}
    defined = [i.target for i in cascade.items if isinstance(i, Defined)]
    kept = {*kept, *(t for t, n in Counter(defined).items() if n > 1)}
    for item in cascade.items:
        if isinstance(item, Defined) and item.target not in kept and item.statement.scatter is None:
            positions = tuple(p for p, a in enumerate(item.statement.axes) if a in ones)
            if positions:
                dropped[item.target] = positions
                shape = types[item.target].shape
                rest = tuple(d for p, d in enumerate(shape) if p not in positions)
                types[item.target] = TensorType(types[item.target].dtype, rest)

    items: list[Defined | Opaque] = []
    for item in cascade.items:
        if isinstance(item, Opaque):
            items.append(item)
            continue
        ordered = tuple(a for a in item.scans if a not in ones)
        items.append(Defined(without_ones(item.statement, ones, dropped), item.node, ordered))
    return replace(cascade, items=items, types=types)


def without_ones(s: Statement, ones: Collection[str], dropped: Mapping[str, tuple[int, ...]]) -> Statement:
    """The statement with the axes `ones`, of one point each, at 0, and buffers without their `dropped` dimensions."""

    def one(e: Expr) -> Expr:
        match e:
            case Axis() if e.name in ones:
                return Const(0, i64)
            case Load() if e.buffer in dropped:
                return replace(e, index=tuple(i for p, i in enumerate(e.index) if p not in dropped[e.buffer]))
            case Reduce():
                axes = tuple(a for a in e.axes if a not in ones)
                return replace(e, axes=axes) if axes else cast(e.body, e.dtype)
        return e

    gone = dropped.get(s.target, ()) if s.scatter is None else ()
    return replace(s.transformed(one), axes=tuple(a for p, a in enumerate(s.axes) if p not in gone))


def is_view(item: Defined) -> bool:
    """Whether the statement only renames elements: its value is a load at indices that read no data."""
    s = item.statement
    return isinstance(s.value, Load) and s.scatter is None and not any(loads(i) for i in s.value.index)


def is_padding(item: Defined) -> bool:
    """Whether the statement only renames elements and puts a constant around them: `(0 <= i - 1 ? X[i - 1] : 0)`."""
    match item.statement.value:
        case Call("where", (condition, Load(index=index), Const())) if item.statement.scatter is None:
            return not loads(condition) and not any(loads(i) for i in index)
    return False


def is_pointwise(item: Defined) -> bool:
    """Whether the statement computes each point on its own: no reduction, scatter or scan."""
    s = item.statement
    return not isinstance(s.value, Reduce) and s.scatter is None and not item.scans


def read_through(expr: Expr, definitions: Mapping[str, Statement]) -> Expr:
    """`expr` with every load of a defined target replaced by its definition's value at that index."""

    def inline(e: Expr) -> Expr:
        if isinstance(e, Load) and e.buffer in definitions:
            statement = definitions[e.buffer]
            return substitute_axes(statement.value, dict(zip(statement.axes, e.index, strict=True)))
        return e

    return transform(expr, inline)

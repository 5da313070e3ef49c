"""Kernels as polyhedra: what isl is asked, and what it answers.

Axes are set dimensions and sizes are parameters; what is not affine (an index read from memory, a product of sizes)
becomes a dimension of its own about which nothing is known but what the guards around it say. Two questions are put:

    is every access inside its buffer?      { points of the box, guards hold, index outside }  is empty
    may a cluster run tile by tile?         { writer -> reader of one element : shared axes differ }  is empty
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType

import islpy as isl
import sympy

from effcc.errors import IRTypeError
from effcc.ir.codes import largest_code
from effcc.ir.dims import Dim, dim, show
from effcc.ir.dtypes import boolean, i64
from effcc.ir.expr import (
    Axis,
    Call,
    Const,
    Expr,
    Load,
    Reduce,
    Size,
    both,
    children,
    compare,
    integer,
    rebuild,
    walk,
    where,
)  # fmt: skip
from effcc.ir.form import constant
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.scalars import is_check
from effcc.passes.fusion.cascade import read_through

COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "=", "ne": "!="}
NEGATED = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt", "eq": "ne", "ne": "eq"}


@dataclass
class Space:
    """Names and constraints collected while expressions become isl text."""

    parameters: dict[str, str] = field(default_factory=dict)
    dimensions: dict[str, None] = field(default_factory=dict)
    constraints: list[str] = field(default_factory=list)
    opaque: dict[Expr, str] = field(default_factory=dict)

    def size(self, value: Dim) -> str:
        """A size as isl text; one that is not affine becomes a parameter of its own."""
        if isinstance(value, int):
            return str(value)
        for s in sorted(value.free_symbols, key=str):
            self.parameters.setdefault(str(s), f"{s} >= 0")
        if (
            value.is_polynomial()
            and sympy.Poly(value).total_degree() <= 1
            and all(c.is_Integer for c in sympy.Poly(value).coeffs())
        ):
            return f"({show(value)})"
        name = f"size{abs(hash(show(value))) % 10**8}"
        self.parameters.setdefault(name, f"{name} >= 0" if value.is_nonnegative else f"{name} = {name}")
        return name

    def axis(self, name: str) -> str:
        text = f"a_{name.replace('.', '_')}"
        self.dimensions.setdefault(text)
        return text

    def unknown(self, e: Expr) -> str:
        """A dimension for a value that is not affine; the same value is the same dimension."""
        if e not in self.opaque:
            self.opaque[e] = f"u{len(self.opaque)}"
            self.dimensions.setdefault(self.opaque[e])
        return self.opaque[e]

    def value(self, e: Expr) -> str:
        """An integer expression as isl text."""
        match e:
            case Axis():
                return self.axis(e.name)
            case Const(value=v):
                return str(int(v))
            case Size():
                return self.size(e.value)
            case Call("cast", (inner,)) if inner.dtype.is_integer and e.dtype == i64:
                return self.value(inner)
            case Call("add" | "sub", (a, b)):
                sign = "+" if e.function == "add" else "-"
                return f"({self.value(a)} {sign} {self.value(b)})"
            case Call("neg", (a,)):
                return f"(- {self.value(a)})"
            case Call("mul", (a, b)):
                for factor, rest in ((a, b), (b, a)):
                    if isinstance(factor, Const):
                        return f"({int(factor.value)} * {self.value(rest)})"
            case Call("floordiv", (a, Const(value=c))) if c > 0:
                return f"floor({self.value(a)} / {int(c)})"
            case Call("mod", (a, Const(value=c))) if c > 0:
                text = self.value(a)
                return f"({text} - {int(c)} * floor({text} / {int(c)}))"
            case Call("maximum" | "minimum", (a, b)):
                return self._either(e, a, b)
            case Call("where", (condition, a, b)):
                return self._branches(e, condition, a, b)
            case Call("divisor", (Const(value=v), _)) if v != 0:
                return str(int(v))
        most = largest_code(e)
        return self.unknown(e) if most is None else self._code(e, most)

    def _either(self, e: Call, a: Expr, b: Expr) -> str:
        known = e in self.opaque
        name = self.unknown(e)
        if not known:
            left, right = self.value(a), self.value(b)
            sign = ">=" if e.function == "maximum" else "<="
            self.constraints.append(
                f"({name} {sign} {left} and {name} {sign} {right} and ({name} = {left} or {name} = {right}))"
            )
        return name

    def _code(self, e: Expr, most: int) -> str:
        """Some bits of a number, put together from one plane or several."""
        known = e in self.opaque
        name = self.unknown(e)
        if not known:
            self.constraints.append(f"0 <= {name} <= {most}")
        return name

    def _branches(self, e: Call, condition: Expr, a: Expr, b: Expr) -> str:
        known = e in self.opaque
        name = self.unknown(e)
        if not known:
            yes, no = self.condition(condition), self.condition(condition, negate=True)
            left, right = self.value(a), self.value(b)
            self.constraints.append(f"(({yes} and {name} = {left}) or ({no} and {name} = {right}))")
        return name

    def condition(self, e: Expr, negate: bool = False) -> str:
        """A condition as isl text; `true` where nothing is known of it."""
        match e:
            case Const(value=v):
                return "true" if bool(v) != negate else "false"
            case Call("and" | "or", (a, b)):
                word = "and" if (e.function == "and") != negate else "or"
                return f"({self.condition(a, negate)} {word} {self.condition(b, negate)})"
            case Call("not", (a,)):
                return self.condition(a, not negate)
            case Call("in_range", (i, size, _)):
                index, end = self.value(i), self.value(size)
                return f"({index} < 0 or {index} >= {end})" if negate else f"(0 <= {index} and {index} < {end})"
            case Call(function, (a, b)) if function in COMPARISONS and not a.dtype.is_float and a.dtype != boolean:
                operator = COMPARISONS[NEGATED[function] if negate else function]
                return f"({self.value(a)} {operator} {self.value(b)})"
        return "true"

    def box(self, axes: Mapping[str, Dim]) -> None:
        for name, extent in axes.items():
            self.constraints.append(f"0 <= {self.axis(name)} < {self.size(extent)}")

    def parameter_text(self) -> str:
        return f"[{', '.join(self.parameters)}] -> "

    def where(self, *more: str) -> str:
        return " and ".join([*self.parameters.values(), *self.constraints, *more]) or "true"


@lru_cache(maxsize=65536)
def _is_empty(text: str) -> bool:
    return bool(isl.Set(text).is_empty())


# In bounds ------------------------------------------------------------------------------------------------------------


Ranges = Mapping[str, tuple[int, int | None]]
NO_RANGES: Ranges = MappingProxyType({})


def guard_accesses(kernel: Kernel, ranges: Ranges = NO_RANGES) -> Kernel:
    """The kernel with every load that cannot be proved to stay inside its buffer guarded: outside, it gives 0; and
    without the run-time checks that can be proved to hold.

    `ranges` bounds size symbols. Raises IRTypeError for a store that cannot be proved to stay inside.
    """
    shapes = _shapes(kernel)
    statements = []
    targets = [s.target for s in kernel.statements]
    again = {t for t in targets if targets.count(t) > 1}
    indices: dict[str, Statement] = {}
    for s in kernel.statements:
        inner = {a for e in _reductions(s) for a in e.axes}
        box = {a: kernel.extents[a] for a in (*s.axes, *inner)}
        s = _without_proved_checks(s, indices, box, ranges)
        if s.dtype == i64 and s.scatter is None and s.reduction is None and s.target not in again:
            indices[s.target] = replace(s, value=read_through(s.value, indices))
        statements.append(replace(s, value=_guarded(s.value, shapes, box, (), ranges)))
        if s.scatter is not None and not _inside(s.scatter.index, shapes[s.target], box, (), ranges, least=-1):
            raise IRTypeError(
                f"kernel {kernel.name!r}: cannot prove that the scatter into {s.target!r} stays inside it"
            )
    return kernel.with_statements(tuple(statements))


def _without_proved_checks(
    s: Statement, indices: Mapping[str, Statement], box: Mapping[str, Dim], ranges: Ranges
) -> Statement:
    """The statement without checks that hold: of an index that is no data, or that the model clamps or wraps itself,
    of a divisor that is a number. `indices` are the integers that the kernel has computed before."""

    def one(e: Expr) -> Expr:
        match e:
            case Call("in_range", (index, size, _)):
                end = size.value if isinstance(size, Const | Size) else 0
                known = read_through(index, indices)
                proved = not isinstance(known, Load) and _inside((known,), (dim(end),), box, (), ranges)
                return Const(True, boolean) if proved else e
            case Call("and", (Const(value=True), b)):
                return b
            case Call("and", (a, Const(value=True))):
                return a
            case Call("where", (Const(value=True), a, _)):
                return a
            case Call("divisor", (Const(value=v) as divisor, _)) if v != 0:
                return divisor
            case Call("holds", (Const(value=True) as condition, _)):
                return condition
        return e

    checked = any(is_check(part) for e in s.expressions for part in walk(e))
    return s.transformed(one) if checked else s


def _guarded(
    e: Expr,
    shapes: Mapping[str, tuple[Dim, ...]],
    box: Mapping[str, Dim],
    conditions: tuple[tuple[Expr, bool], ...],
    ranges: Ranges,
) -> Expr:
    if isinstance(e, Call) and e.function == "where":
        c, a, b = e.operands
        branches = (
            _guarded(c, shapes, box, conditions, ranges),
            _guarded(a, shapes, box, (*conditions, (c, False)), ranges),
            _guarded(b, shapes, box, (*conditions, (c, True)), ranges),
        )
        return rebuild(e, branches)
    parts = tuple(_guarded(p, shapes, box, conditions, ranges) for p in children(e))
    made = rebuild(e, parts) if parts else e
    if isinstance(made, Load):
        pairs = tuple(zip(made.index, shapes[made.buffer], strict=True))
        hard = [(i, size) for i, size in pairs if not _inside((i,), (size,), box, conditions, ranges)]
        bounds = [c for i, n in hard for c in (compare("ge", i, integer(0)), compare("lt", i, integer(n)))]
        return where(both(*bounds), made, constant(0, made)) if bounds else made
    return made


def _loads(e: Expr, conditions: tuple[tuple[Expr, bool], ...]) -> Iterator[tuple[Load, tuple[tuple[Expr, bool], ...]]]:
    if isinstance(e, Load):
        yield e, conditions
    if isinstance(e, Call) and e.function == "where":
        c, a, b = e.operands
        yield from _loads(c, conditions)
        yield from _loads(a, (*conditions, (c, False)))
        yield from _loads(b, (*conditions, (c, True)))
        return
    for part in children(e):
        yield from _loads(part, conditions)


def _inside(
    index: tuple[Expr, ...],
    shape: tuple[Dim, ...],
    box: Mapping[str, Dim],
    conditions: tuple[tuple[Expr, bool], ...],
    ranges: Ranges = NO_RANGES,
    least: int = 0,
) -> bool:
    hard = [(i, d) for i, d in zip(index, shape, strict=True) if not _plain(i, d, box)]
    if not hard:
        return True
    space = Space()
    outside = " or ".join(f"{space.value(i)} < {least} or {space.value(i)} >= {space.size(d)}" for i, d in hard)
    held = [space.condition(c, negate) for c, negate in conditions]
    space.box(box)
    held += [
        f"{size} >= {low}" + ("" if high is None else f" and {size} <= {high}")
        for size, (low, high) in ranges.items()
        if size in space.parameters
    ]
    text = f"{space.parameter_text()}{{ [{', '.join(space.dimensions)}] : {space.where(*held, f'({outside})')} }}"
    return _is_empty(text)


def _plain(index: Expr, size: Dim, box: Mapping[str, Dim]) -> bool:
    """The common cases, without isl: an axis no longer than the dimension, a constant inside it; and codes, whose bits
    are too few to leave it."""
    if isinstance(index, Axis) and index.name in box:
        extent = box[index.name]
        return extent == size or (isinstance(extent, int) and isinstance(size, int) and extent <= size)
    if isinstance(index, Const):
        return isinstance(size, int) and 0 <= int(index.value) < size
    most = largest_code(index)
    return most is not None and isinstance(size, int) and most < size


# Legality -------------------------------------------------------------------------------------------------------------


def check_dependences(kernel: Kernel, shared: tuple[str, ...]) -> None:
    """Prove that tiles of the shared axes are independent and that every read comes after its write.

    Raises IRTypeError naming the statement where a value flows from one point of a shared axis to another, or is read
    before it is written.
    """
    written: dict[str, list[Statement]] = {}
    for s in kernel.statements:
        for load in s.reads:
            for writer in written.get(load.buffer, []):
                if writer.scatter is None:
                    _check_flow(kernel, writer, s, load, shared)
            later = [d for d in kernel.statements if d.target == load.buffer]
            if later and load.buffer not in written and not _past(kernel, load, later[0]):
                raise IRTypeError(f"kernel {kernel.name!r}: {s.target!r} reads {load.buffer!r} before it is written")
        written.setdefault(s.target, []).append(s)


def _check_flow(kernel: Kernel, writer: Statement, reader: Statement, load: Load, shared: tuple[str, ...]) -> None:
    hard = [
        (axis, index)
        for axis, index in zip(writer.axes, load.index, strict=True)
        if axis in shared and index != Axis(axis)
    ]
    if not hard and all(a in reader.axes for a in shared):
        return
    space = Space()
    inner = {a for e in _reductions(reader) for a in e.axes}
    space.box({a: kernel.extents[a] for a in (*reader.axes, *inner)})
    differ = " or ".join(f"{space.value(index)} != {space.axis(axis)}" for axis, index in hard) or "true"
    text = f"{space.parameter_text()}{{ [{', '.join(space.dimensions)}] : {space.where(f'({differ})')} }}"
    if not _is_empty(text):
        raise IRTypeError(
            f"kernel {kernel.name!r}: {reader.target!r} reads {load.buffer!r} at another point of the parallel axes "
            f"{', '.join(shared)} than its own; they cannot run in one kernel"
        )


def _past(kernel: Kernel, load: Load, definition: Statement) -> bool:
    """Whether a load of something defined later (or by the statement itself) reads an earlier point of a scan axis."""
    for axis, index in zip(definition.axes, load.index, strict=True):
        if axis in kernel.scans and isinstance(index, Call) and index.function == "add":
            a, b = index.operands
            if a == Axis(axis) and isinstance(b, Const) and b.value < 0:
                return True
    return False


def _shapes(kernel: Kernel) -> dict[str, tuple[Dim, ...]]:
    found = {s.target: tuple(kernel.extents[a] for a in s.axes) for s in reversed(kernel.statements)}
    found.update({p.name: p.type.shape for p in (*kernel.params, *kernel.outputs)})
    return found


def _reductions(s: Statement) -> list[Reduce]:
    return [e for e in walk(s.value) if isinstance(e, Reduce)]

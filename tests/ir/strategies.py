"""Hypothesis strategies for valid expressions, kernels, loop nests, graphs and programs, for tests that want them.

Everything drawn verifies, and is canonical: float constants of floating dtypes, integers of integer ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from effcc.ir import dtypes
from effcc.ir.dims import Dim, symbol, symbols
from effcc.ir.dtypes import DType, boolean, f32, i64
from effcc.ir.encoding import Encoding, Scheme
from effcc.ir.expr import Axis, Call, Const, Expr, Load, Reduce, Size
from effcc.ir.graph import Attribute, Graph, GraphBuilder, Value
from effcc.ir.kernel import Kernel, Param, Scatter, Statement
from effcc.ir.loops import Alloc, For, If, LoopNest, Stmt, Tile, TileAxis
from effcc.ir.parser import parse_encoding
from effcc.ir.program import Branch, Buffer, Extern, Launch, Loop, Program
from effcc.ir.types import TensorType

S0 = symbol("s0")
FLOATS = [dtypes.f32, dtypes.f64, dtypes.f16, dtypes.bf16]
INTEGERS = [dtypes.i64, dtypes.i32, dtypes.u8]
UNARY = ["exp", "tanh", "neg", "abs", "sqrt", "erf"]
BINARY = ["add", "sub", "mul", "div", "maximum", "minimum", "pow", "mod"]
INTEGER_BINARY = ["add", "sub", "mul", "maximum", "floordiv", "mod", "and", "or", "xor"]
COMPARISONS = ["eq", "ne", "lt", "le", "gt", "ge"]
NAMES = st.from_regex(r"[A-SU-Z][a-z0-9_]{0,3}(\.[0-9])?", fullmatch=True)


@dataclass(frozen=True)
class Place:
    """What an expression may use: open axes, buffers (dtype and rank), axes that reductions may bind, size symbols."""

    axes: tuple[str, ...]
    buffers: Mapping[str, tuple[DType, int]]
    bindable: tuple[str, ...] = ()
    sizes: tuple[Dim, ...] = ()


def constants(dtype: DType) -> st.SearchStrategy[Const]:
    """Constants of a dtype, special values among them."""
    if dtype == boolean:
        return st.booleans().map(lambda v: Const(v, boolean))
    if dtype.is_float:
        special = st.sampled_from([0.0, -0.0, 1.0, -1.5, 0.1, math.inf, -math.inf, math.nan, 5e-324, 1e30, -1e-05])
        return (special | st.floats()).map(lambda v: Const(v, dtype))
    bits = dtype.bits - (dtype.kind == "int")
    low = -(2**bits) if dtype.kind == "int" else 0
    return (st.integers(0, 9) | st.integers(low, 2**bits - 1)).map(lambda v: Const(v, dtype))


@st.composite
def expressions(draw: st.DrawFn, dtype: DType, place: Place, depth: int = 3) -> Expr:
    """A well-typed expression of `dtype`."""
    choices: list[Callable[[], Expr]] = [lambda: draw(constants(dtype))]

    def inner(d: DType) -> Expr:
        return draw(expressions(d, place, depth - 1))

    names = [name for name, (d, _) in place.buffers.items() if d == dtype]
    if names:
        choices.append(lambda: draw(loads(draw(st.sampled_from(names)), place, depth - 1)))
    if dtype == i64 and place.axes:
        choices.append(lambda: Axis(draw(st.sampled_from(place.axes))))
    if dtype == i64 and place.sizes:
        choices.append(lambda: Size(draw(st.sampled_from(place.sizes))))
    if depth > 0:
        choices.append(lambda: Call("where", (inner(boolean), inner(dtype), inner(dtype)), dtype))
        choices.append(lambda: Call("cast", (inner(draw(st.sampled_from([*FLOATS, i64]))),), dtype))
        choices += _operations(draw, dtype, inner)
        bindable = [a for a in place.bindable if a not in place.axes]
        if bindable and dtype != boolean:
            choices.append(lambda: draw(reductions(dtype, place, depth - 1)))
    return draw(st.sampled_from(choices))()


def _operations(draw: st.DrawFn, dtype: DType, inner: Callable[[DType], Expr]) -> list[Callable[[], Expr]]:
    def of(names: list[str], arity: int, operand: DType) -> Callable[[], Expr]:
        return lambda: Call(draw(st.sampled_from(names)), tuple(inner(operand) for _ in range(arity)), dtype)

    if dtype == boolean:
        operand = draw(st.sampled_from([f32, i64, dtypes.f16, boolean]))
        return [of(COMPARISONS, 2, operand), of(["and", "or", "xor"], 2, boolean), of(["not"], 1, boolean)]
    if dtype.is_float:
        return [of(UNARY, 1, dtype), of(BINARY, 2, dtype)]
    return [of(["neg", "abs"], 1, dtype), of(INTEGER_BINARY, 2, dtype)]


@st.composite
def loads(draw: st.DrawFn, name: str, place: Place, depth: int) -> Load:
    dtype, rank = place.buffers[name]
    plain = Place(place.axes, {}, (), place.sizes) if depth <= 0 else place
    return Load(name, tuple(draw(expressions(i64, plain, min(depth - 1, 1))) for _ in range(rank)), dtype)


@st.composite
def reductions(draw: st.DrawFn, dtype: DType, place: Place, depth: int) -> Reduce:
    bindable = st.sampled_from([a for a in place.bindable if a not in place.axes])
    axes = tuple(draw(st.lists(bindable, min_size=1, unique=True)))
    inside = Place((*place.axes, *axes), place.buffers, place.bindable, place.sizes)
    bodies = [d for d in [dtype, dtypes.f16, i64] if d.is_float <= dtype.is_float]
    body = draw(expressions(draw(st.sampled_from(bodies)), inside, depth))
    return Reduce(draw(st.sampled_from(["sum", "prod", "max", "min"])), axes, body, dtype)


def shapes(sizes: Sequence[Dim], most: int = 3) -> st.SearchStrategy[tuple[Dim, ...]]:
    return st.lists(st.sampled_from(sizes), max_size=most).map(tuple)


def encodings() -> st.SearchStrategy[Encoding]:
    """Notation only: schemes with arguments of every kind, composed and added."""
    argument = st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5) | st.booleans()
    option = st.tuples(st.sampled_from(["per", "group", "axis"]), argument)
    options = st.lists(option, max_size=2, unique_by=lambda o: o[0]).map(tuple)
    names = st.sampled_from(["int8", "block", "nm", "low_rank"])
    scheme = st.builds(Scheme, names, st.lists(argument, max_size=2).map(tuple), options)
    chain = st.lists(scheme, min_size=1, max_size=2).map(tuple)
    return st.builds(Encoding, st.lists(chain, min_size=1, max_size=2).map(tuple))


@st.composite
def types(draw: st.DrawFn, dtype: DType | None = None) -> TensorType:
    """Types with symbolic sizes, strides and encodings."""
    shape = draw(shapes([1, 4, S0, 2 * S0 + 1, S0 // 2]))
    strides = draw(st.none() | st.tuples(*(st.sampled_from([1, 4, S0]) for _ in shape)))
    element = dtype or draw(st.sampled_from(list(dtypes.DTYPES.values())))
    return TensorType(element, shape, strides, draw(st.none() | encodings()))


@st.composite
def kernels(draw: st.DrawFn) -> Kernel:
    """Kernels that verify: pointwise statements, reductions, scatters, a recurrence; they need not stay in bounds."""
    sizes: list[Dim] = [1, 2, 5, S0]
    extents = {name: draw(st.sampled_from(sizes)) for name in ["i", "j", "k", "t"]}
    bound = draw(st.lists(st.sampled_from(["i", "j", "k", "t"]), max_size=3, unique=True))
    anchor = Param("X", TensorType(f32, (S0,)))
    extra = draw(st.lists(st.tuples(NAMES, types()), max_size=2, unique_by=lambda p: p[0]))
    params = (anchor, *(Param(name, type) for name, type in extra if name not in ("X", "Out", "H")))
    buffers = {p.name: (p.type.dtype, p.type.rank) for p in params}
    statements: list[Statement] = []
    for number in range(draw(st.integers(0, 3))):
        axes = tuple(draw(st.lists(st.sampled_from(list(extents)), max_size=3, unique=True)))
        place = Place(axes, dict(buffers), tuple(extents), (S0, 2 * S0 + 1))
        value = draw(expressions(draw(st.sampled_from([f32, dtypes.f16, i64, boolean])), place))
        statements.append(Statement(f"T{number}", axes, value))
        buffers[f"T{number}"] = (value.dtype, len(axes))
    scans: tuple[str, ...] = ()
    if draw(st.booleans()):
        scans = ("t",)
        statements.append(_recurrence())
        buffers["H"] = (f32, 1)
    place = Place(("i", "j"), dict(buffers), tuple(a for a in bound if a not in ("i", "j")), (S0,))
    out = Param("Out", TensorType(f32, (extents["i"], extents["j"])))
    statements.append(Statement("Out", ("i", "j"), draw(expressions(f32, place))))
    if draw(st.booleans()):
        at = Scatter((Axis("j"), Const(0, i64)), draw(st.sampled_from(["set", "add", "max"])))
        statements.append(Statement("Out", ("j",), draw(expressions(f32, Place(("j",), dict(buffers)))), at))
    return Kernel("k", params, (out,), tuple(extents.items()), tuple(statements), scans)


def _recurrence() -> Statement:
    """H[t] = where(t > 0, H[t - 1], 0.0) + 1.0"""
    t = Axis("t")
    before = Load("H", (Call("add", (t, Const(-1, i64)), i64),), f32)
    start = Call("where", (Call("gt", (t, Const(0, i64)), boolean), before, Const(0.0, f32)), f32)
    return Statement("H", ("t",), Call("add", (start, Const(1.0, f32)), f32))


@st.composite
def loop_nests(draw: st.DrawFn) -> LoopNest:
    """Loop nests that verify: loops, branches, local buffers and tiles."""
    params = (Param("X", TensorType(f32, (S0, 4))),)
    outputs = (Param("Y", TensorType(f32, (S0,))),)
    buffers = {"X": (f32, 2), "Y": (f32, 1)}
    body = draw(_blocks((), buffers, {"Y": 1}, 2))
    return LoopNest("nest", params, outputs, body, tuple(draw(st.lists(st.text(max_size=20), max_size=2))))


@st.composite
def _blocks(
    draw: st.DrawFn,
    axes: tuple[str, ...],
    buffers: Mapping[str, tuple[DType, int]],
    writable: Mapping[str, int],
    depth: int,
) -> tuple[Stmt, ...]:
    buffers, writable = dict(buffers), dict(writable)
    body: list[Stmt] = []
    for number in range(draw(st.integers(1, 3))):
        place = Place(axes, buffers, (), (S0,))
        kind = draw(st.sampled_from(["tile", "alloc", "for", "if"] if depth else ["tile", "alloc"]))
        if kind == "alloc":
            name = f"local{depth}_{number}"
            body.append(Alloc(name, f32, (4,), "local"))
            buffers[name], writable[name] = (f32, 1), 1
        elif kind == "for":
            start, stop = (draw(expressions(i64, place, 1)) for _ in range(2))
            axis = f"x{depth}"
            inside = draw(_blocks((*axes, axis), buffers, writable, depth - 1))
            kinds = st.sampled_from(["serial", "parallel"])
            body.append(For(axis, start, stop, draw(st.integers(1, 8)), draw(kinds), inside))
        elif kind == "if":
            orelse = draw(st.just(()) | _blocks(axes, buffers, writable, depth - 1))
            inside = draw(_blocks(axes, buffers, writable, depth - 1))
            body.append(If(draw(expressions(boolean, place, 2)), inside, orelse))
        else:
            body.append(draw(_tiles(place, writable)))
    return tuple(body)


@st.composite
def _tiles(draw: st.DrawFn, place: Place, writable: Mapping[str, int]) -> Tile:
    kind, limit = st.sampled_from(["lanes", "unroll", "loop"]), st.none() | expressions(i64, place, 1)
    axes = tuple(
        TileAxis(name, draw(st.integers(1, 8)), draw(kind), draw(limit))
        for name in draw(st.lists(st.sampled_from(["m", "n"]), max_size=2, unique=True))
    )
    inside = Place((*place.axes, *(a.name for a in axes)), place.buffers, (), place.sizes)
    combine = draw(st.sampled_from(["add", "maximum"])) if axes else "set"
    buffer = draw(st.sampled_from(sorted(writable)))
    index = tuple(draw(expressions(i64, inside, 1)) for _ in range(writable[buffer]))
    return Tile(axes, buffer, index, combine, draw(expressions(f32, inside)))


def attributes() -> st.SearchStrategy[Attribute]:
    """Attribute values of every kind."""
    scalar = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | encodings()
        | st.sampled_from(list(dtypes.DTYPES.values())) | st.sampled_from([S0, 2 * S0 + 1, S0**2])
    )  # fmt: skip
    return st.recursive(scalar, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6)


@st.composite
def graphs(draw: st.DrawFn, most: int = 6, regions: bool = True) -> Graph:
    """Graphs from the op table's type rules: pointwise ops, casts, reductions, views, a branch, updates."""
    b = GraphBuilder("g")
    shape = draw(shapes([1, 3, S0]))
    values = [b.param("x", TensorType(f32, shape)), b.param("s", TensorType(f32, (S0,)))]
    stored = draw(st.sampled_from([None, "dense", "int8", 'int8(per="tensor")', "block(4,1)", "block(4,1) . int8"]))
    encoding = None if stored is None else parse_encoding(stored)
    values.append(b.param("w.0", TensorType(f32, shape, None, encoding), weight=True))
    b.ranges["s0"] = (1, draw(st.none() | st.integers(1, 512)))
    for _ in range(draw(st.integers(0, most))):
        b.location = draw(st.sampled_from(["", "model.py:3"]))
        values.append(_grow(draw, b, values))
    if regions and draw(st.booleans()):
        values.append(_branch(draw, b, values[0]))
    outputs = tuple(draw(st.lists(st.sampled_from(values), min_size=1, max_size=2)))
    same = [v for v in values if v.type.dtype == f32 and v.type.shape == shape]
    updates = ((values[0], draw(st.sampled_from(same))),) if draw(st.booleans()) else ()
    return b.build(outputs, updates)


def _grow(draw: st.DrawFn, b: GraphBuilder, values: list[Value]) -> Value:
    x = draw(st.sampled_from(values))
    alike = [v for v in values if v.type.dtype == x.type.dtype and v.type.shape == x.type.shape]
    choices: list[Callable[[], Value]] = [
        lambda: b.emit("cast", x, dtype=draw(st.sampled_from([f32, dtypes.f16, i64]))),
        lambda: b.emit("add", x, draw(st.sampled_from(alike))),
        lambda: b.emit("reshape", x, shape=(*x.type.shape, 1)),
        lambda: b.emit("transpose", x, perm=tuple(reversed(range(x.type.rank)))),
    ]
    if x.type.dtype.is_float:
        choices.append(lambda: b.emit(draw(st.sampled_from(["exp", "relu", "gelu"])), x))
        choices.append(lambda: b.emit("max", x, axes=tuple(range(draw(st.integers(0, x.type.rank)))), keepdim=True))
    return draw(st.sampled_from(choices))()


def _branch(draw: st.DrawFn, b: GraphBuilder, x: Value) -> Value:
    def region(name: str, op: str) -> Graph:
        inside = GraphBuilder(name)
        p = inside.param("p", x.type)
        return inside.build((inside.emit(op, p),))

    condition = b.emit("constant", value=draw(st.booleans()), dtype=boolean, shape=())
    return b.node("cond", condition, x, regions=(region("yes", "exp"), region("no", "neg"))).result


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Programs that verify: a kernel, launches, control flow, an extern call with attributes of every kind, one with
    regions."""
    kernel = draw(kernels())
    spaces = [(p, "input") for p in kernel.params] + [(p, "output") for p in kernel.outputs]
    buffers = [Buffer(f"b.{p.name}", p.type, space, draw(st.none() | st.integers(0, 4096))) for p, space in spaces]
    buffers.append(Buffer("alias", buffers[-1].type, "arena", None, buffers[-1].name))
    inputs = tuple(f"b.{p.name}" for p in kernel.params)
    attrs = draw(st.dictionaries(st.sampled_from(["a", "dim", "value"]), attributes(), max_size=3))
    extern = Extern("aten::sort.stable", inputs[:1], ("alias",), attrs, draw(st.text(max_size=8)))
    branch = Extern("cond", inputs[:1], ("alias",), {}, "control flow", regions=(draw(graphs(3)), draw(graphs(3))))
    launch = Launch("k", inputs, ("b.Out",))
    buffers.append(Buffer("flag", TensorType(boolean, ()), "input"))
    either = Branch("flag", (launch,), draw(st.sampled_from([(), (Loop("flag", (), (launch, extern)),)])))
    loop = Loop("flag", draw(st.sampled_from([(), (launch,), (either,)])), (either,))
    kernel_sizes = symbols([d for p in kernel.signature for d in p.type.sizes] + list(kernel.extents.values()))
    prepare = (launch,) if not kernel_sizes and not kernel.given_sizes and draw(st.booleans()) else ()
    updates = ((inputs[0], inputs[0]),) if draw(st.booleans()) else ()
    return Program(
        "p",
        tuple(buffers),
        inputs,
        ("b.Out",),
        {"k": kernel},
        (launch, extern, branch, either, loop),
        prepare,
        updates,
        {"s0": (1, 64)},
    )

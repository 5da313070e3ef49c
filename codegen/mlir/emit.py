"""A graph as linalg on tensors: one `linalg.generic` for every statement of every node's index form.

Loads at plain axes become operands with an indexing map, which is what other compilers fuse and tile by; any other load
(shifted, guarded, data-dependent) is a `tensor.extract` in the region, under `scf.if` where a `where` guards it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from effcc.codegen.mlir.spelling import BITS, TYPES, conversion, spelling
from effcc.errors import EncodingError, UnsupportedError
from effcc.ir.dims import Shape
from effcc.ir.dtypes import DType, boolean
from effcc.ir.expr import Axis, Call, Const, Expr, Load, Reduce, Size, both, compare, integer, loads, walk
from effcc.ir.form import FormBuilder
from effcc.ir.graph import Graph, Node
from effcc.ir.kernel import Param, Statement
from effcc.ir.ops import lookup
from effcc.ir.scalars import reduction


def emit_graph(graph: Graph) -> str:
    """The MLIR module of a graph: `func.func @main` from its parameters to its results (outputs, then updates' values).

    Raises UnsupportedError for sizes that are not constants, for ops without an index form, or whose form scans or
    scatters, and for stored weights that are sums of several.
    """
    return _Emitter(graph).run()


def mlir_type(dtype: DType, shape: Shape) -> str:
    """`tensor<4x8xf32>`. Raises UnsupportedError where a size is not a constant."""
    for size in shape:
        if not isinstance(size, int):
            raise UnsupportedError(f"MLIR: the size {size} is not a constant; export the model with fixed sizes")
    return "tensor<" + "".join(f"{d}x" for d in shape) + TYPES[dtype.name] + ">"


@dataclass
class _Tensor:
    name: str
    dtype: DType
    shape: tuple[int, ...]

    @property
    def type(self) -> str:
        return mlir_type(self.dtype, self.shape)


@dataclass
class _Emitter:
    graph: Graph
    lines: list[str] = field(default_factory=list)
    tensors: dict[str, _Tensor] = field(default_factory=dict)
    counter: int = 0

    def run(self) -> str:
        params = []
        for p in self.graph.params:
            tensor = self._tensor(p.name, p.type.dtype, p.type.shape)
            params.append(f"{tensor.name}: {tensor.type}")
        for node in self.graph.nodes:
            self._node(node)
        results = [self.tensors[v.name] for v in self.graph.results]
        types = ", ".join(t.type for t in results)
        names = ", ".join(t.name for t in results)
        head = f"func.func @main({', '.join(params)}) -> ({types}) attributes {{llvm.emit_c_interface}} {{"
        return "\n".join([head, *(f"  {line}" for line in self.lines), f"  return {names} : {types}", "}", ""])

    def _fresh(self, base: str = "v") -> str:
        self.counter += 1
        return f"%{base}{self.counter}"

    def _tensor(self, name: str, dtype: DType, shape: Shape) -> _Tensor:
        mlir_type(dtype, shape)
        made = _Tensor(self._fresh("t"), dtype, tuple(int(d) for d in shape))
        self.tensors[name] = made
        return made

    def _node(self, node: Node) -> None:
        form = lookup(node.op).form
        if form is None:
            raise UnsupportedError(f"MLIR: {node.op!r} has no index form ({node.location or 'no location'})")
        builder = FormBuilder(
            [Param(v.name, v.type.plain()) for v in node.operands],
            [Param(v.name, v.type.plain()) for v in node.results],
            node.attrs,
        )
        try:
            form(builder)
        except EncodingError as error:
            raise UnsupportedError(f"MLIR: {error} ({node.location or 'no location'})") from None
        if builder.scans or any(s.scatter is not None or s.spans for s in builder.statements):
            said = "scans or scatters, or has a ragged axis"
            raise UnsupportedError(f"MLIR: {node.op!r} {said}, which linalg.generic does not express")
        if node.location:
            self.lines.append(f"// {node.op}: {node.location}")
        for s in builder.statements:
            self._statement(s, builder)

    def _statement(self, s: Statement, builder: FormBuilder) -> None:
        reduce = s.value if isinstance(s.value, Reduce) else None
        body = s.value if reduce is None else reduce.body
        axes = (*s.axes, *(reduce.axes if reduce is not None else ()))
        extents = {a: builder.extents[a] for a in axes}
        direct = self._direct(body, extents)
        out = _Tensor("", s.dtype, tuple(int(extents[a]) for a in s.axes))
        start = self._fresh("e")
        self.lines.append(f"{start} = tensor.empty() : {out.type}")
        if reduce is not None:
            identity = self._fresh("c")
            value = reduction(reduce.operator).identity(s.dtype)
            filled = self._fresh("f")
            self.lines.append(f"{identity} = {_constant(value, s.dtype)}")
            source = f"ins({identity} : {TYPES[s.dtype.name]})"
            self.lines.append(f"{filled} = linalg.fill {source} outs({start} : {out.type}) -> {out.type}")
            start = filled
        operands = [(self.tensors[x.buffer], tuple(i.name for i in x.index)) for x in direct]  # type: ignore[union-attr]
        covered = {a for _, index in operands for a in index} | set(s.axes)
        missing = [a for a in axes if a not in covered]
        if missing:
            # Axes that no operand has: a tensor of that shape, of which nothing is read, gives their extents.
            shape = _Tensor(self._fresh("s"), boolean, tuple(int(extents[a]) for a in missing))
            self.lines.append(f"{shape.name} = tensor.empty() : {shape.type}")
            operands.append((shape, tuple(missing)))
        region = _Region(self, axes, {x: f"%in{n}" for n, x in enumerate(direct)})
        result = region.value(body)
        if reduce is not None:
            result = region.operate(reduction(reduce.operator).combine, s.dtype, ["%out", result])
        region.lines.append(f"linalg.yield {result} : {TYPES[s.dtype.name]}")
        self._generic(s, axes, operands, start, out, region)

    def _generic(
        self,
        s: Statement,
        axes: Sequence[str],
        operands: Sequence[tuple[_Tensor, tuple[str, ...]]],
        start: str,
        out: _Tensor,
        region: _Region,
    ) -> None:
        dims = {a: f"d{n}" for n, a in enumerate(axes)}
        space = ", ".join(dims.values())
        maps = [
            f"affine_map<({space}) -> ({', '.join(dims[a] for a in index)})>"
            for index in (*(index for _, index in operands), s.axes)
        ]
        kinds = ", ".join(f'"{"parallel" if a in s.axes else "reduction"}"' for a in axes)
        ins = ""
        if operands:
            names, types = ", ".join(t.name for t, _ in operands), ", ".join(t.type for t, _ in operands)
            ins = f" ins({names} : {types})"
        arguments = [f"%in{n}: {TYPES[t.dtype.name]}" for n, (t, _) in enumerate(operands)]
        arguments.append(f"%out: {TYPES[out.dtype.name]}")
        made = self._tensor(s.target, s.dtype, out.shape)
        self.lines.append(
            f"{made.name} = linalg.generic {{indexing_maps = [{', '.join(maps)}], iterator_types = [{kinds}]}}"
            f"{ins} outs({start} : {out.type}) {{"
        )
        self.lines.append(f"^bb0({', '.join(arguments)}):")
        self.lines += [f"  {line}" for line in region.lines]
        self.lines.append(f"}} -> {out.type}")

    def _direct(self, body: Expr, extents: dict[str, object]) -> list[Load]:
        """The loads whose index is a different axis in each dimension, each over the whole dimension."""
        found: dict[Load, None] = {}
        for load in loads(body):
            names = [i.name for i in load.index if isinstance(i, Axis)]
            whole = len(names) == len(load.index) == len(set(names)) and all(n in extents for n in names)
            if whole and all(extents[n] == d for n, d in zip(names, self.tensors[load.buffer].shape, strict=True)):
                found.setdefault(load)
        return list(found)


@dataclass
class _Region:
    """The body of one `linalg.generic`: scalar operations, each value computed once."""

    emitter: _Emitter
    axes: Sequence[str]
    known: dict[Expr, str]
    lines: list[str] = field(default_factory=list)

    def operate(self, function: str, dtype: DType, operands: Sequence[str]) -> str:
        """A scalar function on named values."""
        names: list[str] = []
        known = {
            "t": TYPES[dtype.name],
            "bits": dtype.bits,
            "most": dtype.bits - 1,
            "inf": BITS.get(dtype.name, ("",))[0],
        }
        for template in spelling(function, dtype):
            name = self.emitter._fresh()
            fresh = {f"n{i}": n for i, n in enumerate(names)}
            self.lines.append(f"{name} = " + template.format(*operands, **known, **fresh))
            names.append(name)
        return names[-1]

    def value(self, e: Expr) -> str:
        """The name of an expression's value."""
        if e not in self.known:
            self.known[e] = self._compute(e)
        return self.known[e]

    def _line(self, text: str) -> str:
        name = self.emitter._fresh()
        self.lines.append(f"{name} = {text}")
        return name

    def _compute(self, e: Expr) -> str:
        match e:
            case Const():
                return self._line(_constant(e.value, e.dtype))
            case Size(value=v):
                return self._line(f"arith.constant {int(v)} : i64")
            case Axis():
                index = self._line(f"linalg.index {list(self.axes).index(e.name)} : index")
                return self._line(f"arith.index_cast {index} : index to i64")
            case Load():
                tensor = self.emitter.tensors[e.buffer]
                places = [self._line(f"arith.index_cast {self.value(i)} : i64 to index") for i in e.index]
                return self._line(f"tensor.extract {tensor.name}[{', '.join(places)}] : {tensor.type}")
            case Call("cast", (a,)):
                return self._cast(self.value(a), a.dtype, e.dtype)
            case Call("in_range", (i, size, _)):  # nothing is raised here
                return self.value(both(compare("ge", i, integer(0)), compare("lt", i, size)))
            case Call("divisor" | "holds", (checked, _)):
                return self.value(checked)
            case Call("where", (c, a, b)):
                return self._where(self.value(c), a, b)
            case Call():
                return self.operate(e.function, e.operands[0].dtype, [self.value(o) for o in e.operands])
        raise UnsupportedError("MLIR: a reduction inside an expression")

    def _cast(self, value: str, source: DType, to: DType) -> str:
        if TYPES[source.name] == TYPES[to.name]:  # MLIR's integers have no sign
            return value
        if to == boolean:
            zero = self._line(_constant(0, source))
            return self.operate("ne", source, [value, zero])
        return self._line(conversion(source, to).format(value))

    def _where(self, condition: str, a: Expr, b: Expr) -> str:
        guarded = [x for branch in (a, b) for x in loads(branch) if x not in self.known]
        if not guarded:
            left, right = self.value(a), self.value(b)
            return self._line(f"arith.select {condition}, {left}, {right} : {TYPES[a.dtype.name]}")
        for axis in (e for branch in (a, b) for e in walk(branch) if isinstance(e, Axis)):
            self.value(axis)  # linalg.index may not stand inside scf.if
        name, type = self.emitter._fresh(), TYPES[a.dtype.name]
        self.lines.append(f"{name} = scf.if {condition} -> ({type}) {{")
        for branch, closing in ((a, "} else {"), (b, "}")):
            inner = _Region(self.emitter, self.axes, dict(self.known))
            result = inner.value(branch)
            self.lines += [f"  {line}" for line in (*inner.lines, f"scf.yield {result} : {type}")]
            self.lines.append(closing)
        return name


def _constant(value: float | int | bool, dtype: DType) -> str:
    """A constant as an operation."""
    if dtype == boolean:
        return f"arith.constant {'true' if value else 'false'}"
    return f"arith.constant {_literal(value, dtype)} : {TYPES[dtype.name]}"


def _literal(value: float | int | bool, dtype: DType) -> str:
    """A number as MLIR reads it; infinities and NaN by their bits."""
    if not dtype.is_float:
        return str(int(value))
    number = float(value)
    if math.isfinite(number):
        return f"{number!r}" if "." in repr(number) or "e" not in repr(number) else repr(number).replace("e", ".0e")
    positive, negative, nan = BITS[dtype.name]
    return "0x" + (nan if math.isnan(number) else positive if number > 0 else negative)


__all__ = ["emit_graph", "mlir_type"]

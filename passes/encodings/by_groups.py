"""Rows of bytes times a matrix of integers with a scale for each group: summed in integers a group at a time.

    y = linear(cast<f32>(x), decode(...))                              x: i8; w[n,k] = q[g,n,j] * s[g,n] + m[g,n]

    p[m,g,n] = sum(j: i32(u[m,g,j]) * i32(q[g,n,j]))                   u: x as the machine multiplies it (x + 128)
    y[m,n]   = sum(g: f32(p[m,g,n] + t[g,n]) * s[g,n] + r[m,g] * m[g,n])

t takes away what moving x up adds, r are sums of x. A group's sum is exact, where eager rounds products with w; then
both add up in f32, in another order. q, s, m and t are made of weights once: bytes where a float copy would be four.
Done where it is predicted to be quicker than products of floats, with the weight as stored or decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from string import ascii_lowercase

from effcc.ir.dims import Dim, elements
from effcc.ir.dtypes import DType, b8, f32, i8, i32, u7, u8
from effcc.ir.encodings import Storage
from effcc.ir.encodings.groups import MINIMUM, NUMBERS, SCALE, Groups, groups_of
from effcc.ir.graph import Graph, GraphBuilder, Node, Value
from effcc.ir.program import Launch
from effcc.ir.types import TensorType
from effcc.passes.encodings.choose import Choice, decoded_storage, dense_seconds, stored_seconds
from effcc.passes.fusion import fuse
from effcc.passes.hoist import hoist
from effcc.passes.integers import has_dots, moved_up
from effcc.passes.ranges import Range, range_of, zero_point
from effcc.passes.tiling.axes import settle
from effcc.passes.tiling.tile import tile
from effcc.passes.writer import Writer
from effcc.target import Target

_OFFSET, _SMALL = 128, 127


def sum_by_groups(graph: Graph, target: Target) -> tuple[Graph, tuple[Choice, ...]]:
    """The graph with such products summed so where that is quicker, and which these are."""
    producers = graph.producers()
    products = {n: p for n in graph.nodes if (p := _product(n, graph, producers, target)) is not None}
    products = {n: p for n, p in products.items() if p.seconds(target) < p.seconds_in_floats(target)}
    if not products:
        return graph, ()
    writer = Writer(graph)
    for node in graph.nodes:
        if (product := products.get(node)) is not None and (moved := _moved(product, target)) is not None:
            _write(writer, node, product, moved)
        else:
            writer.nodes.append(node)
    choices = {p.weight.result: p.choice(target) for p in products.values()}
    read = {v for n in writer.nodes for v in n.operands} | set(graph.results)
    return graph.with_nodes(tuple(n for n in writer.nodes if n.op != "decode" or n.result in read)), (
        *choices.values(),
    )


@dataclass(frozen=True)
class _Product:
    """Rows `x` of bytes, `zero` taken away from each and all in `range`, times what the node `weight` decodes."""

    x: Value
    zero: int
    range: Range
    weight: Node
    groups: Groups

    @property
    def rows(self) -> int:
        return elements(self.x.type.shape[:-1])

    def seconds(self, target: Target) -> float:
        return _seconds(decoded_storage(self.weight), self.x.type.dtype, self.range, self.zero, self.rows, target)

    def seconds_in_floats(self, target: Target) -> float:
        stored = decoded_storage(self.weight)
        return min(dense_seconds(stored, self.rows, target), stored_seconds(stored, self.rows, target))

    def choice(self, target: Target) -> Choice:
        ours, floats = self.seconds(target) * 1e6, self.seconds_in_floats(target) * 1e6
        why = f"{self.rows} rows: {ours:.1f} us predicted so, {floats:.1f} us in floats"
        encoding = str(decoded_storage(self.weight).encoding)
        return Choice(self.weight.operands[-1].name, encoding, "summed in integers", f"a group at a time, {why}")


def _product(node: Node, graph: Graph, producers: dict[Value, Node], target: Target) -> _Product | None:
    """The product that a node is, where `target` has dot products for it and the weight does not change."""
    weight = producers.get(node.operands[1]) if node.op == "linear" else None
    if weight is None or weight.op != "decode" or weight.attrs["part"] or node.result.type.dtype != f32:
        return None
    held = _bytes(node.operands[0], producers)
    groups = groups_of(decoded_storage(weight))
    if held is None or groups is None or not all(o.name in graph.fixed_weights for o in weight.operands):
        return None
    x, zero = held
    found = _Product(x, zero, range_of(x, producers), weight, groups)
    return found if found.rows > 1 and _moved(found, target) is not None else None


def _bytes(value: Value, producers: dict[Value, Node]) -> tuple[Value, int] | None:
    """The bytes that floats are, and the zero point that is taken away from them."""
    node = producers.get(value)
    if node is not None and node.op == "sub":
        found = _bytes(node.operands[0], producers)
        number = None if found is None or found[1] else zero_point(node.operands[1], found[0].type.dtype, producers)
        return None if found is None or number is None else (found[0], number)
    if node is None or node.op != "cast" or node.operands[0].type.dtype not in (i8, u8):
        return None
    return node.operands[0], 0


def _moved(product: _Product, target: Target) -> tuple[DType, int] | None:
    """The dtype in which `target` multiplies the rows, and by how much they are moved up for it; None: it has none."""
    numbers = product.groups.type_of(NUMBERS).dtype
    least = min(int(product.range[0]), 0)
    if has_dots(u8, numbers, target):
        return u8, _OFFSET if product.x.type.dtype == i8 else 0
    if numbers == i8 and product.range[1] - least <= _SMALL and has_dots(u7, i8, target):
        return u7, -least
    if numbers == i8 and product.x.type.dtype == i8 and product.range[0] >= -_SMALL and has_dots(b8, i8, target):
        return b8, 0
    return None


def _write(writer: Writer, node: Node, product: _Product, moved: tuple[DType, int]) -> None:
    """What stands for the node."""
    groups, (dtype, up) = product.groups, moved
    name, lead = node.result.name, product.x.type.shape[:-1]

    def part(which: str) -> Value:
        node = replace(product.weight, attrs={**product.weight.attrs, "whole": True, "part": which})
        return writer.copy(node, node.operands, f"{node.result.name}_{which}")

    def by_groups(x: Value) -> Value:
        return writer.reshape(x, (*lead, groups.count, groups.size), f"{x.name}_groups")

    x = product.x if dtype == product.x.type.dtype else moved_up(writer, product.x, up, dtype)
    numbers, labels = part(NUMBERS), ascii_lowercase[: len(lead)]
    wide = [writer.emit("cast", v, name=f"{v.name}_wide", dtype=i32) for v in (by_groups(x), numbers)]
    sums = writer.emit("einsum", *wide, name=f"{name}_sums", spec=f"{labels}xz,xyz->{labels}xy")
    if product.zero + up:
        each = writer.emit("sum", wide[1], name=f"{name}_each", axes=(2,), keepdim=False)
        each = writer.emit("cast", each, name=f"{name}_each", dtype=i32)
        by = writer.emit("constant", name=f"{name}_up", value=-(product.zero + up), dtype=i32, shape=())
        sums = writer.emit("add", sums, writer.emit("mul", each, by, name=f"{name}_taken"), name=f"{name}_sums")
    floats = writer.emit("cast", sums, name=f"{name}_floats", dtype=f32)
    scaled = writer.emit("mul", floats, part(SCALE), name=f"{name}_scaled")
    if groups.has_minimum:
        scaled = writer.emit("add", scaled, _minimums(writer, product, part(MINIMUM), by_groups), name=f"{name}_above")
    bias = node.operands[2:]
    given = None if bias else node.result
    total = writer.emit("sum", scaled, name=name, result=given, axes=(len(lead),), keepdim=False)
    if bias:
        writer.emit("add", total, *bias, name=name, result=node.result)


def _minimums(writer: Writer, product: _Product, minimum: Value, by_groups: Callable[[Value], Value]) -> Value:
    """What the minimum of each group adds: it, times the sum of the rows there."""
    name = product.x.name
    wide = writer.emit("cast", by_groups(product.x), name=f"{name}_wide", dtype=f32)
    sums = writer.emit("sum", wide, name=f"{name}_sums", axes=(wide.type.rank - 1,), keepdim=True)
    if product.zero:
        by = writer.emit("constant", name="zeros", value=float(product.zero * product.groups.size), dtype=f32, shape=())
        sums = writer.emit("sub", sums, by, name=f"{name}_sums")
    return writer.emit("mul", sums, minimum, name=f"{name}_least")


@lru_cache(maxsize=1024)
def _seconds(stored: Storage, dtype: DType, range: Range, zero: int, rows: int, target: Target) -> float:
    """Predicted time of such a product. What becomes of its rows alone is left to what makes them."""
    builder = GraphBuilder("product")
    parts = [builder.param(c.name, c.type, weight=True) for c in stored.components]
    weight = builder.emit("decode", *parts, encoding=stored.encoding, dtype=stored.dtype, shape=stored.shape)
    shape: tuple[Dim, ...] = (rows, stored.shape[1])
    x = builder.param("x", TensorType(dtype, shape))
    made = builder.emit("linear", builder.emit("cast", x, dtype=f32), weight)
    graph = builder.build((made,))
    node = next(n for n in graph.nodes if n.result == made)
    decode = next(n for n in graph.nodes if n.op == "decode")
    groups = groups_of(stored)
    assert groups is not None
    product = _Product(x, zero, range, decode, groups)
    moved = _moved(product, target)
    assert moved is not None
    writer = Writer(graph)
    _write(writer, node, product, moved)
    split = hoist(graph.with_nodes(tuple(writer.nodes)))
    program = tile(settle(fuse(split.main, target), target), target)
    launched = [s.kernel for s in program.program.steps if isinstance(s, Launch)]
    return sum(program.schedules[k].seconds for k in launched if program.program.kernels[k].weights)

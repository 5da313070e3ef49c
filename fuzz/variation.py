"""What the compiler is given of a case: the same computation with run-time sizes and tensors stored in other ways.

The interpreter and eager compute a graph whose sizes are known and whose tensors are row-major. The compiler gets that
graph, or one in which

    symbols      numbers stand for run-time sizes: 33 becomes `s0` wherever it is a size of an input; constants are then
                 computed from it: 0.5 is `s0 - 32.5`
    layouts      inputs and outputs are stored with strides: transposed, with gaps, or with an axis expanded (stride 0)

A variation says which; applied to a graph where it does not fit (one that was reduced, say) it changes less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from random import Random

import sympy

from effcc.errors import EffccError
from effcc.ir.dims import Dim, Shape, contiguous_strides, dim, evaluate, symbol
from effcc.ir.graph import Attribute, Graph, GraphBuilder, Node, Value
from effcc.ir.op import normalize_axis
from effcc.ir.size_functions import FUNCTIONS
from effcc.ir.types import TensorType

LAYOUTS = ("transposed", "gaps", "expanded")
_SIZE_ATTRIBUTES = ("shape", "sizes", "size", "start", "end")
_MOST_TRIED = 64  # ways to write the size attributes of one node


@dataclass(frozen=True)
class Variation:
    """What is changed: sizes that become s0, s1, ... in order; layouts of parameters and outputs, by name."""

    symbols: tuple[int, ...] = ()
    layouts: tuple[tuple[str, str], ...] = ()

    @property
    def changes(self) -> bool:
        """Whether the compiler gets anything else than the interpreter."""
        return bool(self.symbols or self.layouts)

    def __str__(self) -> str:
        sizes = [f"size {number} as s{k}" for k, number in enumerate(self.symbols)]
        return ", ".join([*sizes, *(f"%{name} {layout}" for name, layout in self.layouts)])


PLAIN = Variation()


def draw_variation(graph: Graph, random: Random) -> Variation:
    """A variation that changes something of the graph, in two of three cases."""
    symbols: tuple[int, ...] = ()
    layouts: dict[str, str] = {}
    if random.random() < 0.4:
        candidates = _run_time_sizes(graph)
        chosen = random.sample(candidates, min(len(candidates), random.choice((1, 1, 2))))
        symbols = tuple(chosen) if chosen and with_symbols(graph, chosen) is not None else tuple(chosen[:1])
    if random.random() < 0.4:
        updated = {p for p, _ in graph.updates}
        outputs = [v for v in graph.outputs if v not in graph.params]
        for value in dict.fromkeys((*graph.params, *outputs)):
            if value.type.rank and random.random() < 0.5:
                layout = random.choice(LAYOUTS)
                if layout == "expanded" and (value in outputs or value in updated):
                    layout = "transposed"
                layouts[value.name] = layout
    return Variation(symbols, tuple(layouts.items()))


def varied(graph: Graph, variation: Variation) -> Graph:
    """The graph as the compiler gets it."""
    layouts = dict(variation.layouts)
    changed: dict[Value, Value] = {}
    for value in (*graph.params, *(r for n in graph.nodes for r in n.results)):
        if layouts.get(value.name) and (value in graph.params or value in graph.outputs):
            strides = strides_of(value.type.shape, layouts[value.name])
            changed[value] = Value(value.name, replace(value.type, strides=strides))
    found = _with_values(graph, changed)
    if not variation.symbols:
        return found
    return with_symbols(found, variation.symbols) or found


def strides_of(shape: Shape, layout: str) -> Shape:
    """The strides of a layout: the axes in opposite order, two elements apart, or the first of size > 1 repeated."""
    if layout == "transposed":
        return tuple(reversed(contiguous_strides(tuple(reversed(shape)))))
    if layout == "gaps":
        return tuple(dim(2 * s + (0 if k else 3)) for k, s in enumerate(contiguous_strides(shape)))
    first = next((k for k, d in enumerate(shape) if d != 1), 0)
    held = contiguous_strides((*shape[:first], 1, *shape[first + 1 :]))
    return tuple(0 if k == first else s for k, s in enumerate(held))


def with_symbols(graph: Graph, numbers: Sequence[int]) -> Graph | None:
    """`graph` with sizes as symbols; None where its ops cannot be typed then, or where a weight has such a size."""
    names: Mapping[int, Dim] = {number: symbol(f"s{k}") for k, number in enumerate(numbers)}
    bindings = {f"s{k}": number for k, number in enumerate(numbers)}
    if not names or any(d in names for p in graph.params for d in p.type.shape if p.name in graph.weights):
        return None
    builder = GraphBuilder(graph.name)
    values: dict[Value, Value] = {}
    for p in graph.params:
        values[p] = builder.param(p.name, _symbolic_type(p.type, names), weight=p.name in graph.weights)
    for node in graph.nodes:
        made = _symbolic_node(builder, node, [values[o] for o in node.operands], names, bindings)
        if made is None:
            return None
        values.update(zip(node.results, made, strict=True))
    updates = tuple((values[p], values[v]) for p, v in graph.updates)
    if any(p.type.shape != v.type.shape for p, v in updates):
        return None
    least = [_least(builder.nodes, symbol(f"s{k}")) for k in range(len(numbers))]
    ranges = {f"s{k}": (low, _most(n, low)) for k, (n, low) in enumerate(zip(numbers, least, strict=True))}
    built = replace(builder.build(tuple(values[v] for v in graph.outputs), updates), ranges=ranges)
    strided = {v: v for v in graph.outputs if v.type.strides is not None and v not in graph.params}
    laid = {values[v]: _like(values[v], v.type, names) for v in strided}
    return _with_values(built, laid)


def _least(nodes: Sequence[Node], size: Dim) -> int:
    """The least value for which all accesses stay inside: scatter and gather index as much of x as the index covers,
    along all axes but their own."""
    least = 2
    for node in nodes:
        if node.op in ("gather", "scatter"):
            x, index = (o.type for o in node.operands[:2])
            own = normalize_axis(int(node.attrs["axis"]), x.rank)  # type: ignore[arg-type]
            pairs = [p for k, p in enumerate(zip(x.shape, index.shape, strict=True)) if k != own]
            least = max([least, *(d for n, d in pairs if n == size and isinstance(d, int))])
    return least


def _most(size: int, least: int) -> int | None:
    """The largest value of a symbol that is called with `size` first: that, the next one, far more, or any."""
    choices = (None, None, size, None, None, size + 1, None, 3 * size + 4)
    most = choices[size % len(choices)]
    return None if most is None else max(most, least)


def _run_time_sizes(graph: Graph) -> list[int]:
    """The sizes of inputs that no weight has: what may be known at run time only."""
    fixed = {d for p in graph.params if p.name in graph.weights for d in p.type.shape}
    sizes = {d for p in graph.params for d in p.type.shape if isinstance(d, int) and d > 1}
    found = [int(d) for d in sorted(sizes - fixed, key=int)]
    return [d for d in found if with_symbols(graph, (d,)) is not None]


def _symbolic_type(type: TensorType, names: Mapping[int, Dim]) -> TensorType:
    """A type with sizes as symbols, its strides following them."""
    shape = tuple(names.get(d, d) if isinstance(d, int) else d for d in type.shape)
    if type.strides is None:
        return replace(type, shape=shape)
    layout = next(x for x in LAYOUTS if strides_of(type.shape, x) == type.strides)
    return replace(type, shape=shape, strides=strides_of(shape, layout))


def _like(value: Value, type: TensorType, names: Mapping[int, Dim]) -> Value:
    layout = next(x for x in LAYOUTS if strides_of(type.shape, x) == type.strides)
    return Value(value.name, replace(value.type, strides=strides_of(value.type.shape, layout)))


def _symbolic_node(
    builder: GraphBuilder, node: Node, operands: Sequence[Value], names: Mapping[int, Dim], bindings: Mapping[str, int]
) -> tuple[Value, ...] | None:
    """The node on operands with symbolic sizes, whose results must have the sizes of before; None if there is none.

    An attribute may hold a size as a number that is no size of an input: 66 where 33 is `s0` may be `2*s0`.
    """
    choices: list[tuple[str, list[Attribute]]] = []
    for name, value in node.attrs.items():
        if name in _SIZE_ATTRIBUTES:
            choices.append((name, _readings(value, names)))
        elif name == "value" and isinstance(value, float):
            choices.append((name, [*_computed(value, names), value]))
    count = len(builder.nodes)
    for tried, picked in enumerate(product(*(options for _, options in choices))):
        if tried >= _MOST_TRIED:
            break
        attrs = {**node.attrs, **dict(zip((name for name, _ in choices), picked, strict=True))}
        try:
            made = builder.node(node.op, *operands, name=node.results[0].name, regions=node.regions, **attrs).results
            shapes = [[evaluate(d, bindings) for d in r.type.shape] for r in made]
            if shapes == [list(r.type.shape) for r in node.results]:
                renamed = tuple(Value(r.name, m.type) for r, m in zip(node.results, made, strict=True))
                builder.nodes[-1] = replace(builder.nodes[-1], results=renamed)
                return renamed
        except (EffccError, TypeError, ValueError, KeyError):
            pass  # sizes that cannot be told to be equal: another reading may do
        del builder.nodes[count:]
    return None


def _computed(value: float, names: Mapping[int, Dim]) -> list[Attribute]:
    """A number as one computed from the first symbol, where that has no rounding error."""
    for number, size in names.items():
        rest = value - number
        if math.isfinite(value) and number + rest == value:
            return [FUNCTIONS["fadd"](FUNCTIONS["real"](size), sympy.Float(rest))]
    return []


def _readings(value: Attribute, names: Mapping[int, Dim]) -> list[Attribute]:
    """What a size attribute may mean: every number itself, a symbol, or a multiple of one; symbols first."""
    if isinstance(value, tuple):
        parts = [_readings(v, names) for v in value]
        return [tuple(p) for _, p in zip(range(_MOST_TRIED), product(*parts), strict=False)]
    if not isinstance(value, int) or isinstance(value, bool) or value < 2:
        return [value]
    exact: list[Attribute] = [s for number, s in names.items() if number == value]
    multiples: list[Attribute] = [s * (value // n) for n, s in names.items() if value % n == 0 and value != n]
    return [*exact, *multiples, value]


def _with_values(graph: Graph, new: Mapping[Value, Value]) -> Graph:
    """The graph with some values replaced throughout."""
    if not new:
        return graph

    def those(values: Sequence[Value]) -> tuple[Value, ...]:
        return tuple(new.get(v, v) for v in values)

    nodes = tuple(replace(n, operands=those(n.operands), results=those(n.results)) for n in graph.nodes)
    updates = tuple((new.get(p, p), new.get(v, v)) for p, v in graph.updates)
    return replace(graph, params=those(graph.params), nodes=nodes, outputs=those(graph.outputs), updates=updates)

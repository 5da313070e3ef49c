"""A case taken apart, to be changed and put together again: types are inferred anew, and what is no case is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import numpy as np

from effcc.fuzz.generate import (
    LARGEST,
    MOST_ELEMENTS,
    MOST_WORK,
    TAKE_OFFSETS,
    Array,
    Case,
    expanded,
    ordinary,
    points_of,
)
from effcc.fuzz.operands import bounds, is_deterministic
from effcc.fuzz.sketch import Refused
from effcc.fuzz.variation import draw_variation
from effcc.ir.dims import Dim
from effcc.ir.dtypes import boolean
from effcc.ir.graph import Attribute, Graph, GraphBuilder, Node, Value
from effcc.ir.ops import TABLE
from effcc.ir.table.movement import slice_bounds
from effcc.ir.types import TensorType

MOST_NODES = 60


@dataclass
class Item:
    """A node whose operands may be others; `results` stand for what it gives, whatever type that has."""

    op: str
    operands: list[Value]
    attrs: dict[str, Attribute]
    regions: tuple[Graph, ...]
    results: tuple[Value, ...]


@dataclass
class Draft:
    """A graph in parts. params: with the types that they are to have. arrays: what they hold, where that still fits."""

    seed: int
    params: dict[Value, TensorType]
    weights: set[Value]
    items: list[Item]
    outputs: list[Value]
    updates: dict[Value, Value]
    arrays: dict[Value, Array]
    special: bool
    _fresh: int = 0
    _known: set[tuple[Any, ...]] = field(default_factory=set)

    @staticmethod
    def of(case: Case, seed: int) -> Draft:
        """The parts of a case, for one of that seed."""
        graph = case.graph
        items = [Item(n.op, list(n.operands), dict(n.attrs), n.regions, n.results) for n in graph.nodes]
        arrays = dict(zip(graph.params, case.inputs, strict=True))
        weights = {p for p in graph.params if p.name in graph.weights}
        special = any(a.dtype.kind == "f" and not np.isfinite(a.astype(np.float64)).all() for a in _seen(case))
        params = {p: p.type for p in graph.params}
        known = {_call(n) for n in graph.nodes}
        updates = dict(graph.updates)
        return Draft(seed, params, weights, items, list(graph.outputs), updates, arrays, special, 0, known)

    @property
    def values(self) -> list[Value]:
        """All values, in order."""
        return [*self.params, *(r for item in self.items for r in item.results)]

    def before(self, item: Item) -> list[Value]:
        """The values that a node may read."""
        at = next(k for k, other in enumerate(self.items) if other is item)
        return [*self.params, *(r for other in self.items[:at] for r in other.results)]

    def value(self, type: TensorType) -> Value:
        """A value that nothing gives yet."""
        self._fresh += 1
        return Value(f"n{self._fresh}_", type)

    def param(self, type: TensorType, weight: bool = False) -> Value:
        """One more parameter."""
        value = self.value(type)
        self.params[value] = type
        if weight:
            self.weights.add(value)
        return value

    def built(self, random: Random) -> Case:
        """The case. Raises Refused, or what type rules and references raise, where it is none."""
        if not 0 < len(self.items) <= MOST_NODES:
            raise Refused(f"{len(self.items)} nodes")
        graph, made = self._graph()
        data = np.random.default_rng(self.seed)
        limits = _limits(graph)
        given = {made[p]: a for p, a in self.arrays.items() if p in made}
        inputs = tuple(_array(p, given.get(p), limits.get(p), data) for p in graph.params)
        drawn = {p for p, a in zip(graph.params, inputs, strict=True) if a is not given.get(p)}
        stored = [o for n in graph.nodes if n.op in ("decode", *TAKE_OFFSETS) for o in n.operands]
        if any(o in drawn and not _is_float(o) for o in stored):
            raise Refused("positions of what is stored, which no draw of numbers gives")
        variation = draw_variation(graph, random)
        layouts = dict(variation.layouts)
        inputs = tuple(
            expanded(a) if layouts.get(p.name) == "expanded" else a for p, a in zip(graph.params, inputs, strict=True)
        )
        case = Case(graph, inputs, self.seed, variation)
        self._check(case)
        return case

    def _graph(self) -> tuple[Graph, dict[Value, Value]]:
        """The graph, and its values by those of the parts; what nobody reads any more is a result, or goes."""
        builder = GraphBuilder("mutant")
        made: dict[Value, Value] = {}
        for param, type in self.params.items():
            made[param] = builder.param(param.name, type, param in self.weights)
        for item in self.items:
            operands = [made[o] for o in item.operands]
            attrs: dict[str, Any] = item.attrs
            node = builder.node(item.op, *operands, regions=item.regions, **attrs)
            made.update(zip(item.results, node.results, strict=True))
        read = {o for item in self.items for o in item.operands}
        ends = [r for item in self.items for r in item.results if r not in read and r not in self.updates.values()]
        outputs = list(dict.fromkeys(made[v] for v in [*self.outputs, *ends] if v in made))
        updates = [(made[p], made[v]) for p, v in self.updates.items() if p in made and v in made]
        updates = [(p, v) for p, v in updates if p.type == v.type and v not in builder.params]
        changed = {p for p, _ in updates}  # what is handed back of these is theirs before the call, or after it
        outputs = [v for v in outputs if v not in changed]
        if not outputs:
            raise Refused("nothing to compare")
        graph = builder.build(tuple(outputs), tuple(updates))
        alive = {o for n in graph.nodes for o in n.operands} | {*graph.results, *(p for p, _ in updates)}
        params = tuple(p for p in graph.params if p in alive)
        return replace(graph, params=params, weights=frozenset(p.name for p in params) & graph.weights), made

    def _check(self, case: Case) -> None:
        """Refuse what the generator would not draw: numbers that cannot be compared, positions outside, much work."""
        for node in case.graph.nodes:
            types = [o.type for o in node.operands]
            found = [r.type for r in node.results]
            if any(int(t.size) > MOST_ELEMENTS for t in (*types, *found)):
                raise Refused("too large")
            if points_of(TABLE[node.op], types, found) > MOST_WORK:
                raise Refused("too much work")
            if node.op == "slice_scatter" and _count(node) != types[1].shape[int(str(node.attrs["axis"]))]:
                raise Refused("a source that eager does not spread")
            if "eps" in node.attrs and not is_deterministic(TABLE[node.op], types, {**node.attrs, "eps": 0.0}):
                raise Refused("a norm of one element is whatever rounding leaves")
            if _call(node) not in self._known and not is_deterministic(TABLE[node.op], types, node.attrs):
                raise Refused("its result is any of several")
        values = dict(zip(case.graph.params, case.inputs, strict=True))

        def look(node: Node, results: list[Array]) -> list[Array]:
            for position, (low, high) in bounds(node.op, [o.type for o in node.operands], node.attrs).items():
                held = values[node.operands[position]]
                if held.size and (held.min() < low or held.max() > high):
                    raise Refused("a position outside")
            if node.op == "cast" and _is_float(node.operands[0]) and not _is_float(node.results[0]):
                wide = np.abs(values[node.operands[0]].astype(np.float64))
                most = 100 if node.results[0].type.dtype.bits <= 8 else LARGEST
                if wide.size and not wide.max() < most:
                    raise Refused("a float that is no such integer")
            for value, array in zip(node.results, results, strict=True):
                self._hold(value, array)
            values.update(zip(node.results, results, strict=True))
            return results

        case.run(observe=look)

    def _hold(self, value: Value, array: Array) -> None:
        if value.type.dtype == boolean:
            if array.dtype != np.bool_:
                raise Refused("no function of bools")
            return
        wide = array.astype(np.float64)
        finite = np.isfinite(wide)
        most = LARGEST if _is_float(value) else 1e9
        if not (self.special or finite.all()) or np.abs(wide[finite]).max(initial=0.0) > most:
            raise Refused("leaves the range of numbers")


def _count(node: Node) -> Dim:
    """How many elements along its axis a slice has."""
    attrs: Any = node.attrs
    return slice_bounds(node.operands[0].type.shape[attrs["axis"]], attrs["start"], attrs["end"], attrs["step"])[1]


def _seen(case: Case) -> list[Array]:
    """Everything that a case computes."""
    found: list[Array] = list(case.inputs)

    def keep(node: Node, results: list[Array]) -> list[Array]:
        found.extend(results)
        return results

    case.run(observe=keep)
    return found


def _call(node: Node) -> tuple[Any, ...]:
    return node.op, repr(sorted(node.attrs.items())), tuple(o.type for o in node.operands)


def _limits(graph: Graph) -> dict[Value, tuple[int, int]]:
    found: dict[Value, tuple[int, int]] = {}
    for node in graph.nodes:
        for position, (low, high) in bounds(node.op, [o.type for o in node.operands], node.attrs).items():
            before = found.get(node.operands[position], (low, high))
            found[node.operands[position]] = max(low, before[0]), min(high, before[1])
    if any(low > high for low, high in found.values()):
        raise Refused("no position fits")
    return found


def _array(param: Value, given: Array | None, limits: tuple[int, int] | None, data: np.random.Generator) -> Array:
    """What a parameter held, if that still fits; else what is drawn for it."""
    shape = tuple(int(d) for d in param.type.shape)
    if given is not None and given.shape == shape and given.dtype == param.type.dtype.numpy:
        inside = limits is None or not given.size or (limits[0] <= given.min() and given.max() <= limits[1])
        if inside:
            return given
    return ordinary(param.type, limits, data)


def _is_float(value: Value) -> bool:
    return value.type.dtype.is_float


def readers(items: Sequence[Item], value: Value) -> list[tuple[Item, int]]:
    """Who reads a value, and as which operand."""
    return [(item, k) for item in items for k, o in enumerate(item.operands) if o is value]


def renamed(items: Sequence[Item], instead: Mapping[Value, Value]) -> None:
    """Have nodes read other values."""
    for item in items:
        item.operands = [instead.get(o, o) for o in item.operands]

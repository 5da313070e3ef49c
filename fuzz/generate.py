"""Random graphs: operators are known through the op table's type rules and declared constraints only.

A graph grows node by node: a kind of op that often follows the last one, an op of that kind, operands among the values
that are there, and fresh parameters for the rest. Most begin with a chain or a structure (`effcc.fuzz.structures`) that
a pass exists for, every second one with the next structure in turn. Each node is interpreted as it is added; one whose
values leave the range in which numbers can be compared is taken back, or its operand squashed first. So graphs compute
with ordinary numbers; special ones are put into the inputs of some cases afterwards. How the compiler sees a graph is
drawn last (`effcc.fuzz.variation`). Some graphs are of numbers of every magnitude instead (`effcc.fuzz.steps`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import ml_dtypes
import numpy as np

import effcc.fuzz.crossings
import effcc.fuzz.structures  # noqa: F401  (both register structures)
from effcc.errors import EffccError
from effcc.fuzz.control import CONTROL
from effcc.fuzz.exact import draw_exact, draw_sweep, of_single_steps
from effcc.fuzz.functions import draw_functions
from effcc.fuzz.operands import bounds, is_deterministic, propose
from effcc.fuzz.sketch import STRUCTURES, Refused, Sketch
from effcc.fuzz.steps import draw_steps
from effcc.fuzz.thresholds import draw_thresholds
from effcc.fuzz.variation import PLAIN, Variation, draw_variation, varied
from effcc.ir.dtypes import DTYPES, DType, boolean, from_numpy
from effcc.ir.encoding import Encoding
from effcc.ir.encodings.registry import names
from effcc.ir.encodings.storage import is_sum
from effcc.ir.graph import Graph, GraphBuilder, Node, Value
from effcc.ir.interpreter import run_graph
from effcc.ir.op import Op
from effcc.ir.ops import TABLE
from effcc.ir.program import Extern, Program
from effcc.ir.types import TensorType
from effcc.passes.rules.drawing import Preferences, draw_dtype, draw_number

Array = np.ndarray[Any, Any]

SIZES = (0, *[1] * 8, *[2] * 10, *[3] * 12, 4, 4, 5, 5, 6, 7, 8, 8, 9, 13, 16, 17, 31, 33, 40, 65, 130)
MOST_ELEMENTS = 40_000  # of a tensor: the interpreter in float64 sets the pace
MOST_WORK = 4_000_000  # elements of one index space, in multiplications of a contraction
LARGEST = 1e4  # magnitude of values that a node may produce
OF_THEIR_OWN = (("steps", 0.07), ("exact", 0.18), ("functions", 0.2))
CONTROL_FLOW = 0.04  # of the others: a branch, a loop or a scan, and what follows it
"""Graphs of numbers of every magnitude, up to which share: steps defined to the bit, exact ones, functions."""
WITH_THRESHOLDS = 0.3
"""How many graphs go through passes whose thresholds are set (`effcc.fuzz.thresholds`)."""
SWEPT = (5, 6)  # of ten graphs: all exact steps of two dtypes in one, or a third of all functions

# Structures that whole passes exist for: ops with attributes and, where they matter, the shapes of their operands, a
# letter an axis; `_` is the result before. `n` may be long, so that it takes several tiles.
Chain = tuple[tuple[str, Mapping[str, Any], str | None], ...]
CHAINS: tuple[Chain, ...] = (
    (("matmul", {}, "bmd,bdn"), ("mul", {}, "_,"), ("softmax", {"axis": -1}, "_"), ("matmul", {}, "_,bnf")),
    (("matmul", {}, "md,dn"), ("add", {}, "_,mn"), ("softmax", {"axis": -1}, "_"), ("matmul", {}, "_,nf")),
    (("einsum", {"spec": "bmd,bnd->bmn"}, "bmd,bnd"), ("softmax", {"axis": -1}, "_"), ("matmul", {}, "_,bnf")),
    (("add", {}, "mn,n"), ("softmax", {"axis": -1}, "_"), ("matmul", {}, "_,nf")),
    (("linear", {}, "md,nd,n"), ("gelu", {}, "_"), ("linear", {}, "_,fn,f"), ("layer_norm", {"axes": 1}, "_,f,f")),
    (("linear", {}, "bmd,fd"), ("sigmoid", {}, "_"), ("mul", {}, "_,f"), ("rms_norm", {"axes": 1}, "_,f")),
    (("convolution", {}, None), ("batch_norm", {}, None), ("relu", {}, "_"), ("convolution", {}, None)),
    (("convolution", {}, None), ("relu", {}, "_"), ("max_pool", {}, None), ("mean", {"axes": (-1,)}, "_")),
    (
        ("transpose", {"perm": (1, 0)}, "dm"),
        ("linear", {}, "_,nd"),
        ("reshape", {}, "_"),
        ("transpose", {}, "_"),
        ("add", {}, None),
    ),
    (("max", {"axes": (-1,), "keepdim": True}, "mn"), ("sub", {}, "_,mn"), ("exp", {}, "_"), ("sum", {}, "_")),
    (("where", {}, None), ("max", {"axes": (-1,)}, "_"), ("mul", {}, None)),
)

# What often follows what: chains that fusion is made for.
FOLLOWERS: dict[str, str] = {
    "": "contraction pointwise view norm reduction gather scan",
    "contraction": "pointwise pointwise pointwise norm reduction view contraction",
    "norm": "contraction contraction pointwise view reduction",
    "pointwise": "pointwise pointwise reduction norm contraction view scan scatter gather create",
    "reduction": "pointwise pointwise pointwise view contraction norm",
    "view": "contraction pointwise pointwise reduction norm view scan",
    "gather": "pointwise contraction norm reduction",
    "scatter": "pointwise reduction view",
    "scan": "pointwise reduction contraction",
    "create": "pointwise view reduction",
}


Call = Callable[[Node | Extern, Sequence[Array], Sequence[TensorType], DType | None], Sequence[Array]]
"""What a call to PyTorch gives, from its operands and their types; the dtype is what its floating results become."""


@dataclass(frozen=True)
class Case:
    """A graph with static sizes and row-major tensors, an array for each of its parameters, and a variation of it.

    call: what computes the calls to PyTorch. Graphs that are drawn here have none; those of models do
    (`effcc.bisection`), whose sizes may be symbols and whose tensors may lie in memory in other ways.
    passes: how the compiler's passes are changed (`effcc.fuzz.changed_passes`).
    """

    graph: Graph
    inputs: tuple[Array, ...]
    seed: int = 0
    variation: Variation = PLAIN
    call: Call | None = None
    passes: tuple[str, ...] = ()

    def run(self, dtype: DType | None = None, inputs: Sequence[Array] | None = None, **how: Any) -> list[Array]:
        """The results of the graph, interpreted: see `effcc.ir.interpreter.run_graph`."""
        given = self.inputs if inputs is None else inputs
        return run_graph(self.graph, given, dtype=dtype, externs=self.for_graph(dtype), **how)

    def for_graph(self, dtype: DType | None) -> Callable[[Node, list[Array]], Sequence[Array]] | None:
        """`call` as the interpreter of graphs asks for it."""
        call = self.call
        return None if call is None else lambda node, arrays: call(node, arrays, [o.type for o in node.operands], dtype)

    def for_program(
        self, program: Program, dtype: DType | None
    ) -> Callable[[Extern, list[Array]], Sequence[Array]] | None:
        """`call` as the interpreter of programs asks for it."""
        call = self.call
        if call is None:
            return None
        return lambda step, arrays: call(step, arrays, [program.buffer(n).type for n in step.arguments], dtype)

    @functools.cached_property
    def compiled(self) -> Graph:
        """The graph as the compiler gets it."""
        return varied(self.graph, self.variation)

    @property
    def work(self) -> int:
        """The points of all index spaces, about: how long it takes to interpret the loops of the case."""
        nodes = self.graph.nodes
        return sum(points_of(TABLE[n.op], [o.type for o in n.operands], [r.type for r in n.results]) for n in nodes)

    def __str__(self) -> str:
        return f"{self.graph.name}: {len(self.graph.nodes)} nodes"


@dataclass(frozen=True)
class Size:
    """How large a graph becomes."""

    nodes: tuple[int, int] = (1, 9)


@dataclass(frozen=True)
class _Given:
    """What a chain says of its next node: attributes, the first operand, and the types of the others."""

    attrs: Mapping[str, Any]
    first: Value | None = None
    types: Sequence[TensorType | None] | None = None


def asks_all(seed: int) -> bool:
    """Whether every language is asked of the case of a seed: of single steps, which each spells on its own."""
    return seed % 10 in SWEPT and of_single_steps(_turn(seed))


def _turn(seed: int) -> int:
    return 2 * (seed // 10) + SWEPT.index(seed % 10)


def generate(seed: int, size: Size = Size()) -> Case:
    """The random case of a seed."""
    return _Generator(seed, size).run()


TAKE_OFFSETS = ("segment_reduce", "grouped_matmul")
"""Ops whose offsets come in order, which no draw of numbers does: a structure gives them."""

RECURRENT = ("lstm", "gru", "rnn")
"""Layers that eager refuses to run over no steps."""

OF_INPUTS = ("bits",)
"""Ops of which one rounding of what they read changes all that they give: `effcc.fuzz.exact` has them, of inputs."""


def _run_region(region: Graph, *inputs: Any) -> tuple[Array, ...]:
    return tuple(run_graph(region, inputs))


@functools.cache
def _ops() -> dict[str, tuple[Op, ...]]:
    """The ops that can be drawn, by kind: those with a NumPy reference, and no regions."""
    found: dict[str, tuple[Op, ...]] = {}
    others = (*TAKE_OFFSETS, *OF_INPUTS)
    for op in TABLE.values():
        if op.reference is not None and op.kind not in ("control", "opaque") and op.name not in others:
            found[op.kind] = (*found.get(op.kind, ()), op)
    return found


def _dtypes(random: Random) -> tuple[str, ...]:
    """The dtypes of one graph; most graphs are f32 throughout."""
    share = random.random()
    if share < 0.6:
        return ("f32",)
    if share < 0.75:
        return (*["f32"] * 4, "i64", "bool", "i32")
    return random.choice([("f64",), ("bf16",), ("f16",), ("i64", "i32", "bool", "u8", "i8"), ("f32", "f64", "i64")])


@dataclass
class _Generator:
    seed: int
    size: Size
    arrays: dict[Value, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        chooser = Random(self.seed)
        self.random = Preferences(self.seed, SIZES, _dtypes(chooser))
        self.data = np.random.default_rng(self.seed)
        self.builder = GraphBuilder(f"fuzz{self.seed}")
        self.bounded: set[Value] = set()
        self.kept: set[str] = set()  # parameters whose elements belong together, such as coordinates
        self.updates: dict[Value, Value] = {}
        self.tame = False  # no special values: floats become integers somewhere
        self.largest = LARGEST

    def run(self) -> Case:
        wanted = self.random.randint(*self.size.nodes)
        kind = ""
        turn, odd = divmod(self.seed, 2)
        begin = self.random.random()
        share = Random(self.seed ^ 0x57E95).random()
        own = next((kind for kind, up_to in OF_THEIR_OWN if share < up_to), "")
        if self.seed % 10 in SWEPT:
            own = "sweep"
        branches = not own and Random(self.seed ^ 0xC0417).random() < CONTROL_FLOW
        if branches:
            self.attempt(self.random.choice(CONTROL))
        elif own:
            self.largest = np.inf
            {"steps": self._steps, "exact": self._exact, "functions": self._functions,
             "sweep": self._sweep}[own]()  # fmt: skip
            return self._finish()
        elif not odd:  # every structure in its turn, so that few graphs see them all
            self.attempt(STRUCTURES[turn % len(STRUCTURES)])
            if begin < 0.3:
                self.attempt(self.random.choice(STRUCTURES))
        elif begin < 0.3:
            self._chain(self.random.choice(CHAINS))
        elif begin < 0.75:  # and once more, out of step with the even ones
            self.attempt(STRUCTURES[(turn + len(STRUCTURES) // 2) % len(STRUCTURES)])
        if branches or not odd or 0.3 <= begin < 0.75:
            wanted = len(self.builder.nodes) + self.random.choice((0, 0, 1, 2, 4))
        for _ in range(wanted * 6):
            if len(self.builder.nodes) >= wanted:
                break
            following = self.random.choice(FOLLOWERS[kind].split())
            op = self.random.choice(_ops()[following])
            if self._grow(op):
                kind = op.kind
        return self._finish()

    # Nodes

    def _chain(self, chain: Chain) -> None:
        """Append a chain, its axes of sizes drawn for it."""
        n = self.random.choice((3, 8, 33, 300, 600, 600))
        others = (1, 2, 3, 4, 8) if n > 100 else (1, 2, 3, 4, 8, 9, 17)
        sizes = {"n": n, "b": self.random.choice((1, 1, 2, 3))}
        sizes |= {letter: self.random.choice(others) for letter in "mdf"}
        dtype = draw_dtype(self.random)
        last: Value | None = None
        for name, attrs, letters in chain:
            given = _Given(attrs, last)
            if letters is not None:
                shapes = [tuple(sizes[c] for c in part) if part != "_" else None for part in letters.split(",")]
                given = _Given(attrs, last, [None if s is None else TensorType(dtype, s) for s in shapes])
            if not self._grow(TABLE[name], given):
                return
            last = self.builder.nodes[-1].results[0]

    def attempt(self, build: Callable[[Sketch], object]) -> None:
        """Append a structure; nothing of it where it leaves the range of numbers."""
        sizes = self._mark()
        try:
            build(self)
        except (Refused, EffccError, ValueError, TypeError):
            self._back(sizes)  # as for single ops: NumPy has no such function of this dtype, or sizes do not fit

    def _steps(self) -> None:
        draw_steps(self)

    def _exact(self) -> None:
        chains = self.random.randint(1, 3)
        while not self.builder.nodes or chains > 0:
            self.attempt(draw_exact)
            chains -= 1

    def _sweep(self) -> None:
        self.attempt(lambda s: draw_sweep(s, _turn(self.seed)))

    def _functions(self) -> None:
        draw_functions(self)

    def _mark(self) -> tuple[int, int, int]:
        return len(self.builder.params), len(self.builder.nodes), len(self.arrays)

    def _back(self, mark: tuple[int, int, int]) -> None:
        """Take back what was appended since."""
        params, nodes, known = mark
        del self.builder.params[params:], self.builder.nodes[nodes:]
        for value in list(self.arrays)[known:]:
            del self.arrays[value]
            self.updates.pop(value, None)

    def _grow(self, op: Op, given: _Given | None = None) -> bool:
        """Append a node of `op` if a drawn call fits its type rule and keeps numbers ordinary."""
        for attempt in range(4):
            mark = self._mark()
            try:
                if self._append(op, attempt > 0, given or _Given({})):
                    return True
            except (EffccError, ValueError, IndexError, ZeroDivisionError, StopIteration, OverflowError, TypeError):
                pass  # the draw does not fit the op, or NumPy has no such function of bools: draw again
            self._back(mark)
        return False

    # What structures write with

    def dtype(self) -> DType:
        """A dtype of this graph."""
        return draw_dtype(self.random)

    def emit(self, op: str, *operands: Value, **attrs: Any) -> Value:
        """Append a node, and give its first result; raises Refused where values leave the range.

        Infinities and NaN of masks are in it.
        """
        node = self.builder.node(op, *operands, **attrs)
        if not self._computed(TABLE[op], node.results, operands, dict(node.attrs), special=True):
            raise Refused(f"{op} leaves the range of numbers")
        return node.results[0]

    def call(self, op: str, *operands: Value, regions: tuple[Graph, ...], **attrs: Any) -> tuple[Value, ...]:
        """Append a node with regions, and give its results; raises Refused as `emit` does."""
        node = self.builder.node(op, *operands, regions=regions, **attrs)
        run = [functools.partial(_run_region, region) for region in regions]
        if not self._computed(TABLE[op], node.results, operands, {**node.attrs, "regions": run}, special=True):
            raise Refused(f"{op} leaves the range of numbers")
        return node.results

    def fresh(self, type: TensorType, weight: bool = False, limits: tuple[int, int] | None = None) -> Value:
        """A parameter with ordinary values, or with integers in limits."""
        value = self._param(type, weight)
        self.arrays[value] = ordinary(type, limits, self.data)
        if limits is not None:
            self.bounded.add(value)
        return value

    def _param(self, type: TensorType, weight: bool) -> Value:
        """A parameter. Names do not sort as parameters stand: who goes by names computes something else."""
        count = len(self.builder.params)
        return self.builder.param("wvba"[count % 4] if weight else "xtqk"[count % 4], type, weight)

    def given(self, array: Array, weight: bool = False) -> Value:
        """A parameter with these values."""
        type = TensorType(from_numpy(array.dtype), tuple(int(n) for n in array.shape))
        value = self._param(type, weight)
        self.arrays[value] = array
        self.bounded.add(value)
        self.kept.add(value.name)
        return value

    def update(self, parameter: Value, value: Value) -> None:
        """The parameter's buffer holds the value after the call."""
        self.updates[parameter] = value

    def _append(self, op: Op, squash: bool, given: _Given) -> bool:
        least, most = op.arity
        count = self.random.randint(least, least + 2 if most is None else most)
        first = given.first
        if given.types is not None:
            count = len(given.types)
        known: list[Value | None] = [None] * count
        if first is not None:
            known[0] = self._squashed(first) if squash and first.type.dtype.is_float else first
        elif given.types is None and count and self.arrays and self.random.random() < 0.95:
            position = 0 if self.random.random() < 0.8 else self.random.randrange(count)
            known[position] = self._existing(squash)
        wanted = given.types or [None] * count
        fixed = [v.type if v is not None else t for v, t in zip(known, wanted, strict=True)]
        types, attrs = propose(op, fixed, self.random, given.attrs)
        if len(types) != count or not is_deterministic(op, types, attrs):
            return False
        if op.name in RECURRENT and 0 in types[0].shape[:1]:
            return False
        if "value" in attrs:
            attrs["value"] = draw_number(attrs["dtype"] if "dtype" in attrs else types[0].dtype, self.random)
        result_types = op.infer_types(tuple(types), attrs)
        if (
            any(int(t.size) > MOST_ELEMENTS for t in (*types, *result_types))
            or points_of(op, types, result_types) > MOST_WORK
        ):
            return False
        limits = bounds(op.name, types, attrs)
        if any(low > high for low, high in limits.values()):
            return False
        operands = [
            v if v is not None and k not in limits else self._operand(types[k], limits.get(k))
            for k, v in enumerate(known)
        ]
        node = self.builder.node(op.name, *operands, **attrs)
        return self._computed(op, node.results, operands, attrs)

    def _computed(
        self,
        op: Op,
        results: Sequence[Value],
        operands: Sequence[Value],
        attrs: dict[str, Any],
        special: bool = False,
    ) -> bool:
        """Interpret the node; whether its values may be compared. `special`: so may infinities and NaN."""
        assert op.reference is not None
        to_integer = op.name == "cast" and operands[0].type.dtype.is_float and not results[0].type.dtype.is_float
        if to_integer and not _in_range(self.arrays[operands[0]], results[0].type.dtype):
            return False  # conversions of floats to integers are unspecified out of range
        self.tame |= to_integer
        with np.errstate(all="ignore"):
            found = op.reference(*(self.arrays[o] for o in operands), **attrs)
        listed = found if isinstance(found, tuple | list) else (found,)
        arrays = [np.asarray(a) for a in listed]
        for value, array in zip(results, arrays, strict=True):
            if value.type.dtype == boolean and array.dtype != np.bool_:
                return False  # NumPy has this function of integers only
            if value.type.dtype.is_float and array.size:
                wide = array.astype(np.float64)
                finite = np.isfinite(wide)
                if not (special or finite.all()) or np.abs(wide[finite]).max(initial=0.0) > self.largest:
                    return False
            if (
                value.type.dtype.is_integer
                and array.size
                and np.abs(array.astype(np.float64)).max() > max(1e9, self.largest)
            ):
                return False
        self.arrays.update(zip(results, arrays, strict=True))
        return True

    # Operands

    def _existing(self, squash: bool) -> Value:
        """A value that is there, mostly a recent one; squashed into a range where most functions are defined."""
        values = [v for v in self.arrays if v not in self.bounded] or list(self.arrays)
        recent = values[-3:]
        value = self.random.choice(recent if self.random.random() < 0.75 else values)
        return self._squashed(value) if squash and value.type.dtype.is_float else value

    def _squashed(self, value: Value) -> Value:
        op = TABLE[self.random.choice(["sigmoid", "tanh"])]
        squashed = self.builder.emit(op.name, value)
        self._computed(op, (squashed,), (value,), {}, special=True)
        return squashed

    def _operand(self, type: TensorType, limits: tuple[int, int] | None) -> Value:
        """A value of exactly this type, or a fresh parameter; always the latter where integers are bounded."""
        if limits is None:
            fitting = [v for v, a in self.arrays.items() if v.type.plain() == type.plain() and v not in self.bounded]
            if fitting and self.random.random() < 0.5:
                return self.random.choice(fitting[-4:])
            if self.random.random() < 0.1 and len(type.shape) < 2:
                return self._constant(type)
        return self.fresh(type, self.random.random() < 0.4, limits)

    def _constant(self, type: TensorType) -> Value:
        attrs: dict[str, Any] = {
            "shape": type.shape,
            "value": draw_number(type.dtype, self.random),
            "dtype": type.dtype,
        }
        value = self.builder.emit("full", **attrs)
        self._computed(TABLE["full"], (value,), (), attrs)
        return value

    # The whole

    def _finish(self) -> Case:
        builder = self.builder
        used = {o for n in builder.nodes for o in n.operands}
        results = [r for n in builder.nodes for r in n.results]
        self._more_updates(results)
        taken = set(self.updates.values())
        outputs = [v for v in results if v not in used | taken or self.random.random() < 0.15]
        if not outputs and not self.updates:
            value = self._operand(TensorType(DTYPES["f32"], (3,)), None)
            outputs = [value]
        if outputs and self.random.random() < 0.12:  # one result twice, or an input handed back
            outputs.append(self.random.choice([*outputs, *(p for p in builder.params if p not in self.updates)]))
        graph = builder.build(tuple(outputs), tuple(self.updates.items()))
        alive = {o for n in graph.nodes for o in n.operands} | {*graph.results, *self.updates}
        params = tuple(p for p in graph.params if p in alive)
        graph = replace(graph, params=params, weights=frozenset(p.name for p in params) & graph.weights)
        inputs = [self.arrays[p] for p in params]
        if self.random.random() < 0.2 and not self.tame and not any(_leaves_out(n) for n in graph.nodes):
            inputs = [self.arrays[p] if p in self.bounded else with_specials(self.arrays[p], self.data) for p in params]
        variation = draw_variation(graph, self.random)
        layouts = {n: "gaps" if n in self.kept and x == "expanded" else x for n, x in variation.layouts}
        variation = replace(variation, layouts=tuple(layouts.items()))
        inputs = [expanded(a) if layouts.get(p.name) == "expanded" else a for p, a in zip(params, inputs, strict=True)]
        set_apart = Random(self.seed ^ 0x7E55)
        passes = draw_thresholds(set_apart) if set_apart.random() < WITH_THRESHOLDS else ()
        return Case(graph, tuple(inputs), self.seed, variation, passes=passes)

    def _more_updates(self, results: Sequence[Value]) -> None:
        """Parameters that take the value of a result of their type."""
        if self.random.random() < 0.1:
            free = [p for p in self.builder.params if p not in self.updates and p not in self.bounded]
            pairs = [(p, v) for p in free for v in results if v.type == p.type]
            if pairs:
                self.update(*self.random.choice(pairs))


def _leaves_out(node: Node) -> bool:
    """Whether products skip elements, so that 0 times an infinity may be no NaN.

    What is not stored is skipped; terms are multiplied apart, so that infinities of opposite signs may meet; the
    padding of convolutions eager skips or multiplies by, as it comes.
    """
    if node.op == "convolution":
        return True
    if node.op != "decode":
        return False
    encoding = node.attrs["encoding"]
    assert isinstance(encoding, Encoding)
    return is_sum(encoding) or any(scheme.name in names("level") for scheme in encoding.terms[0])


def expanded(array: Array) -> Array:
    """The array with its first axis of more than one element repeating its first element."""
    first = next((k for k, n in enumerate(array.shape) if n != 1), 0)
    if array.size == 0:
        return array
    return np.ascontiguousarray(np.broadcast_to(np.take(array, [0], first), array.shape))


def ordinary(type: TensorType, limits: tuple[int, int] | None, data: np.random.Generator) -> Array:
    """Normal floats with some zeros and equal values, small integers in their limits, fair bools."""
    shape = tuple(int(d) for d in type.shape)
    dtype = type.dtype
    if dtype == boolean:
        return np.asarray(data.integers(0, 2, shape).astype(bool))
    if dtype.is_integer:
        low, high = limits or ((0, 9) if dtype.kind == "uint" else (-9, 9))
        return np.asarray(data.integers(low, high + 1, shape)).astype(dtype.numpy)
    values = data.standard_normal(shape)
    values = np.where(data.random(shape) < 0.03, 0.0, values)
    return np.asarray(values).astype(dtype.numpy)


def case_of(graph: Graph, seed: int = 0) -> Case:
    """A case of a given graph, of static sizes: ordinary inputs, positions inside the axes that they index."""
    limits: dict[Value, tuple[int, int]] = {}
    for node in graph.nodes:
        for position, found in bounds(node.op, [o.type for o in node.operands], node.attrs).items():
            low, high = limits.get(node.operands[position], found)
            limits[node.operands[position]] = (max(low, found[0]), min(high, found[1]))
    data = np.random.default_rng(seed)
    return Case(graph, tuple(ordinary(p.type, limits.get(p), data) for p in graph.params), seed)


def with_specials(array: Array, data: np.random.Generator) -> Array:
    """Floats with NaN, infinities, signed zeros, denormals and large numbers here and there; integers with extremes."""
    table: Array
    if _is_float(array):
        floats = ml_dtypes.finfo(array.dtype)
        least, tiny = float(floats.smallest_subnormal), float(floats.tiny)
        table = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, least, tiny, 1e3, -1e3]).astype(array.dtype)
    elif array.dtype.kind in "iu":
        integers = np.iinfo(array.dtype)
        table = np.array([integers.min, integers.max, 0, 1, integers.max - 1], array.dtype)
    else:
        return array
    chosen = data.random(array.shape) < data.choice([0.02, 0.1])
    found: Array = np.where(chosen, table[data.integers(0, len(table), array.shape)], array)
    return found


def _is_float(array: Array) -> bool:
    return bool(array.dtype.kind == "f" or array.dtype.name == "bfloat16")


def _in_range(array: Array, dtype: DType) -> bool:
    """Whether floats are numbers of an integer dtype, far enough from its ends that rounding does not matter."""
    if dtype == boolean or array.size == 0:
        return True
    info = np.iinfo(dtype.numpy)
    wide = array.astype(np.float64)
    return bool(np.isfinite(wide).all() and wide.min() > max(info.min, -1e9) and wide.max() < min(info.max, 1e9) - 1)


def points_of(op: Op, types: Sequence[TensorType], results: Sequence[TensorType]) -> int:
    """An estimate of the points of a node's index space: its largest result, once a point of an operand's row."""
    row = int(types[0].shape[-1]) if op.kind == "contraction" and types[0].shape else 1
    return max((int(t.size) for t in results), default=0) * max(row, 1)

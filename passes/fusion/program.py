"""Cascades in clusters as a program: kernels, shared where they are equal, the steps in order, buffers in their spaces.

A cascade that is not in clusters yet has a program, too: the one in which every statement is a kernel of its own. That
is how the steps before `cluster` are printed, parsed, checked and interpreted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from effcc.errors import noting
from effcc.ir.expr import Axis, Load
from effcc.ir.graph import Graph, Value
from effcc.ir.kernel import Kernel, Param, Statement
from effcc.ir.op import normalize_axis
from effcc.ir.program import Buffer, Extern, Join, Launch, Program, Step, fresh_name
from effcc.ir.table.control import COPY_CALL
from effcc.ir.types import TensorType
from effcc.passes.fusion.cascade import Cascade, Opaque
from effcc.passes.fusion.cluster import Cluster, alone
from effcc.passes.fusion.kernels import Cut, cut
from effcc.passes.fusion.split import split_type


@dataclass(frozen=True)
class Part:
    """One of the graphs on its way into a program: what is prepared once, or what every call computes.

    results: the buffers that have to be there afterwards. stored: by output that only renames another value's elements,
    that value, which is stored in its place, and its type there. weights: the parameters worth packing. gathered: the
    values stored anew for a gather. cuts: the dimensions of values cut in two (`effcc.passes.fusion.split`).
    """

    graph: Graph
    cascade: Cascade
    results: frozenset[str]
    stored: Mapping[str, tuple[str, TensorType]]
    weights: frozenset[str] = frozenset()
    gathered: frozenset[str] = frozenset()
    cuts: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    opaque: frozenset[str] = frozenset()

    @property
    def wanted(self) -> frozenset[str]:
        """The values that have to be stored as they are: results, and what is handed to a call or comes from one."""
        return self.results | self.opaque


@dataclass(frozen=True)
class Cascades:
    """What becomes a program: the part of every call, and the one that is prepared, if there is any."""

    main: Part
    prepare: Part | None = None

    @property
    def parts(self) -> tuple[Part, ...]:
        return (self.main,) if self.prepare is None else (self.prepare, self.main)


def program_of(cascades: Cascades, clusters: Callable[[Part], Sequence[Cluster]] | None = None) -> Program:
    """The program of clusters; without any, of statements that are kernels of their own."""
    chosen = clusters or (lambda part: alone(part.cascade))
    main = cascades.main.graph
    builder = _ProgramBuilder(main.name, main.ranges)
    prepared: set[str] = set()
    if cascades.prepare is not None:
        prepare = cascades.prepare
        prepared = {v.name for v in prepare.graph.outputs}
        builder.declare(prepare.graph, dict.fromkeys(prepared, "prepared"))
        _append(prepare, chosen(prepare), builder)
        builder.turn_to_main()
    builder.declare(main, {v.name: "output" for v in main.outputs})
    _append(cascades.main, chosen(cascades.main), builder)
    written = {target for target, _ in main.updates}
    saved = {v: builder.save(v) for _, v in main.updates if v in written}  # its buffer may be written before it is read
    for target, value in main.updates:
        if value is not target:
            builder.copy(saved.get(value, builder.storage.get(value.name, value.name)), target.name)
    inputs = tuple(p.name for p in main.params if p.name not in prepared)
    return builder.finish(inputs, tuple(v.name for v in main.outputs))


def _append(part: Part, clusters: Sequence[Cluster], builder: _ProgramBuilder) -> None:
    """The steps of one graph, in order."""
    builder.storage.update({name: output for output, (name, _) in part.stored.items()})
    builder.types.update(_types(part))
    cut_out = cutter(part, clusters)
    for one in clusters:
        if one.opaque is not None:
            builder.call(one.opaque)
        elif one.items:
            with noting(location="; ".join(i.node.location for i in one.items)):
                builder.launch(cut_out(one))


def cutter(part: Part, clusters: Sequence[Cluster]) -> Callable[[Cluster], Cut]:
    """What makes the kernel of each of a part's clusters."""
    types, readers = _types(part), _readers(clusters)
    whole = {name: (types[name], places) for name, places in part.cuts.items()}
    types.update({name: split_type(type, places) for name, (type, places) in whole.items()})

    def made(one: Cluster) -> Cut:
        return cut(one, part.cascade, _escapes(one, readers, part.results), types, part.weights, whole)

    return made


def _types(part: Part) -> dict[str, TensorType]:
    """Types of buffers as they are stored, behind views too."""
    return {**_stored_types(part.graph, part.cascade), **dict(part.stored.values())}


def _stored_types(graph: Graph, cascade: Cascade) -> dict[str, TensorType]:
    """Types as stored: parameters and outputs as the graph says, everything between row-major."""
    types = {name: t.plain() for name, t in cascade.types.items()}
    types.update({p.name: p.type for p in graph.params})
    types.update({o.name: o.type for o in graph.outputs})
    return types


def _readers(clusters: Sequence[Cluster]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for one in clusters:
        if one.opaque is not None:
            names = [v.name for v in one.opaque.node.operands]
        else:
            names = [load.buffer for i in one.items for load in i.statement.reads]
        for name in names:
            found.setdefault(name, set()).add(one.number)
    return found


def _escapes(one: Cluster, readers: Mapping[str, set[int]], results: frozenset[str]) -> Callable[[str], bool]:
    return lambda name: name in results or bool(readers.get(name, set()) - {one.number})


def copying(of: TensorType, to: TensorType) -> Kernel:
    """The kernel that stores one tensor in another, `update`."""
    axes = tuple(f"i{n}" for n in range(of.rank))
    load = Load("x0", tuple(Axis(a) for a in axes), of.dtype)
    extents = tuple(zip(axes, of.shape, strict=True))
    return Kernel("copy", (Param("x0", of),), (Param("update", to),), extents, (Statement("update", axes, load),))


class _ProgramBuilder:
    """Collects buffers and steps; kernels that are equal but for their name become one."""

    def __init__(self, name: str, ranges: Mapping[str, tuple[int, int | None]]) -> None:
        self.name = name
        self.ranges = ranges
        self.types: dict[str, TensorType] = {}
        self.storage: dict[str, str] = {}
        self.spaces: dict[str, str] = {}
        self.kernels: dict[str, Kernel] = {}
        self.known: dict[Kernel, str] = {}
        self.launched: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}
        self.prepare: list[Step] = []
        self.steps: list[Step] = []
        self.buffers: dict[str, Buffer] = {}

    def declare(self, graph: Graph, spaces: Mapping[str, str]) -> None:
        """Buffers for a graph's parameters; `spaces` says where its results belong."""
        for p in graph.params:
            space = "weight" if p.name in graph.weights else "input"
            self.buffers.setdefault(p.name, Buffer(p.name, p.type, space))
        self.spaces.update(spaces)

    def turn_to_main(self) -> None:
        """What was added so far is what prepares; what follows runs at every call."""
        self.prepare, self.steps, self.launched = self.steps, [], {}

    def launch(self, piece: Cut) -> None:
        params = tuple(self.storage.get(n, n) for n in piece.params)
        outputs = tuple(self.storage.get(n, n) for n in piece.outputs)
        launch = Launch(self._name(piece.kernel), params, outputs, piece.checks)
        before = self.launched.setdefault((launch.kernel, params), outputs)
        alike = all(self.types[a] == self.types[b] for a, b in zip(before, outputs, strict=True))
        if before is not outputs and alike and all(self.spaces.get(n, "arena") == "arena" for n in (*before, *outputs)):
            self.storage.update(zip(outputs, before, strict=True))  # computed already
            return
        self.steps.append(launch)
        self._define(outputs)

    def call(self, opaque: Opaque) -> None:
        node = opaque.node
        results = tuple(v.name for v in node.results)
        if node.op == "concat":
            (joined,) = results
            arguments = tuple(self.storage.get(v.name, v.name) for v in node.operands)
            axis = normalize_axis(int(node.attrs["axis"]), node.result.type.rank)  # type: ignore[arg-type]
            self.steps.append(Join(arguments, (joined,), axis))
            self._define(results)
            return
        kind = node.attrs.get("reason", "control flow" if node.regions else "no-op")
        reason = str(node.attrs.get("why") or kind)
        self.steps.append(
            Extern(
                node.op,
                tuple(self.storage.get(v.name, v.name) for v in node.operands),
                results,
                dict(node.attrs),
                reason,
                node.location,
                node.regions,
            )
        )
        self._define(results)

    def copy(self, source: str, into: str) -> None:
        """A step that stores one buffer's value in another."""
        of, to = self.buffers[source].type, self.buffers[into].type
        if of.dtype.is_carried:
            attrs = {**COPY_CALL, "results": ((of.dtype, of.shape),)}
            self.steps.append(Extern("extern", (source,), (into,), attrs, str(COPY_CALL["reason"])))
            return
        self.steps.append(Launch(self._name(replace(copying(of, to), name="")), (source,), (into,)))

    def save(self, value: Value) -> str:
        """A buffer that keeps an updated parameter's value from before the updates."""
        name = fresh_name(f"{value.name}.before", self.buffers)
        self.buffers[name] = Buffer(name, value.type.plain(), "arena")
        self.copy(value.name, name)
        return name

    def _define(self, names: tuple[str, ...]) -> None:
        for name in names:
            self.buffers.setdefault(name, Buffer(name, self.types[name], self.spaces.get(name, "arena")))

    def _name(self, kernel: Kernel) -> str:
        key = replace(kernel, location="")
        if key not in self.known:
            last = kernel.statements[-1].target
            first = next((s.target for s in kernel.statements if s.reduction is not None), last)
            label = first if first == last else f"{first}_{last}"
            name = fresh_name(label, self.kernels)
            self.known[key] = name
            self.kernels[name] = replace(kernel, name=name)
        return self.known[key]

    def finish(self, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Program:
        return Program(
            self.name, tuple(self.buffers.values()), inputs, outputs, self.kernels, tuple(self.steps),
            tuple(self.prepare), (), dict(self.ranges),
        )  # fmt: skip

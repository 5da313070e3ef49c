"""From a captured FX graph to a `Graph`: every ATen call becomes effcc ops, or one `extern` that PyTorch runs.

`import_graph` walks the graph once. What a call becomes is said by the importers in the files `aten_*.py`, one family
each; `effcc.frontend.coverage` says how much of core ATen they know.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping
from typing import Any

import sympy
import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._pytree import tree_flatten, tree_unflatten

from effcc.errors import CaptureError, IRTypeError, UnsupportedError, noting
from effcc.frontend import (
    aten_activations,
    aten_attention,
    aten_control,
    aten_creation,
    aten_gradients,
    aten_indexing,
    aten_norms,
    aten_pointwise,
    aten_products,
    aten_recurrent,
    aten_reductions,
    aten_segments,
    aten_views,
    aten_windows,
    decode,
    regions,
    requirements,
)
from effcc.frontend.aten_pointwise import as_bool
from effcc.frontend.capture import Signature
from effcc.frontend.drawn_again import example as drawn_example
from effcc.frontend.drawn_again import is_drawn_again
from effcc.frontend.draws import is_random
from effcc.frontend.extern import asked_for, make_template, target_name
from effcc.frontend.facts import Facts
from effcc.frontend.importer import (
    DTYPES,
    Import,
    Importer,
    NotNative,
    aten,
    dtype_of,
    importer_of,
    require_constants,
    type_of,
)
from effcc.frontend.location import location
from effcc.frontend.nodes import (
    as_attribute,
    by_schema,
    carries,
    has_symbols,
    identifier,
    is_input,
    is_token,
    output_layout,
    tensors_only,
)
from effcc.frontend.readings import Reading, readings
from effcc.frontend.refused import refused
from effcc.frontend.separate import separate_axes, with_output_strides, without_dead_nodes
from effcc.frontend.sizes import hints, is_ragged, number, ranges, shape, size
from effcc.frontend.storage_order import addressed_input, begin_of, laid_out, memory_behind, scatter_in_memory
from effcc.ir.dims import Dim, Shape, dim, symbol, symbols
from effcc.ir.dtypes import boolean
from effcc.ir.graph import Graph, GraphBuilder, Value, mentioned_sizes
from effcc.ir.magnitude import Limits
from effcc.ir.program import Extern
from effcc.ir.table.control import COPY_CALL
from effcc.ir.table.create import LARGEST_LITERAL
from effcc.ir.types import TensorType

FAMILIES = (
    aten_activations,
    aten_attention,
    aten_control,
    aten_creation,
    aten_gradients,
    aten_indexing,
    aten_norms,
    aten_pointwise,
    aten_products,
    aten_recurrent,
    aten_reductions,
    aten_segments,
    aten_views,
    aten_windows,
    decode,
    requirements,
)

_IN_ORDER = "random numbers come in eager's order"
_NO_RESULT = "no result is computed that could depend on the assertion"
_CARRIED = "no kernel computes on its dtype"
_LEAVE_OUT = "leave it out of the compiled model with torch.compiler.disable"


@dataclasses.dataclass(frozen=True)
class Given:
    """A result that is the argument at `position`, whatever that is."""

    position: int


Output = Value | Dim | bool | float | Given | None

DTYPE_NAMES = ", ".join(d.name for d in DTYPES.values())

# Overloads that only ask for a size; their nodes carry a SymInt and become one.
SIZES = {
    aten.sym_size.int,
    aten.sym_numel.default,
    aten.sym_stride.int,
    aten.sym_storage_offset.default,
    aten.sym_is_contiguous.default,
}

# Core overloads that PyTorch runs, and why.
EXTERN: dict[Any, str] = {
    aten.nonzero.default: "the size of the result depends on the data",
    aten.masked_scatter.default: "where an element goes depends on all elements before it",
    aten.sort.default: "sorting is not a cascade",
    aten.topk.default: "sorting is not a cascade",
    aten._pdist_forward.default: "the pairs of a triangle are not a box of axes",
    aten._native_batch_norm_legit.default: "it writes its statistics; capture turns it into the functional form",
    aten.atan2.out: "it writes its result in place; capture turns it into atan2",
    aten.resize_.default: "it changes storage, not values",
    aten._local_scalar_dense.default: "it takes a number out of a tensor, to Python",
    aten._fft_c2r.default: "no kernel computes on complex numbers",
    aten._fft_r2c.default: "no kernel computes on complex numbers",
}


@dataclasses.dataclass(frozen=True)
class Imported:
    """A graph, and how a call's values meet it.

    inputs: what each placeholder became: a parameter, a size (to be matched with the graph's size symbols), or None for
        a value that the graph does not read.
    outputs: what each result of the captured graph is: a value (one of `graph.outputs`, in their order), a size, a
        constant, or an argument as it was given.
    constants: further parameters, after those of the placeholders, with their values.
    lone_sizes: size symbols that stand alone in no tensor's shape; for each, a last parameter `bool[s]` that is all one
        element (stride 0) carries it.
    hints: the value of each size symbol in the example inputs.
    readings: where a call's arguments tell each size symbol.
    offsets: by position, at which place of its storage a tensor begins that is addressed from the storage's begin.
    """

    graph: Graph
    inputs: tuple[Value | Dim | None, ...]
    outputs: tuple[Output, ...]
    constants: Mapping[str, Tensor]
    lone_sizes: tuple[str, ...]
    hints: Mapping[str, int]
    readings: Mapping[str, Reading]
    offsets: Mapping[int, int]

    def limits(self) -> Limits:
        """How large the sizes and numbers may be that the graph computes with."""
        told = {name: _LONGEST_AXIS for name, reading in self.readings.items() if reading.axis is not None}
        return Limits.of([*mentioned_sizes(self.graph.nodes), *map(symbol, self.lone_sizes)], told)


_LONGEST_AXIS = 2**40
"""More elements than any axis has."""


def import_graph(graph_module: fx.GraphModule, signature: Signature, name: str = "main") -> Imported:
    """Import a captured graph.

    Raises UnsupportedError for sizes that depend on data, for tensors that are not strided, and for dtypes effcc has no
    counterpart of where they occur in inputs; an op without a native form becomes an `extern` instead.
    """
    return _Walk(graph_module, signature, name).run()


class _Walk:
    """One pass over an FX graph: `known` holds what each node became."""

    def __init__(self, graph_module: fx.GraphModule, signature: Signature, name: str) -> None:
        self.graph_module = graph_module
        self.signature = signature
        self.builder = GraphBuilder(name)
        self.nodes = list(graph_module.graph.nodes)
        examples = [n.meta.get("val") for n in self.nodes if n.op == "placeholder"]
        examples = [e for e in examples if not is_ragged(e)]
        self.builder.ranges = ranges(examples, signature.ranges)
        self.symbols = frozenset(self.builder.ranges)
        self.hints = hints(examples)
        self.importer = Importer(self.builder, self.hints, Facts(examples, self.builder.ranges))
        self.known: dict[fx.Node, Any] = {}
        self.constants: dict[str, Tensor] = {}
        self.inputs: list[Value | Dim | None] = []
        self.updates: dict[Value, Value] = {}
        self.offsets: dict[int, int] = {}
        self.assertions: list[tuple[Value, str, str]] = []

    def run(self) -> Imported:
        outputs: list[Output] = []
        for node in self.nodes:
            if node.op == "placeholder":
                self._placeholder(node)
            elif node.op == "get_attr":
                self.known[node] = self._attribute(node)
            elif node.op == "call_function":
                with noting(node=node):
                    self._call(node)
            elif node.op == "output":
                outputs = self._asserted(self._outputs(node))
        lone_sizes = self._lone_sizes()
        tensors = [(o, s) for o, s in zip(outputs, self.signature.output_strides, strict=True) if isinstance(o, Value)]
        graph = self.builder.build(tuple(o for o, _ in tensors), tuple(self.updates.items()))
        graph = without_dead_nodes(separate_axes(without_dead_nodes(graph)))
        graph = with_output_strides(graph, [output_layout(value.type, strides) for value, strides in tensors])
        final = iter(graph.outputs)
        returned = tuple(next(final) if isinstance(o, Value) else o for o in outputs)
        found = readings(self.inputs)
        return Imported(
            graph, tuple(self.inputs), returned, self.constants, lone_sizes, self.hints, found, self.offsets
        )

    def _placeholder(self, node: fx.Node) -> None:
        position = len(self.inputs)
        example = node.meta.get("val")
        known: Value | Dim | None = None
        if isinstance(example, Tensor) and not is_token(node):
            try:
                type_ = type_of(example)
            except NotNative as error:
                name = self.signature.input_names[position]
                raise UnsupportedError(f"input {name!r}: expected a strided {DTYPE_NAMES}, got {error}") from None
            name = identifier(self.signature.input_names[position])
            type_ = type_.plain() if self.signature.role == "body" else type_
            known = self.builder.param(name, type_, weight=position in self.signature.static_inputs)
        elif isinstance(example, int | torch.SymInt) and not is_ragged(example):
            known = size(example)
        self.known[node] = Given(position) if is_ragged(example) else known
        self.inputs.append(known)

    def _lone_sizes(self) -> tuple[str, ...]:
        """Add a parameter for each size symbol that can be read off no other one."""
        alone = {size.name for p in self.builder.params for size in p.type.shape if isinstance(size, sympy.Symbol)}
        mentioned = symbols(
            [*mentioned_sizes(self.builder.nodes), *(d for p in self.builder.params for d in p.type.sizes)]
        )
        lone = tuple(s.name for s in mentioned if s.name not in alone)
        for name in lone:
            self.builder.param(f"size.{name}", TensorType(boolean, (symbol(name),), (0,)))
        return lone

    def _attribute(self, node: fx.Node) -> Any:
        """A tensor or a submodule that the captured module holds."""
        held: Any = self.graph_module
        for part in str(node.target).split("."):
            held = getattr(held, part)
        if not isinstance(held, Tensor):
            return held
        with unset_fake_temporarily():  # the capture's fake mode refuses real tensors, and constants are real
            return self._constant(str(node.target), held.detach())

    def _constant(self, name: str, held: Tensor) -> Value:
        """A small tensor as a literal, a larger one as a weight that the program holds."""
        dtype = dtype_of(held.dtype)
        literal = held.numel() <= LARGEST_LITERAL and not dtype.is_carried
        if literal and not torch._subclasses.fake_tensor.is_fake(held):
            values = tuple(held.flatten().tolist())
            if held.dim() == 0:
                return self.importer.constant(values[0], dtype)
            return self.importer.emit("constant", value=values, dtype=dtype, shape=tuple(held.shape))
        value = self.builder.param(identifier(name), TensorType(dtype, tuple(held.shape)), weight=True)
        self.constants[value.name] = held.contiguous()
        return value

    def _call(self, node: fx.Node) -> None:
        self.builder.location = location(node)
        self.importer.name = node.name
        example = node.meta.get("val")
        if isinstance(example, torch.SymInt | torch.SymFloat | torch.SymBool | int):
            self.known[node] = self._number(node, example)
        elif node.target is operator.getitem:
            source, index = node.args
            self.known[node] = self.known[source][index]  # type: ignore[index]
        elif node.target is aten.copy_.default:
            self._update(node)
        elif node.target in requirements.ASSERTIONS:
            condition, message = self._arguments((*node.args, requirements.NOTHING_SAID)[:2])
            self.assertions.append((condition, message, self.builder.location))
        elif example is not None or node.users:
            self.known[node] = self._native_or_extern(node)

    def _number(self, node: fx.Node, example: Any) -> Any:
        """A number made of sizes. One that effcc has no form for is no error until something reads it."""
        try:
            known = number(example)
        except UnsupportedError as error:
            return error
        self._require_known(node.target, self.builder.location or node.name, [known])
        return known

    def _update(self, node: fx.Node) -> None:
        """`copy_(input, value)`: what stands behind the input after the call."""
        target, source = (self.known[a] for a in node.args[:2])  # type: ignore[index]
        if not isinstance(target, Value) or target not in self.builder.params:
            raise CaptureError(f"{node.format_node()} writes something that is not an input")
        if carries(node):
            value = self._extern(node, aten.copy.default, (target, source), {}, node.meta["val"], "no-op", _CARRIED)
        else:
            value = self.importer.broadcast(self.importer.cast(source, target.type.dtype), target.type.shape)
        self.updates[target] = value
        self.known[node] = value

    def _native_or_extern(self, node: fx.Node) -> Any:
        target: Any = node.target
        args, kwargs = self._arguments(node.args), self._arguments(node.kwargs)
        if target is torch.ops.higher_order.with_effects:
            _, target, *args = args  # an ordered call: its results follow a token, which only keeps the order
            results = node.meta["val"][1:]
            return (None, *self._extern(node, target, args, kwargs, results, "effect", "its effects keep their order"))
        if is_drawn_again(target):
            leaves, structure = tree_flatten(drawn_example(node))
            drawn = self._extern(node, target, args, kwargs, leaves, "random", _IN_ORDER)
            return tree_unflatten(drawn, structure)
        random = is_random(target)
        why = _IN_ORDER if random else EXTERN.get(target, "effcc has no form for it")
        if target in (aten.as_strided.default, aten.as_strided_copy.default) and not carries(node):
            args = self._on_memory(node, args)
        if target is aten.as_strided_scatter.default and not carries(node):
            return self._scatter(node, *args)
        importer = importer_of(target)
        self.importer.example = node.meta["val"]
        self.importer.results_read = frozenset(n.args[1] for n in node.users if n.target is operator.getitem)  # type: ignore[misc]
        if carries(node):
            importer, why = None, _CARRIED
        if importer is not None and isinstance(target, torch._ops.HigherOrderOperator):
            return self._control(node, importer, args)
        if importer is not None and (said := refused(node)):
            importer, why = None, f"eager refuses it: {said}"
        if importer is not None:
            before = len(self.builder.nodes)
            positional, named = by_schema(target, args, kwargs)
            try:
                require_constants(importer, positional, named)
                return self._conforming(node, importer(self.importer, *positional, **named))
            except NotNative as error:
                self.importer.forget(before)
                why = str(error)
            except IRTypeError:
                # A type rule may be unable to prove for symbolic sizes what eager will check for real ones.
                if not has_symbols(node):
                    raise
                self.importer.forget(before)
                why = "its type cannot be proved for symbolic sizes"
        return self._extern(node, target, args, kwargs, node.meta["val"], "random" if random else "no-op", why)

    def _control(self, node: fx.Node, importer: Import, args: tuple[Any, ...]) -> Any:
        """A call of control flow; the last of its arguments are the operands that every body takes last."""
        where = location(node) or node.name
        bodies = regions.known_bodies(args)
        imported = [import_graph(body, regions.signature(body), f"body_{n}") for n, body in enumerate(bodies.values())]
        graphs = dict(zip(bodies, regions.share_parameters(imported, where), strict=True))
        *given, last = (graphs.get(n, argument) for n, argument in enumerate(args))
        *given, last = (tensors_only(a) if isinstance(a, tuple) else a for a in (*given, last))
        last += regions.further_operands(imported, self.importer, self._constant)
        try:
            made = iter(importer(self.importer, *given, last))
        except UnsupportedError as error:
            raise UnsupportedError(f"{error} (at {where})") from None
        example = node.meta["val"]
        found = tuple(next(made) if isinstance(e, Tensor) else None for e in example)
        self._require_known(node.target, where, [d for v in found if v is not None for d in v.type.shape])
        return found

    def _on_memory(self, node: fx.Node, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments of `as_strided` with a tensor that is row-major in memory in place of its first."""
        viewed: Any = node.args[0]
        _, sizes, strides, *rest = args
        offset = rest[0] if rest and rest[0] is not None else begin_of(viewed)
        memory = memory_behind(viewed, sizes, strides, offset)
        if memory is None:
            where = location(node) or node.name
            raise UnsupportedError(f"{node.target} (at {where}) reads memory that no tensor here fills; {_LEAVE_OUT}")
        if rest and rest[0] is not None:
            self._note_offset(viewed)
        base = self.importer.transpose(self.known[memory.node], memory.perm)
        return (base, sizes, strides, dim(offset - memory.offset))

    def _note_offset(self, node: fx.Node) -> None:
        """Take note that places are counted from the begin of a tensor's storage, which may be an input's."""
        known = addressed_input(node)
        begin = begin_of(known) if known is not None else None
        if known is not None and isinstance(begin, int):
            self.offsets[self.nodes.index(known)] = begin

    def _scatter(self, node: fx.Node, x: Value, source: Value, sizes: Any, strides: Any, offset: Any = None) -> Value:
        """`as_strided_scatter`, which addresses memory as `as_strided` does."""
        written: Any = node.args[0]
        begin = begin_of(written) if offset is None else dim(offset)
        if offset is not None:
            self._note_offset(written)
        where = (tuple(dim(n) for n in sizes), tuple(dim(s) for s in strides), begin)
        return scatter_in_memory(self.importer, x, written, self.importer.cast(source, x.type.dtype), *where)

    def _conforming(self, node: fx.Node, result: Any) -> Any:
        """What an importer gave, in the dtypes that capture saw; a result of another shape is a bug of the importer."""
        example = node.meta.get("val")
        if isinstance(result, tuple) and isinstance(example, list | tuple):
            return tuple(self._conforming_one(node, r, e) for r, e in zip(result, example, strict=True))
        return self._conforming_one(node, result, example)

    def _conforming_one(self, node: fx.Node, value: Any, example: Any) -> Any:
        if not isinstance(value, Value) or not isinstance(example, Tensor):
            return value
        expected = shape(example.shape)
        if self._differ(value.type.shape, expected):
            raise CaptureError(f"{node.format_node()}: expected a result of shape {expected}, imported as {value}")
        return self.importer.cast(value, dtype_of(example.dtype))

    def _differ(self, a: Shape, b: Shape) -> bool:
        """Whether two shapes differ for some sizes that the captured graph is for: for all, or for the examples'."""
        if len(a) != len(b):
            return True
        return any(self.importer.hint(dim(x - y)) not in (0, None) for x, y in zip(a, b, strict=True) if x != y)

    def _extern(self, node: fx.Node, target: Any, args: Any, kwargs: Any, example: Any, reason: str, why: str) -> Any:
        """A call that PyTorch runs; `why` says in words what `reason` classifies."""
        where = location(node) or node.name
        if not isinstance(target, torch._ops.OpOverload) and not is_drawn_again(target):
            name = getattr(target, "__name__", target)
            raise UnsupportedError(f"{name} (at {where}) cannot be compiled; {_LEAVE_OUT}")
        operands, template = make_template(*self._in_eagers_memory(node, (args, kwargs)))
        if isinstance(target, torch._ops.OpOverload):
            example = asked_for(target, args, kwargs, example)
        several = isinstance(example, list | tuple)
        kept = [e for e in (example if several else [example]) if isinstance(e, Tensor)]
        try:
            types = tuple(type_of(e) for e in kept)
        except NotNative as error:
            raise UnsupportedError(f"{target} (at {where}) gives a tensor with {error}; {_LEAVE_OUT}") from None
        self._require_known(target, where, [d for t in types for d in t.shape])
        made = self.importer.node(
            "extern", *operands, target=target_name(target), template=template,
            results=tuple(as_attribute(t) for t in types), reason=reason, why=why,
        )  # fmt: skip
        results = iter(made.results)
        found = tuple(next(results) if isinstance(e, Tensor) else None for e in (example if several else [example]))
        return found if several else found[0]

    def _in_eagers_memory(self, node: fx.Node, arguments: Any) -> Any:
        """The arguments of a call that PyTorch runs, with tensors that lie in memory as eager's do."""
        seen = {self.known[n]: n.meta["val"] for n in node.all_input_nodes if isinstance(self.known.get(n), Value)}

        def place(argument: Any) -> Any:
            if isinstance(argument, list | tuple):
                return tuple(map(place, argument))
            if isinstance(argument, dict):
                return {name: place(a) for name, a in argument.items()}
            known = isinstance(argument, Value) and argument in seen
            return laid_out(self.importer, argument, seen[argument]) if known else argument

        return place(arguments)

    def _require_known(self, target: Any, where: str, sizes: list[Any]) -> None:
        """Refuse sizes that no input tells."""
        sizes = [d for d in sizes if isinstance(d, sympy.Expr)]
        unknown = [s.name for s in symbols(sizes) if s.name not in self.symbols]
        if unknown:
            raise UnsupportedError(
                f"{target} (at {where}) gives sizes that depend on data ({', '.join(unknown)}); {_LEAVE_OUT}"
            )

    def _arguments(self, argument: Any) -> Any:
        """An FX argument with nodes replaced by what they became."""
        if isinstance(argument, fx.Node):
            known = self.known[argument]
            if isinstance(known, UnsupportedError):
                raise known
            return known
        if isinstance(argument, list | tuple):
            return tuple(self._arguments(a) for a in argument)
        if isinstance(argument, dict):
            return {name: self._arguments(a) for name, a in argument.items()}
        return number(argument)

    def _outputs(self, node: fx.Node) -> list[Output]:
        """The results; one that a computation gave back as it was, an input or another result, becomes a tensor of its
        own (a clone)."""
        listed: Any = node.args[0] if isinstance(node.args[0], list | tuple) else [node.args[0]]
        found: list[Output] = []
        for result in listed:
            known: Output = self._arguments(result)
            given = isinstance(known, Value) and known in self.builder.params and not is_input(result)
            if isinstance(known, Value) and (given or (known in found and known not in self.builder.params)):
                self.importer.name = result.name
                known = self._copy(known)
            found.append(known)
        return found

    def _asserted(self, outputs: list[Output]) -> list[Output]:
        """The results, of which the first that is computed depends on what the model asserts; where there is none,
        PyTorch runs the assertions."""
        candidates = [(k, o) for k, o in enumerate(outputs) if isinstance(o, Value) and o not in self.builder.params]
        computed = [k for k, o in candidates if not o.type.dtype.is_carried and 0 not in o.type.shape]
        for condition, message, where in self.assertions:
            self.importer.name, self.builder.location = "asserted", where
            held = as_bool(self.importer, self.importer.reshape(condition, ()))
            if computed:
                first: Any = outputs[computed[0]]
                outputs[computed[0]] = self.importer.emit("require", first, held, message=message)
            else:
                operands, template = make_template((held, message), {})
                target = target_name(aten._assert_async.msg)
                self.importer.node(
                    "extern", *operands, target=target, template=template, results=(), reason="effect", why=_NO_RESULT
                )
        return outputs

    def _copy(self, value: Value) -> Value:
        """The same elements at another place."""
        if not value.type.dtype.is_carried:
            return self.importer.emit("cast", value, dtype=value.type.dtype)
        return self.importer.emit("extern", value, results=(as_attribute(value.type.plain()),), **COPY_CALL)


def call_between(node: fx.Node, reason: str) -> Extern:
    """A call that PyTorch runs between two stages, as an extern that says so."""
    target: Any = node.target
    known = isinstance(target, torch._ops.OpOverload)
    name = target_name(target) if known else str(getattr(target, "__name__", target))
    return Extern("extern", (), (), {"target": name}, reason, location(node))

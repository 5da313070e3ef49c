"""From a PyTorch model to a functional FX graph of ATen operators.

Two ways in, one form out. `aot_backend` finishes what torch.compile began; `capture`, `load_exported` and
`from_exported` go through torch.export. Either way the graph holds ATen overloads (and effcc's own operators), every
node carries its fake tensor in `meta["val"]`, sizes may be symbolic, and the only mutations left are `copy_` nodes
that write an input, at the end. A `Signature` says what the placeholders and results are.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, fx
from torch._dynamo.backends.common import aot_autograd
from torch._functorch._aot_autograd.descriptors import PlainAOTInput, PlainAOTOutput, SavedForBackwardsAOTOutput
from torch._functorch._aot_autograd.schemas import OutputType
from torch._functorch.partitioners import min_cut_rematerialization_partition

from effcc.frontend import recurrent
from effcc.frontend.decompositions import compile_decompositions
from effcc.frontend.draws import return_unread_draws
from effcc.frontend.equal_lengths import ask_attention_lengths
from effcc.frontend.inlined import inline_regions
from effcc.frontend.overlaps import (
    addressed_writes,
    run_addressed_writes_in_eager,
    run_overlapping_in_eager,
    watch_addressed_writes,
    watch_for_overlaps,
)
from effcc.frontend.requirements import keep_checks

Role = Literal["inference", "forward", "backward", "body"]
Strides = tuple[int | torch.SymInt, ...]


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a captured graph's placeholders and results are.

    role: "inference", or the "forward" or "backward" half of a graph that needs gradients, or the "body" of control
        flow, whose operands are row-major whatever their examples were.
    input_names: one per placeholder, in the user's terms where they are known (`encoder.weight`, `input_ids`).
    static_inputs: positions of the placeholders that are parameters, buffers or tensors marked static; their values may
        change between calls.
    mutated_inputs: positions of the placeholders that the graph writes.
    output_strides: for each result the strides that eager would give it, or None where it is no tensor.
    ranges: the ranges that a user declared for torch's size symbols.
    aliases: whether results share memory where eager's do: who gets them may write them.
    input_aliases: positions of the results that are views of inputs, or of what inputs hold after the call.
    saved: positions of the results that only the backward half reads.
    detached: positions of a forward half's results that need no gradient.
    """

    role: Role
    input_names: tuple[str, ...]
    static_inputs: frozenset[int]
    mutated_inputs: frozenset[int]
    output_strides: tuple[Strides | None, ...]
    ranges: Mapping[Any, Any] = dataclasses.field(default_factory=dict)
    aliases: bool = False
    input_aliases: frozenset[int] = frozenset()
    saved: frozenset[int] = frozenset()
    detached: frozenset[int] = frozenset()


CompileFX = Callable[[fx.GraphModule, Sequence[Any], Signature], Callable[..., Any]]
"""A captured graph, its example inputs (fake tensors and SymInts) and its signature, to a callable over real inputs.

The callable takes the placeholders' values in order; one that carries `_boxed_call = True` takes them as one list,
which it may empty to free them early.
"""


def placeholders(graph_module: fx.GraphModule) -> list[fx.Node]:
    """The graph's inputs, in order."""
    return graph_module.graph.find_nodes(op="placeholder")


def results(graph_module: fx.GraphModule) -> list[Any]:
    """The graph's outputs, in order; those that are not computed are constants instead of nodes."""
    returned = graph_module.graph.output_node().args[0]
    return list(returned) if isinstance(returned, list | tuple) else [returned]


def strides(value: Any) -> Strides | None:
    """The strides of a node's (fake) tensor, or None where there is none."""
    meta = value.meta.get("val", value.meta.get("example_value")) if isinstance(value, fx.Node) else value
    return tuple(meta.stride()) if isinstance(meta, Tensor) and meta.layout == torch.strided else None


def mutated_inputs(graph_module: fx.GraphModule) -> frozenset[int]:
    """Positions of the placeholders that a `copy_` writes."""
    written = {
        node.args[0] for node in graph_module.graph.find_nodes(op="call_function", target=torch.ops.aten.copy_.default)
    }
    return frozenset(i for i, node in enumerate(placeholders(graph_module)) if node in written)


def aot_backend(
    graph_module: fx.GraphModule, example_inputs: Sequence[Any], compile_fx: CompileFX
) -> Callable[..., Any]:
    """Finish a torch.compile capture: from Dynamo's graph to a callable that runs what `compile_fx` made of it.

    A graph that needs no gradients is compiled once, with role "inference". One that does is split in two, of which the
    backward half is compiled when it is first needed.
    """
    graph_module = keep_checks(recurrent.keep_recurrent_layers(inline_regions(graph_module)))
    ask_attention_lengths(graph_module)
    addressed = addressed_writes(graph_module)
    in_eager = run_overlapping_in_eager(graph_module) or run_addressed_writes_in_eager(graph_module, addressed)
    if in_eager is not None:
        return in_eager
    unread = return_unread_draws(graph_module)
    user_inputs = [_UserInput.of(node) for node in placeholders(graph_module)]
    user_layouts = [_Layout.of(result) for result in results(graph_module)]

    def compile_as(role: Role) -> Callable[[fx.GraphModule, Sequence[Any]], Callable[..., Any]]:
        def compile_half(half: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
            if role == "forward":
                _let_backward_run_again()
            return compile_fx(half, inputs, _aot_signature(half, role, user_inputs, user_layouts))

        return compile_half

    backend = aot_autograd(
        fw_compiler=compile_as("forward"),
        bw_compiler=compile_as("backward"),
        inference_compiler=compile_as("inference"),
        decompositions=compile_decompositions(),
        partition_fn=min_cut_rematerialization_partition,
        keep_inference_input_mutations=True,
    )
    run = watch_for_overlaps(backend(graph_module, example_inputs), graph_module)
    run = watch_addressed_writes(run, graph_module, addressed)
    return (lambda *inputs: run(*inputs)[:-unread]) if unread else run


def compile_apart(model: Callable[..., Any], compile_fx: CompileFX, **options: Any) -> Callable[..., Any]:
    """`model` under torch.compile with `compile_fx` behind it: as one graph, whatever else was compiled of its code."""

    def backend(graph_module: fx.GraphModule, inputs: Sequence[Any], **_: Any) -> Callable[..., Any]:
        return aot_backend(graph_module, inputs, compile_fx)

    recurrent.let_recurrent_layers_through()
    apart: dict[str, Any] = {"fullgraph": True, "isolate_recompiles": True, **options}
    torch_compile: Any = torch.compile  # whose annotations lack isolate_recompiles
    return torch_compile(model, backend=backend, **apart)


@dataclasses.dataclass(frozen=True)
class _UserInput:
    """A placeholder of Dynamo's graph: its name in the user's terms and whether its tensor is static."""

    name: str
    static: bool

    @staticmethod
    def of(node: fx.Node) -> _UserInput:
        argument = node.meta.get("grapharg")
        source = argument.source.name if argument is not None and argument.source is not None else node.name
        static = "_dynamo_static_input_type" in node.meta.get("tensor_dict", {})
        return _UserInput(_readable(source), static)


@dataclasses.dataclass(frozen=True)
class _Layout:
    """A result of Dynamo's graph as Dynamo saw it: sizes as text, and strides."""

    sizes: tuple[str, ...]
    strides: Strides | None

    @staticmethod
    def of(value: Any) -> _Layout:
        meta = value.meta.get("val", value.meta.get("example_value")) if isinstance(value, fx.Node) else value
        return _Layout(tuple(map(str, meta.shape)) if isinstance(meta, Tensor) else (), strides(value))

    def strides_of(self, output: Any) -> Strides | None:
        """The strides that eager gives the result that AOTAutograd captured as `output`.

        Dynamo may have seen it before the model changed its sizes in place (`t_`).
        """
        captured = _Layout.of(output)
        return self.strides if self.sizes == captured.sizes else captured.strides


def _readable(source: str) -> str:
    """Dynamo's path to a value, shortened: `L['self']._modules['out']._parameters['weight']` is `out.weight`."""
    path = re.sub(r"\._(modules|parameters|buffers)\['([^']*)'\]", r".\2", source)
    path = re.sub(r"^L\['([^']*)'\]", r"\1", path)
    return path.removeprefix("self.").removeprefix("fn.")


def _aot_signature(
    graph_module: fx.GraphModule, role: Role, user_inputs: list[_UserInput], user_layouts: list[_Layout]
) -> Signature:
    names, static = [], set()
    for position, node in enumerate(placeholders(graph_module)):
        description = node.meta.get("desc")
        user_input = user_inputs[description.idx] if isinstance(description, PlainAOTInput) else None
        names.append(user_input.name if user_input else node.name)
        if user_input and user_input.static:
            static.add(position)
    outputs = results(graph_module)
    descriptions = graph_module.graph.output_node().meta.get("desc") or [None] * len(outputs)
    output_strides = [
        user_layouts[description.idx].strides_of(output) if isinstance(description, PlainAOTOutput) else strides(output)
        for output, description in zip(outputs, descriptions, strict=True)
    ]
    aliases = frozenset(position for position, d in enumerate(descriptions) if _is_input_alias(d))
    saved = frozenset(position for position, d in enumerate(descriptions) if isinstance(d, SavedForBackwardsAOTOutput))
    return Signature(
        role,
        tuple(names),
        frozenset(static),
        mutated_inputs(graph_module),
        tuple(output_strides),
        aliases=role != "backward",
        input_aliases=aliases,
        saved=saved,
        detached=frozenset(k for k, d in enumerate(descriptions) if role == "forward" and _is_detached(d)),
    )


def _let_backward_run_again() -> None:
    """Tell AOTAutograd that the backward half leaves what was saved for it as it is.

    Else it refuses `retain_graph=True` after the backward half has run once without.
    """
    context = torch._guards.TracingContext.try_get()
    if context is not None and context.fw_metadata is not None and context.fw_metadata.bw_donated_idxs:
        context.fw_metadata.bw_donated_idxs.clear()


def _is_input_alias(description: Any) -> bool:
    """Whether AOTAutograd makes a result of the user's anew from the input that it shares memory with."""
    known = _output_info(description)
    return known is not None and known.output_type in (OutputType.alias_of_input, OutputType.is_input)


def _is_detached(description: Any) -> bool:
    """Whether a result of the user's needs no gradient."""
    known = _output_info(description)
    return known is not None and not known.requires_grad


def _output_info(description: Any) -> Any:
    """What AOTAutograd, which has just captured a graph, says of a result of the user's; None for other results."""
    context = torch._guards.TracingContext.try_get()
    known = context.fw_metadata if context is not None else None
    if known is None or not isinstance(description, PlainAOTOutput):
        return None
    return known.output_info[description.idx]

"""Ahead of time: from a module, an `ExportedProgram` or a `.pt2` file to the form that `capture` describes."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import logging
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._dynamo.exc import TorchDynamoException
from torch._export.verifier import SpecViolationError
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

import effcc.frontend.decode
import effcc.frontend.light  # noqa: F401 - registers, as the one before it, an operator that files may hold
from effcc.errors import CaptureError
from effcc.frontend.capture import Signature, mutated_inputs, placeholders, results, strides
from effcc.frontend.conditions import conditions
from effcc.frontend.decomposed_quantization import load_operators, lower
from effcc.frontend.decompositions import export_decompositions
from effcc.ir.dims import Dim

_NO_VALUE = object()
_STATE = {InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR}
_WRITES = {OutputKind.BUFFER_MUTATION, OutputKind.USER_INPUT_MUTATION, OutputKind.PARAMETER_MUTATION}


@dataclasses.dataclass(frozen=True)
class Captured:
    """A model captured ahead of time: the graph, and what belongs to its placeholders.

    state: position -> the tensor of a parameter, buffer or constant; these placeholders come first.
    call: takes the model's own arguments to the values of the placeholders after those.
    arguments: the model's parameters by name, each with a value that nests what `leaf(k)` gives for the k-th of those.
    conditions: gives what sizes must fulfil, as functions of them that are 1; raises UnsupportedError where it cannot.
    unflatten: takes the graph's results to what the model returns.
    """

    graph_module: fx.GraphModule
    example_inputs: tuple[Any, ...]
    signature: Signature
    state: Mapping[int, Tensor]
    call: Callable[..., list[Any]]
    unflatten: Callable[[list[Any]], Any]
    arguments: Callable[[Callable[[int], Any]], list[tuple[str, Any]]]
    conditions: Callable[[], tuple[Dim, ...]]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph as it is, with PyTorch's kernels."""
        with torch.no_grad():
            return self.unflatten(list(self.graph_module(*self.state.values(), *self.call(*args, **kwargs))))


def capture(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
) -> Captured:
    """Export `module` as called with `args` and `kwargs`, and bring it into captured form.

    Raises CaptureError where torch.export cannot make one graph of it.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The tensor attributes self._flat_weights")  # nn.LSTM's own bookkeeping
            program = torch.export.export(module, args, kwargs, dynamic_shapes=dynamic_shapes)
    except (RuntimeError, TypeError, ValueError, SpecViolationError, TorchDynamoException) as error:
        raise CaptureError(
            f"torch.export could not capture {type(module).__name__} as one graph: {error}\n"
            "Try torch.compile(model, backend='effcc'), which may break the graph where this cannot."
        ) from error
    return _with_defaults(from_exported(program), module)


def _with_defaults(captured: Captured, module: nn.Module) -> Captured:
    """The capture whose `arguments` are in the order of `forward`, with the defaults that were left out."""
    parameters = inspect.signature(module.forward).parameters
    defaults = {n: p.default for n, p in parameters.items() if p.default is not inspect.Parameter.empty}

    def arguments(leaf: Callable[[int], Any]) -> list[tuple[str, Any]]:
        given = dict(captured.arguments(leaf))
        if not set(given) <= set(parameters):
            return list(given.items())
        plain = (bool, int, float, str, type(None))
        found = {n: given.get(n, defaults.get(n, _NO_VALUE)) for n in parameters}
        return [(n, value) for n, value in found.items() if n in given or isinstance(value, plain)]

    return dataclasses.replace(captured, arguments=arguments)


def load_exported(path: str | os.PathLike[str]) -> ExportedProgram:
    """Read a `.pt2` file that `torch.export.save` wrote. Raises CaptureError where `path` is anything else.

    torch.export.load may unpickle constants: load files you trust.
    """
    file = Path(path)
    if not file.exists():
        raise CaptureError(f"{file}: expected a .pt2 file written by torch.export.save; there is no such file")
    if file.is_dir() or not zipfile.is_zipfile(file):
        found = "a folder" if file.is_dir() else f"{file.stat().st_size} bytes that begin {file.read_bytes()[:8]!r}"
        raise CaptureError(f"{file}: expected a .pt2 file written by torch.export.save (a zip archive), got {found}")
    load_operators()
    logged: list[BaseException] = []
    try:
        with _collected(logging.getLogger("torch.export"), logged):
            return torch.export.load(file)
    except Exception as error:  # whatever a damaged or foreign archive makes the reader raise
        raise CaptureError(
            f"{file}: a zip archive, but torch.export.load (torch {torch.__version__}) cannot read it: "
            f"{': '.join(str(e) for e in logged) or f'{type(error).__name__}: {error}'}\n"
            "Write it again with torch.export.save(torch.export.export(model, args), path)."
        ) from error


@contextlib.contextmanager
def _collected(logger: logging.Logger, errors: list[BaseException]) -> Iterator[None]:
    """Exceptions that a logger would print with their traceback go to `errors` instead."""

    def take(record: logging.LogRecord) -> bool:
        cause = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if cause is not None:
            errors.append(cause)
        return cause is None

    logger.addFilter(take)
    try:
        yield
    finally:
        logger.removeFilter(take)


def from_exported(program: ExportedProgram) -> Captured:
    """Bring an exported program into captured form: decomposed, its mutations written as `copy_`."""
    returned = zip(program.graph_signature.output_specs, results(program.graph_module), strict=True)
    user_strides = tuple(strides(result) for spec, result in returned if spec.kind == OutputKind.USER_OUTPUT)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`isinstance.treespec", FutureWarning)  # torch's own use of its pytree
        lowered = lower(program, export_decompositions())
    graph_module = lowered.graph_module
    signature = lowered.graph_signature
    names, state = [], {}
    for position, spec in enumerate(signature.input_specs):
        if spec.kind in _STATE:
            assert spec.target is not None
            state[position] = _state_tensor(lowered, spec.target)
        elif spec.kind != InputKind.USER_INPUT:
            raise CaptureError(
                f"input {spec.arg.name} is a {spec.kind.name}; effcc takes tensors, numbers and their trees"
            )
        names.append(spec.target or spec.arg.name)
    _drop_assertions(graph_module)
    _write_mutations_in_place(graph_module, lowered)
    example_inputs = tuple(node.meta.get("val") for node in placeholders(graph_module))
    given = example_inputs[len(state) :]
    in_spec, out_spec = lowered.call_spec.in_spec, lowered.call_spec.out_spec
    assert in_spec is not None and out_spec is not None

    def call(*args: Any, **kwargs: Any) -> list[Any]:
        flat, structure = pytree.tree_flatten((args, kwargs))
        if structure != in_spec:
            raise CaptureError(
                f"the arguments' structure differs from the exported one: expected {in_spec}, got {structure}"
            )
        return flat

    return Captured(
        graph_module,
        example_inputs,
        Signature(
            role="inference",
            input_names=tuple(names),
            static_inputs=frozenset(state),
            mutated_inputs=mutated_inputs(graph_module),
            output_strides=user_strides,
            ranges=lowered.range_constraints,
        ),
        state,
        call,
        lambda values: pytree.tree_unflatten(values, out_spec),
        lambda leaf: _arguments(lowered, in_spec, leaf),
        lambda: conditions(program._guards_code, dict(_arguments(lowered, in_spec, given.__getitem__))),
    )


def _arguments(program: ExportedProgram, in_spec: Any, leaf: Callable[[int], Any]) -> list[tuple[str, Any]]:
    """The parameters of an exported model in order, each with its value, whose leaves are `leaf(k)`."""
    args, kwargs = pytree.tree_unflatten([leaf(k) for k in range(in_spec.num_leaves)], in_spec)
    signature = program.module_call_graph[0].signature
    names = list(getattr(signature, "forward_arg_names", None) or ())[: len(args)]
    names += [f"argument_{k}" for k in range(len(names), len(args))]
    return [*zip(names, args, strict=True), *kwargs.items()]


def _state_tensor(program: ExportedProgram, target: str) -> Tensor:
    value = program.state_dict.get(target, program.constants.get(target))
    if not isinstance(value, Tensor):
        raise CaptureError(f"the exported program names {target!r} as a tensor but stores {type(value).__name__}")
    return value.detach()


def _drop_assertions(graph_module: fx.GraphModule) -> None:
    """Remove the checks of a cast's input type, which capture has already made true."""
    check = torch.ops.aten._assert_tensor_metadata.default
    for node in graph_module.graph.find_nodes(op="call_function", target=check):
        graph_module.graph.erase_node(node)


def _write_mutations_in_place(graph_module: fx.GraphModule, program: ExportedProgram) -> None:
    """Turn the results that torch.export returns in place of mutations into `copy_`, and return the others only."""
    graph = graph_module.graph
    by_name = {spec.target: spec.arg.name for spec in program.graph_signature.input_specs if spec.target}
    nodes = {node.name: node for node in placeholders(graph_module)}
    output, returned, kept = graph.output_node(), results(graph_module), []
    for position, spec in enumerate(program.graph_signature.output_specs):
        if spec.kind in _WRITES:
            assert spec.target is not None
            written = nodes[by_name.get(spec.target, spec.target)]
            with graph.inserting_before(output):
                copied = graph.call_function(torch.ops.aten.copy_.default, (written, returned[position]))
                copied.meta = {"val": written.meta["val"]}
        elif spec.kind == OutputKind.USER_OUTPUT:
            kept.append(returned[position])
        else:
            raise CaptureError(
                f"output {spec.arg.name} is a {spec.kind.name}; effcc returns a model's own results only"
            )
    output.args = (tuple(kept),)
    graph_module.recompile()

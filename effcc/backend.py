"""`torch.compile(model, backend="effcc")`: what PyTorch calls with each graph that it traced.

    torch.compile(model, backend="effcc", options={"target": "avx2", "print_after": "fuse"})

The entry point group `torch_dynamo_backends` names `effcc_backend`, so nothing need be imported. A model that needs
gradients is split by AOTAutograd; its forward and backward halves are compiled alike. Every program made here is
remembered as long as it lives, so that `effcc.stats` and `effcc.explain` find what belongs to a callable.
"""

from __future__ import annotations

import functools
import logging
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import CodeType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._dynamo.eval_frame import _debug_get_cache_entry_list, innermost_fn
from torch._dynamo.exc import ShortenTraceback
from torch._dynamo.external_utils import wrap_inline
from torch.multiprocessing.reductions import StorageWeakRef

from effcc.driver import Compiled, Options, compile_graph, require_usable
from effcc.errors import EffccError, InputError, UnknownNameError
from effcc.faults import is_ours, reason_of
from effcc.frontend import capture
from effcc.frontend.aten import Imported, call_between, import_graph
from effcc.frontend.dynamo import bound
from effcc.frontend.extern import bind
from effcc.frontend.float_arguments import name_missing_forms
from effcc.frontend.location import location
from effcc.frontend.recurrent import let_recurrent_layers_through
from effcc.frontend.shared_results import compile_with_views
from effcc.frontend.stages import Refuse, compile_in_stages
from effcc.ir.graph import Graph
from effcc.ir.program import Extern
from effcc.runtime.arguments import thread_count
from effcc.runtime.measure import host_target
from effcc.steps import STEPS, State, show
from effcc.target import Target
from effcc.tuning import require_mode, tuned

log = logging.getLogger(__name__)

OPTIONS = ("fast_math", "mode", "print_after", "target", "threads")

let_recurrent_layers_through()
name_missing_forms()


def effcc_backend(
    graph_module: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Compile one graph of Dynamo's.

    options: `target`, a Target or the name of one; `threads`, how many run a call (default: torch.get_num_threads());
        `fast_math`, whether to rewrite also where results may differ by more than roundings (default: False);
        `print_after`, the name of a step or several, whose results are printed to standard error.
    mode: None, "default", or "max-autotune": time the best few schedules of each kernel (`effcc.tuning`);
        where there are options, torch.compile takes it among them.

    Raises UnknownNameError for an option, a step, a target or a mode that does not exist, InputError for a value of the
    wrong kind, and whatever compilation raises.
    """
    try:
        return _compile(graph_module, example_inputs, read_options(mode, options or {}))
    except EffccError as error:
        raise through_dynamo(error) from error


CompileStage = Callable[[Graph, capture.Signature, tuple[Extern, ...]], Callable[..., Sequence[Tensor]]]
"""A stage's graph, its signature and the calls that PyTorch runs after it, to what runs it on tensors."""
Run = Callable[[list[Any]], Sequence[Any]]
"""A stage in AOTAutograd's convention: it takes the placeholders' values as one list, which it may empty."""
Watch = Callable[[Run, fx.GraphModule, Imported, capture.Signature, Options], Run]
"""Stands between PyTorch and a compiled stage: what runs it, the captured graph, what that was imported to, how it is
called and compiled; to what is run instead."""

_watch: Watch | None = None


def watch(watch: Watch | None) -> None:
    """Have every stage that is compiled from now on run through `watch` (None: no longer); `effcc bisect` does."""
    global _watch
    _watch = watch


def _compile(graph_module: fx.GraphModule, example_inputs: Sequence[Any], chosen: Options) -> Callable[..., Any]:
    target = chosen.target or host_target()
    require_usable(target)
    made: list[weakref.ref[Compiled]] = []
    _REGISTRY.append(_Entry(str(graph_module.meta.get("backend_id", "")), _weights(graph_module), made))

    def compile_stage(graph: Graph, signature: capture.Signature, after: tuple[Extern, ...]) -> Compiled:
        always = signature.role != "inference"
        compiled = compile_graph(graph, replace(chosen, always_prepare=always, remember=True), bind)
        compiled = replace(compiled, between=after)
        made.append(weakref.ref(compiled))
        return compiled

    def refuse(error: Exception, module: fx.GraphModule) -> str:
        if not is_ours(error, target):
            raise error
        made.clear()  # all stages are compiled again
        return reason_of(error, module.print_readable(print_output=False))

    return compile_traced(graph_module, example_inputs, compile_stage, refuse, _watching(chosen))


def watch_exported(
    module: fx.GraphModule, signature: capture.Signature, values: Callable[[], list[Any]], chosen: Options
) -> None:
    """Where somebody watches, make one call of a graph that was exported, with copies of the placeholders' values: it
    is compiled for this process as its package was."""
    wrap = _watching(chosen)
    if wrap is None or not (chosen.target or host_target()).runs_here():
        return
    imported = import_graph(module, signature)
    run = bound(imported, lambda graph, _: compile_graph(graph, chosen, bind), signature, module)
    wrap(run, module, imported, signature)([v.clone() if isinstance(v, Tensor) else v for v in values()])


def _watching(chosen: Options) -> Wrap | None:
    watch = _watch
    if watch is None:
        return None
    return lambda run, module, imported, signature: watch(run, module, imported, signature, chosen)


Wrap = Callable[[Run, fx.GraphModule, Imported, capture.Signature], Run]


def compile_traced(
    graph_module: fx.GraphModule,
    example_inputs: Sequence[Any],
    compile_stage: CompileStage,
    refuse: Refuse,
    wrap: Wrap | None = None,
) -> Callable[..., Any]:
    """From a graph of Dynamo's to a callable: all that effcc's backend does but the compiling of each stage's graph,
    which `compile_stage` does, and what to do with what that raises, which `refuse` says. wrap: what stands between
    PyTorch and each stage."""

    def compile_fx(module: fx.GraphModule, inputs: Sequence[Any], signature: capture.Signature) -> Callable[..., Any]:
        return compile_captured(module, signature, compile_stage, refuse, wrap)

    return capture.aot_backend(graph_module, example_inputs, compile_fx)


def compile_captured(
    graph_module: fx.GraphModule,
    signature: capture.Signature,
    compile_stage: CompileStage,
    refuse: Refuse,
    wrap: Wrap | None = None,
) -> Callable[..., Any]:
    """The same from a captured graph, to a callable in AOTAutograd's convention."""

    def compile_whole(
        module: fx.GraphModule, signature: capture.Signature, between: Sequence[tuple[fx.Node, str]]
    ) -> Callable[..., Any]:
        after = tuple(call_between(node, reason) for node, reason in between if reason)
        imported = import_graph(module, signature)
        if log.isEnabledFor(logging.INFO):
            first = next(filter(None, map(location, module.graph.nodes)), "nowhere")
            log.info("%s graph of %d ops, from %s", signature.role, len(imported.graph.nodes), first)
        for node, reason in between:
            log.info("%s runs in PyTorch%s", node.target, f": {reason}" if reason else "")
        run = bound(imported, lambda graph, s: compile_stage(graph, s, after), signature, module)
        return run if wrap is None else wrap(run, module, imported, signature)

    def compile_rest(module: fx.GraphModule, signature: capture.Signature) -> Callable[..., Any]:
        return compile_in_stages(module, signature, compile_whole, refuse)

    return compile_with_views(graph_module, signature, compile_rest)


def through_dynamo(error: EffccError) -> EffccError:
    """The error as one that Dynamo hands to the user as it is, instead of as `BackendCompilerFailed`."""
    kind = type(error)
    passed: Any = type(kind.__name__, (kind, ShortenTraceback), {"__module__": kind.__module__})
    shown = passed.__new__(passed, *error.args)
    shown.__dict__.update(error.__dict__, first_useful_frame=None)
    found: EffccError = shown
    return found


def read_options(mode: str | None, given: Mapping[str, Any]) -> Options:
    """What a user asked for, checked; see `effcc_backend` for the options and the errors."""
    for name in given:
        if name not in OPTIONS:
            raise UnknownNameError("option", name, OPTIONS)
    mode = given.get("mode", mode)
    require_mode(mode)
    target = given.get("target")
    if isinstance(target, str):
        target = Target.parse(target)
    if not isinstance(target, Target | None):
        raise InputError(f"option 'target': expected a name or a Target, got {target!r}")
    threads = given.get("threads")
    if threads is not None:
        thread_count(threads, "option 'threads'")
    fast_math = given.get("fast_math", False)
    if not isinstance(fast_math, bool):
        raise InputError(f"option 'fast_math': expected True or False, got {fast_math!r}")
    wanted = given.get("print_after", ())
    steps = (wanted,) if isinstance(wanted, str) else wanted
    if not isinstance(steps, list | tuple):
        raise InputError(f"option 'print_after': expected the name of a step or a list of names, got {wanted!r}")
    for step in steps:
        if step not in STEPS:
            raise UnknownNameError("step", str(step), STEPS)

    def see(step: str, state: State) -> None:
        if step in steps:
            print(show(state, step), file=sys.stderr)

    schedules = functools.partial(tuned, threads=threads) if mode == "max-autotune" else None
    return Options(target, see=see if steps else None, threads=threads, fast_math=fast_math, schedules=schedules)


@dataclass(frozen=True)
class _Entry:
    """What was made of one of Dynamo's graphs: its name there, its parameters and buffers, its programs.

    weights: by identity, with their storages. (A weak reference to a tensor would keep `torch.utils.swap_tensors` off.)
    """

    name: str
    weights: Mapping[int, StorageWeakRef | None]
    programs: list[weakref.ref[Compiled]]

    def of(self, own: Mapping[int, Tensor]) -> bool:
        """Whether its weights are all among a module's: the same tensors, with the memory that they had."""
        held = {k: _storage(own[k]) for k in self.weights if k in own}
        return bool(self.weights) and held == self.weights


_REGISTRY: list[_Entry] = []


def programs_of(compiled: Callable[..., Any]) -> list[Compiled]:
    """The programs behind a callable that torch.compile gave, in the order they were made; empty before its first call.

    A module's are those whose parameters and buffers are all its own; a function's (and those of graphs that have
    neither) are found by what Dynamo keeps for the code, and for the frames it resumes in after a graph break.
    """
    _REGISTRY[:] = [e for e in _REGISTRY if not e.programs or any(p() is not None for p in e.programs)]
    model: Any = getattr(compiled, "_orig_mod", None) or innermost_fn(compiled)
    is_module = isinstance(model, nn.Module)
    own: dict[int, Tensor] = {}
    functions, wrapped = [model], []
    if is_module:
        own = {id(t): t for t in (*model.parameters(), *model.buffers())}
        functions, wrapped = [m.forward for m in model.modules()], [wrap_inline(model.forward)]
    names, shared_names = _all_graph_names(functions), _all_graph_names(wrapped)
    if not own:
        names |= shared_names
    found = [e for e in _REGISTRY if e.of(own)]
    found += [e for e in _REGISTRY if e.name in names and not (e.weights and is_module)]
    marks = ("_orig_mod", "_torchdynamo_orig_callable", "_compiled_call_impl")
    if not found and any(getattr(compiled, mark, None) is not None for mark in marks):
        # What was made for another module of the class, and reused.
        found = [e for e in _REGISTRY if e.name in names | shared_names]
    chosen = {id(e) for e in found}
    programs = [p() for e in _REGISTRY if id(e) in chosen for p in e.programs]
    return [p for p in programs if p is not None]


def _all_graph_names(functions: Sequence[Any]) -> set[str]:
    plain = [getattr(f, "__func__", f) for f in functions]
    return {name for f in plain if hasattr(f, "__code__") for name in _graph_names(f, set())}


def _graph_names(function: Any, seen: set[CodeType]) -> Iterator[str]:
    """The names of the graphs that Dynamo's versions of a function, and of the frames it resumes in, call."""
    if function.__code__ in seen:
        return
    seen.add(function.__code__)
    for entry in _debug_get_cache_entry_list(function.__code__):
        for name in entry.code.co_names:
            if name.startswith("__compiled_fn"):
                yield name
            elif name.startswith("__resume") and name in function.__globals__:
                yield from _graph_names(function.__globals__[name], seen)


def _weights(graph_module: fx.GraphModule) -> dict[int, StorageWeakRef | None]:
    """The parameters and buffers among a graph's inputs, by identity, with their storages."""
    found = {}
    for node in capture.placeholders(graph_module):
        argument = node.meta.get("grapharg")
        if "_dynamo_static_input_type" in node.meta.get("tensor_dict", {}) and argument is not None:
            example = argument.example
            if isinstance(example, Tensor):
                found[id(example)] = _storage(example)
    return found


def _storage(tensor: Tensor) -> StorageWeakRef | None:
    return StorageWeakRef(tensor.untyped_storage()) if tensor.layout == torch.strided else None

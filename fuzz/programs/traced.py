"""Programs traced without Dynamo, by `make_fx`: their operators imported and interpreted, their gradients as well.

That takes a twentieth of a second, of which most is PyTorch's; so each importer is met many times a minute. What a
caller sees beside numbers (memory, strides, refusals, other sizes) is seen through `torch.compile`.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call, functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

from effcc.frontend.decompositions import compile_decompositions
from effcc.fuzz.programs.calling import Raised, Seen, calling_mode
from effcc.fuzz.programs.case import Case
from effcc.fuzz.programs.interpreted import interpret_captured
from effcc.fuzz.programs.oracle import Disturbed
from effcc.fuzz.programs.plainly import plain_control_flow
from effcc.fuzz.programs.recorded import Unrecorded, record
from effcc.fuzz.programs.values import indices_beyond, tensor

_FORGETS = re.compile(r"\b(fill|zero|copy|exponential|uniform|normal)_\(|_like\(|\.new_|expand_as|view_as|reshape_as")
"""What reads no more than the shape of a tensor, which then need not be computed, whatever that would refuse."""


def can_be_beyond(case: Case) -> bool:
    """Whether a program has indices, and all that it computes is read."""
    return any("indices(" in i.text for i in case.inputs) and not any(map(_FORGETS.search, case.lines))


@contextlib.contextmanager
def beyond(loaded: Any) -> Iterator[None]:
    """Inputs of a loaded program that are indices have one outside of what they index."""
    names = loaded.inputs.__globals__
    before = names["indices"]
    names["indices"] = indices_beyond
    try:
        yield
    finally:
        names["indices"] = before


class Untraceable(Exception):
    """PyTorch cannot trace a program."""


class Traced:
    """A call of a program, the first by default, as a function of its state and inputs, which it does not write: it
    gives the results, the gradients if the program trains, and what it left in its arguments."""

    def __init__(self, case: Case, loaded: Any, number: int = 0) -> None:
        self._case, self._loaded, self._number = case, loaded, number
        self._program: nn.Module = loaded.Program()
        self._names = list(self._program.state_dict())
        held = self._program.state_dict(keep_vars=True)
        self._learned = [t.requires_grad for t in held.values()] + [i.name in case.learned for i in case.inputs]
        self._given = [t.detach() for t in (*held.values(), *loaded.inputs(**dict(case.calls[number])))]
        self._told: list[str] = []
        self._traced: fx.GraphModule | None = None
        self._weights: list[Tensor] = []  # of the results' elements in the sum that gradients are taken of

    def in_eager(self, disturbed: Disturbed | None = None, plain: bool = True) -> list[Seen | Raised]:
        """All that is given, by eager; plain: with Python's branches and loops."""
        given = [t.clone() for t in self._given]
        with disturbed or nullcontext(), plain_control_flow() if plain else nullcontext():
            try:
                found = self(*given)
            except Exception as error:  # whatever is raised is what is seen
                return [Raised("the call", error)]
            inexact = [disturbed is not None and disturbed.tainted(t) for t in found]
        return [Seen(n, t, (), i) for n, t, i in zip(self._told, found, inexact, strict=True)]

    def interpreted(self) -> list[Seen | Raised]:
        """The same, by the imported graph. Raises Untraceable where there is none."""
        given = [*(t.clone() for t in self._given), *self._weights]
        try:
            graph_module = self._recorded(given)
        except Exception as error:  # what is raised there is PyTorch's
            raise Untraceable(str(error)) from error
        self._traced = graph_module
        try:
            found = interpret_captured(graph_module)(list(given))
        except Exception as error:  # whatever is raised is what is seen
            return [Raised("the call", error)]
        return [Seen(n, t) for n, t in zip(self._told, found, strict=True)]

    def misplaced(self) -> tuple[list[Seen | Raised], list[Seen | Raised], list[Seen | Raised]] | None:
        """What eager, the imported graph and its trace in eager give once more for indices of which one is outside.

        None where there are none that eager refuses.
        """
        assert self._traced is not None
        if not can_be_beyond(self._case):
            return None
        with beyond(self._loaded):
            inputs = self._loaded.inputs(**dict(self._case.calls[self._number]))
        held = self._given[: len(self._given) - len(inputs)]
        right, self._given = self._given, [*held, *(t.detach() for t in inputs)]
        try:
            eager = self.in_eager()
            if not isinstance(eager[0], Raised):
                return None
            read = copy.deepcopy(self._traced)  # what gives nothing that is read may be left out, with what it refuses
            read.graph.eliminate_dead_code()
            read.recompile()
            traces = (interpret_captured(self._traced), lambda given: read(*given))
            return eager, *(self._run_on(run, self._given) for run in traces)  # type: ignore[return-value]
        finally:
            self._given = right

    def _run_on(self, run: Callable[[list[Tensor]], Sequence[Tensor]], given: Sequence[Tensor]) -> list[Seen | Raised]:
        try:
            found = run([*(t.clone() for t in given), *self._weights])
        except Exception as error:  # whatever is raised is what is seen
            return [Raised("the call", error)]
        return [Seen(n, t) for n, t in zip(self._told, found, strict=True)]

    def _recorded(self, given: Sequence[Tensor]) -> fx.GraphModule:
        if not has_control_flow(self._case):
            with contextlib.suppress(Unrecorded):
                return record(self, given)
        graph_module = _trace(self, given)
        if any(_writes(node) for node in graph_module.graph.nodes):
            graph_module = _trace(functionalize(graph_module), given)
        return graph_module

    def traced_at_sizes(self) -> AtSizes:
        """Traced and imported with symbols for its sizes. Raises Untraceable, and what importing raises."""
        traces = []
        try:
            traces.append(_trace(self, self._given, "symbolic"))
            if any(_writes(node) for node in traces[0].graph.nodes):
                traces.append(_trace(functionalize(traces[0]), self._given, "symbolic"))
        except Exception as error:  # what is raised there is PyTorch's
            raise Untraceable(str(error)) from error
        return AtSizes(traces, interpret_captured(traces[-1]))

    def at_sizes(self, trace: AtSizes) -> list[Seen | Raised] | None:
        """The same, by the graph of another call; None if that may not be called with these sizes."""
        if not trace.takes(self._given):
            return None
        try:
            found = trace.run([t.clone() for t in self._given])
        except Exception as error:  # whatever is raised is what is seen
            return [Raised("the call", error)]
        return [Seen(n, t) for n, t in zip(self._told, found, strict=True)]

    def traced_in_eager(self) -> list[Seen | Raised]:
        """The same once more, by PyTorch's kernels in the order of the trace: where that differs, tracing does."""
        assert self._traced is not None
        given = [*(t.clone() for t in self._given), *self._weights]
        return [Seen(n, t) for n, t in zip(self._told, self._traced(*given), strict=True)]

    def traced_in_eager_at_sizes(self, trace: AtSizes) -> list[Seen | Raised]:
        """The same by PyTorch's kernels, in the order of another call's trace."""
        try:
            found = trace.in_eager([t.clone() for t in self._given])
        except Exception as error:  # whatever is raised is what is seen
            return [Raised("the call", error)]
        return [Seen(n, t) for n, t in zip(self._told, found, strict=True)]

    def __call__(self, *given: Tensor) -> list[Tensor]:
        trains = self._case.trains
        copies, weights = [t.clone() for t in given[: len(self._given)]], given[len(self._given) :]
        if trains:
            copies = [t.requires_grad_() if wanted else t for t, wanted in zip(copies, self._learned, strict=True)]
        leaves = [t for t in copies if t.requires_grad]
        count = len(self._names)
        held = dict(zip(self._names, copies, strict=False))
        with calling_mode(self._case):
            made = functional_call(self._program, held, tuple(copies[count:]))
        results = [r for r in tree_leaves(made) if isinstance(r, Tensor)]
        found = [(f"result {k}", r) for k, r in enumerate(results)]
        passed = [r for r in results if r.requires_grad and r.is_floating_point()]
        if trains and leaves and passed:
            if not weights:
                made_of = [tensor(r.shape, torch.float64, "positive", k) for k, r in enumerate(passed)]
                weights = tuple(made_of)
                self._weights = made_of
            weighed = [(r.double() * w).sum() for r, w in zip(passed, weights, strict=True)]
            loss = torch.stack(weighed).sum()
            gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
            found += [(f"the gradient of argument {k}", g) for k, g in enumerate(gradients) if g is not None]
        found += [(f"argument {k} after the call", t) for k, t in enumerate(copies) if not t.requires_grad]
        self._told = [name for name, _ in found]
        return [t.detach() for _, t in found]


@dataclass(frozen=True)
class AtSizes:
    """A call's traces with symbols for sizes, the last of which was imported, and what runs that."""

    traces: Sequence[fx.GraphModule]
    run: Callable[[list[Any]], Sequence[Any]]

    def takes(self, given: Sequence[Tensor]) -> bool:
        """Whether all that tracing and importing took for granted of sizes holds of these."""
        return all(_guards_hold(trace, given) for trace in self.traces)

    def in_eager(self, given: Sequence[Tensor]) -> Sequence[Any]:
        """What the trace gives by PyTorch's kernels."""
        return self.traces[-1](*given)


def _guards_hold(trace: fx.GraphModule, given: Sequence[Tensor]) -> bool:
    examples = [node.meta["val"] for node in trace.graph.find_nodes(op="placeholder")]
    if any(e.dim() != t.dim() for e, t in zip(examples, given, strict=True)):
        return False
    known: dict[Any, int] = {}
    sizes = []
    for example, of in zip(examples, given, strict=True):
        for wanted, size in zip(example.shape, of.shape, strict=True):
            symbolic = isinstance(wanted, torch.SymInt)
            sizes += [wanted] if symbolic else []
            if size != (known.setdefault(wanted.node.expr, size) if symbolic else wanted):
                return False  # sizes that were equal in the first call are one symbol
    if not sizes:
        return True
    return bool(sizes[0].node.shape_env.evaluate_guards_for_args(examples, list(given), ignore_static=False))


def _trace(
    run: Callable[..., Any], given: Sequence[Tensor], mode: Literal["fake", "symbolic"] = "fake"
) -> fx.GraphModule:
    return make_fx(run, compile_decompositions(), tracing_mode=mode, _allow_non_fake_inputs=True)(*given)


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def has_control_flow(case: Case) -> bool:
    """Whether a program calls PyTorch's branches and loops."""
    return any("cond(" in line or "while_loop(" in line for line in case.lines)


def can_be_traced(case: Case, loaded: Any) -> bool:
    """Whether tracing shows what a case is about: no package, no inputs that share memory and of which any is written,
    and no state that an operator writes which is taken apart before that is seen."""
    tensors: Sequence[Any] = [t for t in loaded.inputs(**dict(case.calls[0])) if t.numel()]
    written = case.way != "recorded" and any("batch_norm(" in line for line in case.lines)
    if case.export or written:
        return False
    shared = len({t.untyped_storage().data_ptr() for t in tensors}) < len(tensors)
    return not (shared and any(_IN_PLACE.search(line) for line in case.lines))


_IN_PLACE = re.compile(r"\w_\(|\] *[-+*/&|^@]*= |[-+*/&|^@]= |out=")

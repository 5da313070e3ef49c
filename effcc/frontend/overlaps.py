"""Inputs that share memory with an input that a graph writes.

Captured graphs are functional: reads come before writes, and an input that is written is thought to be the only one
there. AOTAutograd knows better only of inputs that were views of one storage when it captured, and then rebuilds views
of them wrongly in places. So where memory that a graph writes is another input's too, PyTorch runs the graph as Dynamo
traced it, and a warning says so. Views of one storage that do not meet (layers of a cache) are no such case.

So where `as_strided` writes places of an input's storage, which the functional graph counts from the input's begin.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import islpy as isl
import torch
from torch import Tensor, fx
from torch._C._dynamo.guards import compute_overlapping_tensors
from torch._dispatch.python import enable_python_dispatcher
from torch._guards import StorageOverlap, TracingContext
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

Run = Callable[..., Any]


def meeting(
    tensors: Sequence[Tensor], written: Sequence[int], share: Callable[[Tensor, Tensor], bool] | None = None
) -> tuple[int, int] | None:
    """The positions of two tensors with memory in common, the first of which is `written`; None if there are none.

    share: whether two tensors that lie in one stretch of memory have some in common (default: exactly that).
    """
    share = share or _share_elements
    places = sorted((*_place(t), k) for k, t in enumerate(tensors) if t.numel())
    if all(end <= begin for (_, end, _), (begin, _, _) in pairwise(places)):
        return None
    chosen = set(written)
    stretch: list[tuple[int, int]] = []  # the tensors so far whose memory reaches beyond the next one's begin
    for begin, end, k in places:
        stretch = [(e, j) for e, j in stretch if e > begin]
        for _, j in stretch:
            if (k in chosen or j in chosen) and share(tensors[j], tensors[k]):
                return (k, j) if k in chosen else (j, k)
        stretch.append((end, k))
    return None


def _place(t: Tensor) -> tuple[int, int]:
    """The first byte of a tensor's memory, and the one past its last."""
    begin = t.data_ptr()
    last = sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True))
    return begin, begin + (last + 1) * t.dtype.itemsize


def _share_elements(a: Tensor, b: Tensor) -> bool:
    """Whether a byte belongs to both of two tensors: an integer problem in their indices, which isl solves exactly.

    PyTorch's own test (`compute_overlapping_tensors`) counts offsets in elements whatever their dtypes, and takes rows
    of unlike lengths to be apart that are not.
    """
    (ours, our_place), (theirs, their_place) = _bytes_of(a, "i"), _bytes_of(b, "j")
    apart = b.data_ptr() - a.data_ptr()
    names = ", ".join(name for name, _ in (*ours, *theirs))
    conditions = " and ".join(f"0 <= {name} < {size}" for name, size in (*ours, *theirs))
    text = f"{{ [{names}] : {conditions} and {our_place} = {apart} + {their_place} }}"
    return not isl.BasicSet.read_from_str(isl.Context(), text).is_empty()  # a context of its own: threads may ask


def _bytes_of(t: Tensor, name: str) -> tuple[list[tuple[str, int]], str]:
    """Indices with their extents, the last of which counts an element's bytes, and how far a byte is from the first."""
    width = t.dtype.itemsize
    extents = [*t.shape, width]
    steps = [*(step * width for step in t.stride()), 1]
    indices = [f"{name}{k}" for k in range(len(extents))]
    place = " + ".join(f"{step} {index}" for step, index in zip(steps, indices, strict=True))
    return list(zip(indices, extents, strict=True)), place


def _are_merged(a: Tensor, b: Tensor) -> bool:
    """Whether AOTAutograd would make one input of two, or they share memory."""
    return _share_elements(a, b) or (_of_one_storage(a, b) and _pytorch_finds_overlap(a, b))


def _of_one_storage(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage()._cdata == b.untyped_storage()._cdata


def _pytorch_finds_overlap(a: Tensor, b: Tensor) -> bool:
    return len(compute_overlapping_tensors([a, b])) > 0


def run_overlapping_in_eager(graph_module: fx.GraphModule) -> Run | None:
    """The graph as PyTorch runs it, where its example inputs share memory that it writes; else None.

    Dynamo is told to trace again for inputs that share none.
    """
    inputs = _tensor_inputs(graph_module)
    examples = [_example(n) for n in inputs.values()]
    if meeting(examples, range(len(examples)), _are_merged) is None:
        return None
    written = _written(graph_module)
    nodes = list(inputs.values())
    found = meeting(examples, [k for k, n in enumerate(nodes) if n in written], _are_merged)
    if found is None:
        return None
    context = TracingContext.try_get()
    if context is not None and _pytorch_finds_overlap(*(examples[k] for k in found)):  # else the guard fails at once
        sources = [nodes[k].meta["grapharg"].source for k in found]
        context.guards_context.aotautograd_guards.append(StorageOverlap(sources, []))
    _warn(*(_name(nodes[k]) for k in found))
    return graph_module.forward


def addressed_writes(graph_module: fx.GraphModule) -> dict[int, fx.Node]:
    """The inputs, by position, that a graph writes by places counted from the begin of their storage."""
    if not any(name in str(n.target) for n in graph_module.graph.nodes for name in ("as_strided", "fill_diagonal_")):
        return {}
    writes = _noted_writes(graph_module)
    written = writes.storages & writes.addressed
    inputs = _tensor_inputs(graph_module).items()
    return {k: n for k, n in inputs if n.meta["example_value"].untyped_storage()._cdata in written}


def run_addressed_writes_in_eager(graph_module: fx.GraphModule, addressed: Mapping[int, fx.Node]) -> Run | None:
    """The graph as PyTorch runs it, where an input that is written so begins elsewhere; else None."""
    for node in addressed.values():
        if node.meta["example_value"].storage_offset() != 0:
            name = _name(node)
            warnings.warn(f"effcc: PyTorch runs a graph that writes {name} by places of its storage", stacklevel=2)
            return graph_module.forward
    return None


def watch_addressed_writes(run: Run, graph_module: fx.GraphModule, addressed: Mapping[int, fx.Node]) -> Run:
    """A compiled graph that PyTorch runs instead whenever an input that is written so begins elsewhere."""
    if not addressed:
        return run

    def call(*arguments: Any) -> Any:
        begins_elsewhere = any(arguments[k].storage_offset() for k in addressed)
        return (graph_module.forward if begins_elsewhere else run)(*arguments)

    return call


def watch_for_overlaps(run: Run, graph_module: fx.GraphModule) -> Run:
    """A compiled graph that PyTorch runs instead whenever inputs share memory that the graph writes."""
    inputs = _tensor_inputs(graph_module)
    positions, nodes = list(inputs), list(inputs.values())
    written = [k for k, position in enumerate(positions) if position in _mutated(graph_module)]
    if not written or len(nodes) < 2:
        return run
    names = [_name(n) for n in nodes]
    look = Lookout(written, [k for k, n in enumerate(nodes) if _varies(n.meta["example_value"])])
    warned: list[bool] = []

    def call(*arguments: Any) -> Any:
        found = look.meeting([arguments[p] for p in positions])
        if found is not None:
            if not warned:
                warned.append(True)
                _warn(*(names[k] for k in found))
            return graph_module.forward(*arguments)
        return run(*arguments)

    return call


class Lookout:
    """Finds inputs with memory in common, one of which is written, at every call.

    A model has hundreds of weights that stay, and a few inputs that are new at each call. What was found apart stays
    so while it lies where it lay: only what has moved is compared with the others.

    written, varying: the positions of those that are written, and of those whose sizes or strides vary among calls.
    """

    def __init__(self, written: Sequence[int], varying: Sequence[int]) -> None:
        self._written, self._varying = frozenset(written), tuple(varying)
        self._apart: tuple[list[Any], list[tuple[int, int]]] = [], []
        """Where inputs lay that were found apart: what tells it (an address; sizes and strides, too, where they vary),
        and their stretches of memory. One value, for threads may call at the same time."""

    def meeting(self, tensors: Sequence[Tensor]) -> tuple[int, int] | None:
        """The positions of two tensors with memory in common, the first of which is written; None if there are none."""
        lay, places = self._apart
        lie: list[Any] = list(map(Tensor.data_ptr, tensors))
        for k in self._varying:
            lie[k] = lie[k], tensors[k].shape, tensors[k].stride()
        if lie == lay:
            return None
        moved = [k for k, place in enumerate(lie) if not lay or place != lay[k]]
        places = places[:] or [(0, 0)] * len(tensors)
        for k in moved:
            places[k] = _place(tensors[k]) if tensors[k].numel() else (0, 0)
        if len(moved) > _MOST_MOVED:
            near = list(range(len(tensors)))
        else:
            near = sorted({j for k in moved for j in self._near(k, places)})
        found = meeting([tensors[k] for k in near], [at for at, k in enumerate(near) if k in self._written])
        if found is not None:
            return near[found[0]], near[found[1]]
        self._apart = lie, places
        return None

    def _near(self, k: int, places: Sequence[tuple[int, int]]) -> list[int]:
        """An input and those whose stretches of memory meet its own, where one of the two is written."""
        begin, end = places[k]
        others = range(len(places)) if k in self._written else self._written
        found = [j for j in others if places[j][0] < end and begin < places[j][1] and j != k]
        return [k, *found] if found else []


_MOST_MOVED = 16
"""Inputs that are compared with all others one by one; where more have moved, all are sorted."""


def _varies(example: Any) -> bool:
    """Whether a tensor's size or strides are known at the call only."""
    return any(isinstance(n, torch.SymInt) for n in (*example.shape, *example.stride()))


def _name(node: fx.Node) -> str:
    name: str = node.meta["grapharg"].source.name
    return name


def _warn(written: str, other: str) -> None:
    warnings.warn(
        f"effcc: PyTorch runs a graph that writes {written}, because {other} has memory in common with it; "
        "clone one of the two to have it compiled",
        stacklevel=2,
    )


def _tensor_inputs(graph_module: fx.GraphModule) -> dict[int, fx.Node]:
    """The inputs of Dynamo's graph that are plain tensors in memory, by position."""
    return {
        position: node
        for position, node in enumerate(graph_module.graph.find_nodes(op="placeholder"))
        if type(node.meta.get("example_value")) is FakeTensor
        and node.meta["example_value"].layout == torch.strided
        and isinstance(_example(node), Tensor)
    }


def _example(node: fx.Node) -> Any:
    argument = node.meta.get("grapharg")
    return argument.example if argument is not None and argument.is_tensor else None


def _mutated(graph_module: fx.GraphModule) -> set[int]:
    """The inputs of Dynamo's graph that AOTAutograd, which has just captured it, says are written."""
    context = TracingContext.try_get()
    known = context.fw_metadata if context is not None else None
    if known is None:
        return set()
    own = len(known.input_info) - len(
        graph_module.graph.find_nodes(op="placeholder")
    )  # those that the module holds stand first
    return {k - own for k, info in enumerate(known.input_info) if info.mutates_data}


class _Writes(TorchDispatchMode):
    """Notes the storages that calls write, and those of which calls address places."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.storages: set[int] = set()
        self.addressed: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.ops.aten.as_strided.default, torch.ops.aten.fill_diagonal_.default):
            self.addressed.add(args[0].untyped_storage()._cdata)
        if isinstance(func, torch._ops.OpOverload):
            for n, argument in enumerate(func._schema.arguments):
                given = kwargs.get(argument.name, args[n] if n < len(args) else None)
                if argument.alias_info is not None and argument.alias_info.is_write:
                    for t in given if isinstance(given, list | tuple) else [given]:
                        if isinstance(t, Tensor):
                            self.storages.add(t.untyped_storage()._cdata)
        return func(*args, **kwargs)


def _written(graph_module: fx.GraphModule) -> set[fx.Node]:
    """The inputs whose storages Dynamo's graph writes."""
    storages = _noted_writes(graph_module).storages
    nodes = graph_module.graph.find_nodes(op="placeholder")
    given = [n.meta["example_value"] for n in nodes]
    return {
        n for n, g in zip(nodes, given, strict=True)
        if isinstance(g, Tensor) and g.untyped_storage()._cdata in storages
    }  # fmt: skip


def _noted_writes(graph_module: fx.GraphModule) -> _Writes:
    """What Dynamo's graph writes: it is run on fake tensors."""
    given = [n.meta["example_value"] for n in graph_module.graph.find_nodes(op="placeholder")]
    own = [g.detach() if isinstance(g, Tensor) else g for g in given]  # whose shapes may change
    writes = _Writes()
    with ExitStack() as stack:
        fake = next(g.fake_mode for g in given if isinstance(g, FakeTensor))
        stack.enter_context(fake)
        stack.enter_context(enable_python_dispatcher())  # as Dynamo does: some kernels know no run-time sizes
        if fake.shape_env is not None:
            stack.enter_context(fake.shape_env.ignore_fresh_unbacked_symbols())
        stack.enter_context(torch.no_grad())
        stack.enter_context(writes)
        graph_module.forward(*own)
    return writes

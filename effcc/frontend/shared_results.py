"""Results that share memory, as eager's do: with an input, or with one another.

A captured graph is functional, but whoever calls it may write what it returned. So views are taken out of the graph's
results: what they view is computed (or is an input), and each view is made of it after the run, with the sizes, strides
and offset that eager gives it. AOTAutograd reads all three off a view of an input, too.

A view of something that nothing else shares stays a result of its own, so that only the part it shows is computed;
except where its own elements share memory (`expand`).
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from effcc.frontend.capture import Signature, Strides, placeholders, results, strides
from effcc.frontend.importer import same_strides, strided
from effcc.frontend.readings import Reading, readings
from effcc.frontend.sizes import shape, size
from effcc.ir.dims import Dim, Shape, contiguous_strides, dim, evaluate, same_shape, symbols
from effcc.ir.dtypes import boolean
from effcc.ir.graph import Value
from effcc.ir.types import TensorType

CompileRest = Callable[[fx.GraphModule, Signature], Callable[..., Any]]
"""A graph and its signature, to a callable over one list of its inputs."""

_KEPT_SIZES = 256  # for how many assignments of the size symbols places are remembered


@dataclasses.dataclass(frozen=True)
class View:
    """A result that shows memory of `base`: the position of an argument, or of a computed result.

    offset: from the base's first element on, in elements of the view's dtype. detached: it gets no gradient, even
    where the base does.
    """

    of_argument: bool
    base: int
    sizes: Shape
    strides: Shape
    offset: Dim
    dtype: torch.dtype
    conjugated: bool = False
    negated: bool = False
    detached: bool = False

    def at(self, values: Mapping[str, int]) -> View:
        """The view where the size symbols have these values."""
        sizes, steps = (tuple(evaluate(d, values) for d in dims) for dims in (self.sizes, self.strides))
        return dataclasses.replace(self, sizes=sizes, strides=steps, offset=evaluate(self.offset, values))

    def of(self, base: Tensor) -> Tensor:
        """The view of a base, where all sizes are known."""
        sizes: Any = self.sizes
        steps: Any = self.strides
        offset: Any = self.offset
        base = base.detach() if self.detached else base
        if base.dtype == self.dtype:
            seen = base.as_strided(sizes, steps, base.storage_offset() + offset)
        else:
            begin = base.storage_offset() * base.dtype.itemsize // self.dtype.itemsize + offset
            seen = torch.empty(0, dtype=self.dtype).set_(base.untyped_storage(), begin, sizes, steps)
        if self.conjugated != seen.is_conj():
            seen = torch._conj(seen)
        return torch._neg_view(seen) if self.negated != seen.is_neg() else seen


Result = View | int
"""A view, or the position of a computed result."""


def compile_with_views(
    graph_module: fx.GraphModule, signature: Signature, compile_rest: CompileRest
) -> Callable[..., Any]:
    """A captured graph as a callable in AOTAutograd's convention, whose results share memory where eager's do.

    The results of `graph_module` become those that have to be computed.
    """
    if not signature.aliases:
        return compile_rest(graph_module, signature)
    plan = _Plan(graph_module, signature)
    if plan.results == list(range(len(plan.results))):
        return compile_rest(graph_module, signature)
    graph_module.graph.output_node().args = (tuple(plan.computed),)
    run = compile_rest(graph_module, dataclasses.replace(signature, output_strides=tuple(plan.strides)))
    return _assembled(run, plan.results, plan.told)


def root(node: fx.Node) -> fx.Node:
    """The node that made the memory of a node's tensor: an input, or the call whose result is not a view."""
    *_, first = _viewed(node)
    return first


def views_between(node: fx.Node) -> list[fx.Node]:
    """The calls that make a node's tensor of the memory of its root; of several views at once (`split`), that call."""
    *views, _ = _viewed(node)
    return [v.args[0] if v.target is operator.getitem else v for v in views]  # type: ignore[misc]


def untold_views(graph_module: fx.GraphModule) -> list[fx.Node]:
    """The calls that make results of memory of others, where what an input or a result shows depends on data.

    An input's views are among them, results that are views of one tensor, and those whose own elements share memory.
    """
    told = _readings(placeholders(graph_module))
    groups: dict[fx.Node, dict[fx.Node, None]] = {}
    for node in results(graph_module):
        if isinstance(node, fx.Node) and _storage(node):
            groups.setdefault(root(node), {})[node] = None
    found: list[fx.Node] = []
    for base, nodes in groups.items():
        shares = base.op == "placeholder" or len(nodes) > 1 or any(map(_overlaps, nodes))
        if shares and not all(_is_told(n, told) for n in nodes):
            found += [view for n in nodes for view in views_between(n)]
    return found


def _is_told(node: fx.Node, told: Mapping[str, Reading]) -> bool:
    value = node.meta["val"]
    dims = (*shape(value.shape), *shape(value.stride()), size(value.storage_offset()))
    return {s.name for s in symbols(dims)} <= set(told)


def _viewed(node: fx.Node) -> Iterator[fx.Node]:
    """A node, then what it is a view of, and so on."""
    storage = _storage(node)
    while True:
        yield node
        call = node.args[0] if node.target is operator.getitem else node  # one of several views (`split`)
        before = [n for n in call.all_input_nodes if _storage(n) == storage] if isinstance(call, fx.Node) else []
        if not before:
            return
        node = before[0]


def _storage(node: fx.Node) -> int | None:
    value = node.meta.get("val")
    return value.untyped_storage()._cdata if isinstance(value, Tensor) and value.layout == torch.strided else None


def _readings(inputs: Sequence[fx.Node]) -> Mapping[str, Reading]:
    """Where the values of a graph's placeholders tell its size symbols."""
    known: list[Value | Dim | None] = []
    for node in inputs:
        value = node.meta.get("val")
        if isinstance(value, Tensor):
            known.append(Value(node.name, TensorType(boolean, shape(value.shape))))
        else:
            known.append(size(value) if isinstance(value, int | torch.SymInt) else None)
    return readings(known)


def _assembled(run: Callable[..., Any], wanted: Sequence[Result], told: Mapping[str, Reading]) -> Callable[..., Any]:
    """The callable that makes the views of what `run` gives."""
    views = [w for w in wanted if isinstance(w, View)]
    used = {s.name: told[s.name] for v in views for s in symbols([*v.sizes, *v.strides, v.offset])}
    bases = sorted({v.base for v in views if v.of_argument})
    placed: dict[tuple[int, ...], Sequence[Result]] = {}
    if not used:
        placed[()] = [w.at({}) if isinstance(w, View) else w for w in wanted]

    def call(arguments: list[Any]) -> tuple[Any, ...]:
        given = {position: arguments[position] for position in bases}
        key = tuple(reading.value(arguments) for reading in used.values())
        found = placed.get(key)
        if found is None:
            values = dict(zip(used, key, strict=True))
            if len(placed) >= _KEPT_SIZES:
                placed.clear()
            found = placed[key] = [w.at(values) if isinstance(w, View) else w for w in wanted]
        made = run(arguments)
        return tuple(
            made[w] if isinstance(w, int) else w.of(given[w.base] if w.of_argument else made[w.base]) for w in found
        )

    call._boxed_call = True  # type: ignore[attr-defined]
    return call


class _Plan:
    """How each result of a captured graph comes about.

    results: one for each result of the graph. computed: the nodes and constants that the graph has to give, with the
    `strides` that each should have.
    """

    def __init__(self, graph_module: fx.GraphModule, signature: Signature) -> None:
        self.signature = signature
        inputs = placeholders(graph_module)
        self.told = _readings(inputs)
        self.inputs = {node: position for position, node in enumerate(inputs)}
        copies = graph_module.graph.find_nodes(op="call_function", target=torch.ops.aten.copy_.default)
        self.updated = {node.args[1]: node.args[0] for node in copies}
        self.returned = results(graph_module)
        self.roots = [root(n) if isinstance(n, fx.Node) and _storage(n) else None for n in self.returned]
        self.groups: dict[fx.Node, list[int]] = {}
        for position, base in enumerate(self.roots):
            if base is not None:
                self.groups.setdefault(base, []).append(position)
        self.shared = {base for base in self.groups if self._is_shared(base)}
        self.computed: list[Any] = []
        self.strides: list[Strides | None] = []
        self.places: dict[fx.Node, int] = {}
        self.results = [self._result(position) for position in range(len(self.returned))]

    def _is_shared(self, base: fx.Node) -> bool:
        """Whether what a node made is computed whole, and results are views of it."""
        positions = self.groups[base]
        nodes = dict.fromkeys(self.returned[p] for p in positions)
        beside = len(nodes) > 1 and any(p not in self.signature.saved for p in positions)
        if _overlaps(base) or not (beside or any(map(_overlaps, nodes))):
            return False
        return all(map(self._as_captured, positions)) and all(self._is_known(n) and _inside(base, n) for n in nodes)

    def _as_captured(self, position: int) -> bool:
        """Whether eager gives a result the strides that capture saw, so that views of one fit the others."""
        node = self.returned[position]
        lengths = shape(node.meta["val"].shape)
        seen, wanted = strides(node), self.signature.output_strides[position]
        if seen is None or wanted is None:
            return seen is wanted
        a, b = (strided(lengths, shape(s)) for s in (seen, wanted))
        return same_strides(a, b)

    def _is_known(self, node: fx.Node) -> bool:
        """Whether the inputs tell a tensor's place and sizes."""
        return _is_told(node, self.told)

    def _result(self, position: int) -> Result:
        node, base = self.returned[position], self.roots[position]
        if base is None or node in self.inputs:
            return self._place(node, position)
        detached = position in self.signature.detached
        owner = self.updated.get(base, base) if position in self.signature.input_aliases else base
        if owner in self.inputs and self._is_known(node) and _lies_like(owner, base):
            return _view(node, base, True, self.inputs[owner], detached)
        if base in self.shared and node is not base:
            return _view(node, base, False, self._place(base, position, strides(base)), detached)
        return self._with_lone_strides(node, position, self._place(node, position))

    def _with_lone_strides(self, node: fx.Node, position: int, place: int) -> Result:
        """A computed result, seen with eager's strides along axes of size 1, where code has no use for them."""
        value, wanted = node.meta["val"], self.signature.output_strides[position]
        if wanted is None or position in self.signature.saved or not self._is_known(node):
            return place
        lengths, steps = shape(value.shape), shape(wanted)
        stored = strided(lengths, steps) or contiguous_strides(lengths)
        differ = [n for n, a, b in zip(lengths, steps, stored, strict=True) if not same_shape((a,), (b,))]
        if not differ or 0 in lengths or any(n != 1 for n in differ):
            return place
        return View(False, place, lengths, steps, 0, value.dtype)

    def _place(self, node: Any, position: int, wanted: Strides | None = None) -> int:
        """The place of a node's tensor, or of a constant, among what is computed."""
        if isinstance(node, fx.Node) and node in self.places:
            return self.places[node]
        self.computed.append(node)
        self.strides.append(wanted or self.signature.output_strides[position])
        if isinstance(node, fx.Node):
            self.places[node] = len(self.computed) - 1
        return len(self.computed) - 1


def _view(node: fx.Node, base: fx.Node, of_argument: bool, place: int, detached: bool) -> View:
    seen, held = node.meta["val"], base.meta["val"]
    begin = dim(size(held.storage_offset()) * held.dtype.itemsize)
    offset = dim(size(seen.storage_offset()) - begin // seen.dtype.itemsize)
    bits = seen.is_conj(), seen.is_neg(), detached
    return View(of_argument, place, shape(seen.shape), shape(seen.stride()), offset, seen.dtype, *bits)


def _lies_like(owner: fx.Node, base: fx.Node) -> bool:
    """Whether two tensors of one shape lie alike in memory."""
    a, b = (strided(shape(n.meta["val"].shape), shape(n.meta["val"].stride())) for n in (owner, base))
    return owner is base or same_strides(a, b)


def _overlaps(node: fx.Node) -> bool:
    """Whether elements of a tensor share memory; of symbolic strides only 0 is known to make them."""
    value = node.meta["val"]
    if value.layout != torch.strided or 0 in shape(value.shape):
        return False
    axes = [(s, n) for n, s in zip(shape(value.shape), shape(value.stride()), strict=True) if n != 1]
    if not all(isinstance(d, int) for axis in axes for d in axis):
        return any(s == 0 for s, _ in axes)
    extent = 1
    for step, n in sorted(axes):
        if step < extent:
            return True
        extent += (n - 1) * step
    return False


def _inside(base: fx.Node, node: fx.Node) -> bool:
    """Whether a view shows only memory of its base; where sizes are symbols, eager has checked."""
    (first, last), (low, high) = (_bounds(n.meta["val"]) for n in (base, node))
    known = all(isinstance(d, int) for d in (first, last, low, high))
    return not known or (first <= low and high <= last)


def _bounds(value: Tensor) -> tuple[Dim, Dim]:
    """The first byte of a tensor's memory and the one past its last."""
    first = size(value.storage_offset())
    last = first + sum((n - 1) * s for n, s in zip(shape(value.shape), shape(value.stride()), strict=True)) + 1
    return dim(first * value.dtype.itemsize), dim(last * value.dtype.itemsize)

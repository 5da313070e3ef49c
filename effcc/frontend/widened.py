"""The reference that results are measured against: the captured graph, run in float64.

Every floating tensor, constant and `dtype` attribute of the graph is widened, explicit down-casts included, so that
what remains is the model's mathematics. (`model.double()` is not that: norms and masks cast down inside.)

Two kinds of op follow eager instead. A discontinuous op (rounding, comparison, arg-max, cast to integer) is fed eager's
own inputs, or else the reference would take another branch than any float32 run does. Random numbers, and weights that
`effcc::decode` gives, are eager's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from effcc.frontend import capture

aten = torch.ops.aten

_WIDE = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
}

_DISCONTINUOUS = {
    aten.round, aten.floor, aten.ceil, aten.trunc, aten.fix, aten.frac, aten.sign, aten.sgn, aten.heaviside,
    aten.fmod, aten.remainder, aten.floor_divide,
    aten.eq, aten.ne, aten.lt, aten.le, aten.gt, aten.ge, aten.isnan, aten.isinf, aten.isfinite,
    aten.logical_not, aten.logical_and, aten.logical_or, aten.logical_xor,
    aten.argmax, aten.argmin, aten.argsort, aten.bucketize, aten.searchsorted, aten.nonzero,
}  # fmt: skip

# These give values, which are continuous, and indices, which are not.
_INDEX_RESULTS = {
    aten.max, aten.min, aten.median, aten.mode, aten.kthvalue, aten.topk, aten.sort, aten.cummax, aten.cummin,
    aten.max_pool2d_with_indices, aten.max_pool3d_with_indices, aten.adaptive_max_pool2d, aten.adaptive_max_pool3d,
    aten.fractional_max_pool2d,
}  # fmt: skip


def reference(model: nn.Module | Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What `model(*args, **kwargs)` would give in exact enough arithmetic: the same structure, floats as float64.

    Nothing is mutated: tensors that the model would write are written in copies.
    """
    return widened(model)(*args, **kwargs)


def widened(model: nn.Module | Callable[..., Any]) -> Callable[..., Any]:
    """A function that gives the `reference` of each call; the model is captured once for all calls of equal shapes."""

    def compile_fx(graph_module: fx.GraphModule, _: Sequence[Any], __: capture.Signature) -> Callable[..., Any]:
        return lambda *values: run_widened(graph_module, values)

    return torch.no_grad()(capture.compile_apart(model, compile_fx, dynamic=False))


def run_widened(graph_module: fx.GraphModule, values: Sequence[Any]) -> list[Any]:
    """Run a captured graph in float64 over the placeholders' `values`."""
    return run_both(graph_module, values)[1].results


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a captured graph gave, and what its placeholders held afterwards."""

    results: list[Any]
    left: list[Any]


def run_both(graph_module: fx.GraphModule, values: Sequence[Any]) -> tuple[Ran, Ran]:
    """A captured graph run by PyTorch over copies of the placeholders' `values`: as it is, and in float64."""
    eager = _EagerRun(graph_module)
    given = pytree.tree_map_only(Tensor, torch.clone, list(values))
    found = Ran(list(eager.run(*given)), given)
    widened = widen(pytree.tree_map_only(Tensor, torch.clone, list(values)))
    return found, Ran(list(_WidenedRun(graph_module, eager.seen).run(*widened)), widened)


def widen(tree: Any) -> Any:
    """The same tree with floating tensors and dtypes widened to float64."""

    def leaf(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(_WIDE.get(value.dtype, value.dtype))
        return _WIDE.get(value, value) if isinstance(value, torch.dtype) else value

    return pytree.tree_map(leaf, tree)


def takes_eager_inputs(node: fx.Node) -> bool:
    """Whether a node's op is discontinuous in a floating input, as this graph uses it."""
    if not isinstance(node.target, torch._ops.OpOverload) or not any(_floating(n) for n in node.all_input_nodes):
        return False
    packet = node.target.overloadpacket
    if packet in _INDEX_RESULTS:
        return any(user.args[1] != 0 and user.users for user in node.users)  # recorded graphs name all results
    rounds = packet is aten.div and node.kwargs.get("rounding_mode") is not None
    casts = packet in (aten._to_copy, torch.ops.prims.convert_element_type) and not _floating(node)
    reinterprets = node.target is aten.view.dtype
    return packet in _DISCONTINUOUS or rounds or casts or reinterprets


def takes_eager_results(node: fx.Node) -> bool:
    """Whether a node's results are not arithmetic: random numbers, decoded weights."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    return target.name().startswith("effcc::decode") or (
        torch.Tag.nondeterministic_seeded in target.tags and not _drops_nothing(node, target)
    )


def _drops_nothing(node: fx.Node, target: torch._ops.OpOverload) -> bool:
    """Whether an op with a dropout inside, such as fused attention, is called with probability zero: no randomness."""
    given = {a.name: a.default_value for a in target._schema.arguments} | dict(node.kwargs)
    given |= {a.name: value for a, value in zip(target._schema.arguments, node.args, strict=False)}
    return given.get("dropout_p") == 0.0


def _floating(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dtype.is_floating_point


class _Run(fx.Interpreter):
    """Runs a captured graph whatever strides its tensors have.

    Decompositions may give other strides than capture wrote down, under which a `view` need not exist.
    """

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        reshapes = target in (aten.view.default, aten._unsafe_view.default)
        return super().call_function(aten.reshape.default if reshapes else target, args, kwargs)


class _EagerRun(_Run):
    """Runs the graph as it is and keeps what the widened run will ask for."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module)
        self.seen: dict[fx.Node, Any] = {}
        asked = set()
        for node in graph_module.graph.nodes:
            if takes_eager_results(node):
                asked.add(node)
            elif takes_eager_inputs(node):
                asked.update(node.all_input_nodes)
        self.asked = asked

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.asked:
            self.seen[n] = pytree.tree_map_only(Tensor, torch.clone, value)
        return value


class _WidenedRun(_Run):
    """Runs the graph in float64."""

    def __init__(self, graph_module: fx.GraphModule, eager: dict[fx.Node, Any]) -> None:
        super().__init__(graph_module)
        self.eager = eager

    def run_node(self, n: fx.Node) -> Any:
        if takes_eager_results(n):
            return widen(self.eager[n])
        if takes_eager_inputs(n):
            args, kwargs = fx.node.map_arg((n.args, n.kwargs), lambda node: self.eager[node])
            return widen(n.target(*args, **kwargs))  # type: ignore[operator]
        return super().run_node(n)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return super().call_function(_IN_FLOAT64.get(target, target), widen(args), widen(kwargs))

    def get_attr(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return widen(super().get_attr(target, args, kwargs))


def _grouped_mm(x: Tensor, w: Tensor, offs: Tensor | None = None, *_: object, **__: object) -> Tensor:
    """Y[r] = X[r] W[g] for the rows r of group g, which ends at offs[g]: x [T, K], w [G, K, N]; or a batch."""
    if offs is None:
        return x @ w
    ends = [0, *offs.tolist()]
    products = [x[start:end] @ matrix for start, end, matrix in zip(ends, ends[1:], w, strict=False)]
    return torch.cat([*products, x.new_zeros(x.shape[0] - ends[-1], w.shape[-1])])


_IN_FLOAT64 = {aten._grouped_mm.default: _grouped_mm}
"""What PyTorch computes in narrower types alone."""

"""Operators recorded as a program runs in eager, for a tenth of what PyTorch's own tracing of it takes.

What is recorded is what `make_fx` would trace of the same call: a graph of the operators that the importer knows, each
with the shapes, strides and dtypes of its results. Writes, branches and sizes that are symbols are left to `make_fx`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.func import functionalize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from effcc.frontend.decompositions import compile_decompositions

aten = torch.ops.aten
_TO_NUMBERS = (aten._local_scalar_dense, aten.equal, aten.is_nonzero)
_BATCH_NORM = 8  # operands of a batch norm


class Unrecorded(Exception):
    """A call that makes Python's numbers of elements."""


def record(run: Callable[..., Sequence[Tensor]], given: Sequence[Tensor]) -> fx.GraphModule:
    """The graph of a call: a placeholder for each tensor given, and no writes. Raises Unrecorded, and what the call
    raises."""
    module = _recorded(run, given)
    if any(n.op == "call_function" and _writes(n.target) for n in module.graph.nodes):
        module = _recorded(functionalize(module), [t.clone() for t in given])
    return module


def _recorded(run: Callable[..., Sequence[Tensor]], given: Sequence[Tensor]) -> fx.GraphModule:
    recording = _Recording(given)
    with recording:
        results = run(*given)
    return recording.finish(results)


def _writes(func: Any) -> bool:
    return isinstance(func, torch._ops.OpOverload) and func._schema.is_mutable


class _Recording(TorchDispatchMode):
    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__()
        self._decompositions = compile_decompositions()
        self._fake = FakeTensorMode()
        self._constants = nn.Module()
        self._graph = fx.Graph()
        self._known: dict[int, tuple[Tensor, fx.Node]] = {}
        self._seen: dict[fx.Node, Any] = {}  # how what a node gives lies in memory
        for number, tensor in enumerate(given):
            self._keep(self._graph.placeholder(f"arg{number}_1"), tensor)

    def finish(self, results: Sequence[Tensor]) -> fx.GraphModule:
        """The graph that gives these results."""
        self._graph.output([self._node(r) for r in results])
        self._graph.eliminate_dead_code()
        if not any(_writes(node.target) for node in self._graph.nodes):  # else it is recorded once more
            for node in self._graph.nodes:
                if node in self._seen:
                    node.meta["val"] = tree_map_only(_Lies, self._fake_of, self._seen[node])
        return fx.GraphModule(self._constants, self._graph)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten.native_batch_norm.default and len(args) == _BATCH_NORM:
            with self:
                return _batch_norm(*args)
        if func in self._decompositions:
            with self:
                found = self._decompositions[func](*args, **kwargs)
            if found is not NotImplemented:
                return found
        elif isinstance(func, torch._ops.OpOverload):
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        if not isinstance(func, torch._ops.OpOverload) or func.overloadpacket in _TO_NUMBERS:
            raise Unrecorded(str(func))
        results = func(*args, **kwargs)
        operands, named = tree_map_only(Tensor, self._node, (args, kwargs))
        node = self._graph.call_function(func, operands, named)
        if isinstance(results, Tensor):
            self._keep(node, results)
        else:
            self._seen[node] = tree_map_only(Tensor, _Lies, results)
            for number, result in enumerate(results):
                if isinstance(result, Tensor):
                    self._keep(self._graph.call_function(operator.getitem, (node, number)), result)
        return results

    def _keep(self, node: fx.Node, tensor: Tensor) -> None:
        """Take note of what computes a tensor, which must not end before its number is used again."""
        self._seen[node] = _Lies(tensor)
        self._known[id(tensor)] = tensor, node

    def _node(self, tensor: Tensor) -> fx.Node:
        if id(tensor) not in self._known:
            name = f"_tensor_constant{len(list(self._constants.buffers()))}"
            self._constants.register_buffer(name, tensor.detach())
            self._keep(self._graph.get_attr(name), tensor)
        return self._known[id(tensor)][1]

    def _fake_of(self, lies: _Lies) -> Tensor:
        empty = torch.empty_strided(lies.shape, lies.strides, dtype=lies.dtype, device="meta")
        return FakeTensor(self._fake, empty, torch.device("cpu"))


def _batch_norm(x: Any, w: Any, b: Any, mean: Any, variance: Any, training: bool, momentum: float, eps: float) -> Any:
    """A batch norm by the operator whose schema says that it writes the running statistics."""
    if mean is None or variance is None:
        return aten._native_batch_norm_legit.no_stats(x, w, b, training, momentum, eps)
    return aten._native_batch_norm_legit.default(x, w, b, mean, variance, training, momentum, eps)


class _Lies:
    """How a tensor lies in memory."""

    def __init__(self, tensor: Tensor) -> None:
        self.shape, self.strides, self.dtype = tensor.shape, tensor.stride(), tensor.dtype

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
from torch._subclasses import FakeTensorMode
from torch.func import functionalize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map, tree_map_only

from effcc.frontend.decompositions import compile_decompositions

_TO_NUMBERS = (torch.ops.aten._local_scalar_dense, torch.ops.aten.equal, torch.ops.aten.is_nonzero)


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
        self._graph = fx.Graph(self._constants)
        self._known: dict[int, tuple[Tensor, fx.Node]] = {}
        for number, tensor in enumerate(given):
            self._keep(self._graph.placeholder(f"arg{number}_1"), tensor)

    def finish(self, results: Sequence[Tensor]) -> fx.GraphModule:
        """The graph that gives these results."""
        self._graph.output([self._node(r) for r in results])
        self._graph.eliminate_dead_code()
        return fx.GraphModule(self._constants, self._graph)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
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
            node.meta["val"] = tree_map(lambda r: self._seen(r) if isinstance(r, Tensor) else r, results)
            for number, result in enumerate(results):
                if isinstance(result, Tensor):
                    self._keep(self._graph.call_function(operator.getitem, (node, number)), result)
        return results

    def _keep(self, node: fx.Node, tensor: Tensor) -> None:
        """Take note of what computes a tensor, which must not end before its number is used again."""
        node.meta["val"] = self._seen(tensor)
        self._known[id(tensor)] = tensor, node

    def _node(self, tensor: Tensor) -> fx.Node:
        if id(tensor) not in self._known:
            name = f"_tensor_constant{len(list(self._constants.buffers()))}"
            self._constants.register_buffer(name, tensor.detach())
            self._keep(self._graph.get_attr(name), tensor)
        return self._known[id(tensor)][1]

    def _seen(self, tensor: Tensor) -> Tensor:
        """A tensor without elements that is as this one."""
        with self._fake:
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")

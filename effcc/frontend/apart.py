"""Which calls of a captured graph PyTorch runs between the compiled stages, because no tensor of effcc's can stand for
what they read or give: complex, quantized and sparse tensors, lists within results, objects, bodies of operators that
effcc has no form for.

Calls on ordinary tensors for which there is no form are not among them: they become an `extern` inside a stage.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from effcc.frontend.drawn_again import is_drawn_again
from effcc.frontend.importer import DTYPES, REGISTRY, aten

_NUMBERS = (bool, int, float, torch.SymInt, torch.SymFloat, torch.SymBool)
_QUANTIZED = {torch.quint8, torch.qint8, torch.qint32, torch.quint4x2, torch.quint2x4}
_DEQUANTIZE = {aten.dequantize.self, aten.int_repr.default}
_ORDERED = torch.ops.higher_order.with_effects


def calls_apart(graph_module: fx.GraphModule) -> dict[fx.Node, str]:
    """The calls that PyTorch has to run, each with the reason."""
    found: dict[fx.Node, str] = {}
    quantized: set[fx.Node] = set()  # capture takes their results for tensors of floats
    for node in graph_module.graph.nodes:
        if node.op != "call_function":
            continue
        reason = _reason(graph_module, node)
        if _names_quantized(node) or not quantized.isdisjoint(node.all_input_nodes):
            reason = reason or "it reads or gives a quantized tensor"
            quantized |= {node} if node.target not in _DEQUANTIZE else set()
        if reason:
            found[node] = reason
    return found


def holds_strange_inputs(graph_module: fx.GraphModule) -> bool:
    """Whether an input is nothing that a compiled stage can take."""
    inputs = graph_module.graph.find_nodes(op="placeholder")
    return any(strange(n.meta.get("val")) for n in inputs)


def _names_quantized(node: fx.Node) -> bool:
    """Whether one of a call's arguments is the dtype of a quantized tensor."""
    return any(a in _QUANTIZED for a in (*node.args, *node.kwargs.values()) if isinstance(a, torch.dtype))


def _reason(graph_module: fx.GraphModule, node: fx.Node) -> str:
    target = node.target
    if target is _ORDERED or target is operator.getitem:
        return ""
    if isinstance(target, torch._ops.HigherOrderOperator):
        return "" if target in REGISTRY or is_drawn_again(target) else "effcc has no form for it"
    results = node.meta.get("val")
    listed = list(results) if isinstance(results, list | tuple) else [results]
    for value in listed:
        if strange(value) or isinstance(value, list | tuple):
            return f"it gives {strange(value) or 'a list among others'}"
    for read in node.all_input_nodes:
        value = held(graph_module, read) if read.op == "get_attr" else read.meta.get("val")
        if strange(value):
            return f"it reads {strange(value)}"
    return ""


def held(graph_module: fx.GraphModule, node: fx.Node) -> Any:
    """What a `get_attr` node stands for: a tensor or a body that the captured module holds."""
    found: Any = graph_module
    for part in str(node.target).split("."):
        found = getattr(found, part)
    return found


def strange(value: Any) -> str:
    """What a value is that no tensor or number of effcc's can stand for; empty for those that one can."""
    if isinstance(value, list | tuple):
        return next((found for v in value if (found := strange(v))), "")
    if value is None or isinstance(value, _NUMBERS):
        return ""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    if value.layout != torch.strided:
        return f"a tensor of layout {value.layout}"
    return "" if value.dtype in DTYPES else f"a tensor of dtype {value.dtype}"

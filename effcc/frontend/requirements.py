"""What eager refuses of its data and capture would lose: assertions, and operators whose decompositions check nothing.

    effcc::require(Tensor x, Tensor condition, str message) -> Tensor

is `x`; where `condition`, which broadcasts to it, is false, the call raises. The importer makes it the op `require`, a
run-time check in a kernel. `F.one_hot` and `nanquantile` lose theirs before there is any decomposition to replace, so
calls of them are found in Dynamo's graph.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from effcc.errors import RefusedValueError
from effcc.frontend.importer import Importer, imports
from effcc.ir.graph import Value


@torch.library.custom_op("effcc::require", mutates_args=())
def require(x: Tensor, condition: Tensor, message: str) -> Tensor:
    """`x`. Raises RefusedValueError with `message` unless the condition holds for all of its elements."""
    if x.numel() and not bool(condition.all()):
        raise RefusedValueError(message)
    return x.clone()  # results must not alias


@require.register_fake
def _(x: Tensor, condition: Tensor, message: str) -> Tensor:
    return torch.empty_like(x)


require.register_autograd(lambda ctx, gradient: (gradient, None, None))


@imports(torch.ops.effcc.require.default)
def import_require(m: Importer, x: Value, condition: Value, message: str) -> Value:
    return m.emit("require", x, condition, message=message)


def in_unit_interval(x: Tensor, name: str) -> Tensor:
    """`x`, whose elements must be between 0 and 1."""
    return require(x, (x >= 0) & (x <= 1), f"all elements of {name} should be between 0 and 1")


def one_hot(index: Tensor, num_classes: int = -1) -> Tensor:
    """`F.one_hot`, which does not look at the classes where it is traced, written out with its checks."""
    if num_classes == -1 or index.dtype != torch.int64 or num_classes <= 0:
        return F.one_hot(index, num_classes)
    classes = index.unsqueeze(-1)
    found = (classes == torch.arange(num_classes, device=index.device)).to(torch.int64)
    found = require(found, classes >= 0, "Class values must be non-negative.")
    return require(found, classes < num_classes, "Class values must be smaller than num_classes.")


def nanquantile(x: Tensor, q: float | Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`torch.nanquantile`, which does not look at the quantiles where it is traced."""
    if isinstance(q, Tensor):
        q = require(q, (q >= 0) & (q <= 1), "quantile() q values must be in the range [0, 1]")
    return torch.nanquantile(x, q, *args, **kwargs)


def keep_checks(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Point the calls in a Dynamo graph that would lose a check at such as keep it, in place."""
    changed = False
    for node in graph_module.graph.nodes:
        known = _CALLED if node.op == "call_function" else _METHODS if node.op == "call_method" else {}
        if node.target in known:
            node.op, node.target = "call_function", known[node.target]
            changed = True
    if changed:
        graph_module.recompile()
    return graph_module


_CALLED: dict[Any, Any] = {F.one_hot: one_hot, torch._C._nn.one_hot: one_hot, torch.nanquantile: nanquantile}
_METHODS: dict[Any, Any] = {"nanquantile": nanquantile}

ASSERTIONS = (torch.ops.aten._assert_async.default, torch.ops.aten._assert_async.msg)
"""Calls that raise unless their first argument, a tensor of one element, is true; the second is the message."""

NOTHING_SAID = "Expected Tensor with single nonzero value, but got zero"
"""What eager says where an assertion has no message."""

for _assertion in ASSERTIONS:
    fx.node.has_side_effect(_assertion)  # captures drop the one without a message as dead

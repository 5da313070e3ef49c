"""Equal lengths in attention: what a call of it needs, PyTorch's capture does not ask where each length is a symbol.

Products ask that their depths are equal, and every later call is checked for it. The fused attention of a CPU takes
keys and values, and a mask, of lengths that are unrelated symbols, as they are of tensors that a user marked dynamic
one by one, and no kernel could be written for these. Here its arguments are asked for what must be equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch.nn.functional as F
from torch import Tensor, fx


def ask_attention_lengths(graph_module: fx.GraphModule) -> None:
    """Have torch's shape environment hold, as guards of the graph, that lengths are equal which are so in its example.

    Of queries [..., m, d], keys [..., n, d], values [..., n, f] and a mask that broadcasts to [..., m, n]. A later call
    with other lengths is captured anew. Lengths that are not equal in the example are left as they are.
    """
    for node in graph_module.graph.find_nodes(op="call_function", target=F.scaled_dot_product_attention):
        for one, other in _pairs(*_arguments(node)):
            if _is_unknown(one) or _is_unknown(other):
                bool(one == other)  # the comparison is the guard


def _arguments(node: fx.Node) -> tuple[Any, ...]:
    """Examples of queries, keys, values and mask, None for what is not there."""
    names = ("query", "key", "value", "attn_mask")
    given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    found = (given.get(name) for name in names)
    return tuple(x.meta.get("example_value") if isinstance(x, fx.Node) else None for x in found)


def _pairs(q: Any, k: Any, v: Any, mask: Any) -> Iterator[tuple[Any, Any]]:
    """Lengths that must be equal."""
    if not all(isinstance(x, Tensor) and x.dim() >= 2 for x in (q, k, v)):
        return
    yield k.shape[-2], v.shape[-2]
    if isinstance(mask, Tensor):
        scores = (*q.shape[:-1], k.shape[-2])
        yield from ((n, m) for n, m in zip(reversed(scores), reversed(mask.shape), strict=False) if _is_long(m))


def _is_unknown(length: Any) -> bool:
    return not isinstance(length, int)


def _is_long(length: Any) -> bool:
    """Whether a mask's length is not one that is broadcast: torch takes sizes that it does not know as at least 2."""
    return _is_unknown(length) or length != 1


__all__ = ["ask_attention_lengths"]

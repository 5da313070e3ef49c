"""Importers of attention: products, scale, mask and softmax apart, so that its one-pass kernel can be derived.

Capture keeps PyTorch's fused operator and its gradient, which belong together: the second result of the one, the
logarithm of each row's sum of exponentials, is what the other reads.
"""

from __future__ import annotations

import math

from effcc.frontend.aten_reductions import reduce
from effcc.frontend.importer import Importer, NotNative, Operand, aten, imports
from effcc.ir.dims import Dim, same
from effcc.ir.graph import Value


def _scores(m: Importer, q: Value, k: Value, mask: Value | None, causal: bool, scale: Operand) -> Value:
    """`scale * q k^T + mask`; -inf above the diagonal where `causal`."""
    scores = m.elementwise("mul", m.emit("matmul", q, _turned(m, k)), scale)
    if mask is not None:
        scores = m.elementwise("add", scores, m.cast(mask, scores.type.dtype))
    if causal:
        lowest = m.constant(-math.inf, scores.type.dtype)
        row, column = m.unit(m.emit("iota", size=q.type.shape[-2]), 1), m.emit("iota", size=k.type.shape[-2])
        scores = m.emit("where", m.emit("le", column, row), scores, lowest)
    return scores


def _turned(m: Importer, x: Value) -> Value:
    """Matrices with rows as columns."""
    return m.transpose(x, (*range(x.type.rank - 2), x.type.rank - 1, x.type.rank - 2))


def _factor(m: Importer, q: Value, scale: float | None, dropout: float) -> Operand:
    """The factor of the scores: 1 / sqrt(width) unless given."""
    width = q.type.shape[-1]
    if dropout or q.type.rank != 4:
        raise NotNative("attention with dropout")
    if scale is not None:
        return scale
    if isinstance(width, int):
        return float(width) ** -0.5
    return m.emit("rsqrt", m.constant(width, q.type.dtype.accumulator))


def _for_every_head(m: Importer, x: Value, heads: Dim) -> Value:
    """Keys or values with fewer heads than the queries (grouped-query attention, arXiv:2305.13245), each repeated."""
    batch, own, length, width = x.type.shape
    if same(own, heads):
        return x
    if not isinstance(own, int) or not isinstance(heads, int) or heads % own:
        raise NotNative("attention whose numbers of heads do not divide")
    spread = m.broadcast(m.reshape(x, (batch, own, 1, length, width)), (batch, own, heads // own, length, width))
    return m.reshape(spread, (batch, heads, length, width))


def _in_groups(m: Importer, x: Value, heads: Dim) -> Value:
    """What belongs to queries, with their heads in groups that share one of so many heads of keys: an axis more."""
    batch, own, *rest = x.type.shape
    if same(own, 1):
        return m.unit(x, 1)
    assert isinstance(own, int) and isinstance(heads, int)
    return m.reshape(x, (batch, heads, own // heads, *rest))


@imports(aten._scaled_dot_product_flash_attention_for_cpu.default)
def attention(
    m: Importer, q: Value, k: Value, v: Value, dropout: float = 0.0, causal: bool = False, *,
    attn_mask: Value | None = None, scale: float | None = None,
) -> tuple[Value, Value]:  # fmt: skip
    """`softmax(scale * q k^T + mask) v`, in f32 for half types, and each row's `log(sum(exp(scores)))`.

    A row of which nothing may be seen gives zeros, in both.
    """
    factor, dtype, wide = _factor(m, q, scale, dropout), q.type.dtype, q.type.dtype.accumulator
    q, k, v = (m.cast(x, wide) for x in (q, k, v))
    k, v = (_for_every_head(m, x, q.type.shape[1]) for x in (k, v))
    scores = _scores(m, q, k, attn_mask, causal, factor)
    if 1 not in m.results_read:
        weights = m.emit("softmax", scores, axis=3, safe=attn_mask is not None)
        unread = m.broadcast(m.constant(0.0, wide), q.type.shape[:3])
        return m.cast(m.emit("matmul", weights, v), dtype), unread
    # Both results are made of one maximum and one sum, so that one pass over the keys gives both.
    low, zero = m.constant(-math.inf, wide), m.constant(0.0, wide)
    peak = reduce(m, "max", scores, (3,), keepdim=True)
    hidden = m.emit("eq", peak, low)
    shift = m.emit("where", hidden, zero, peak)
    powers = m.emit("exp", m.emit("sub", scores, shift))
    total = reduce(m, "sum", powers, (3,), keepdim=True)
    weights = m.emit("div", powers, m.emit("where", hidden, m.constant(1.0, wide), total))
    result = m.cast(m.emit("matmul", weights, v), dtype)
    log_sum = m.emit("where", hidden, zero, m.emit("add", m.emit("log", total), shift))
    return result, m.reshape(log_sum, log_sum.type.shape[:3])


@imports(aten._scaled_dot_product_flash_attention_for_cpu_backward.default)
def attention_backward(
    m: Importer, grad: Value, q: Value, k: Value, v: Value, out: Value, log_sum: Value, dropout: float, causal: bool,
    *, attn_mask: Value | None = None, scale: float | None = None,
) -> tuple[Value, Value, Value]:  # fmt: skip
    """Gradients of `attention` for q, k and v, whose weights are found again from the rows' log-sum-exp.

    `P = exp(S - L)`, `dV = P^T dO`, `dS = P * (dO V^T - rowsum(dO * O))`, `dQ = scale * dS K`, `dK = scale * dS^T Q`
    (Dao et al., arXiv:2205.14135).
    """
    factor, dtype, wide = _factor(m, q, scale, dropout), q.type.dtype, q.type.dtype.accumulator
    heads, read = k.type.shape[1], q.type.shape[1]
    grad, q, k, v, out, log_sum = (m.cast(x, wide) for x in (grad, q, k, v, out, log_sum))
    shape, columns = q.type.shape, "abmn,abmd->abnd"
    if not same(heads, read):
        if not isinstance(heads, int) or not isinstance(read, int) or read % heads:
            raise NotNative("the gradient of attention whose numbers of heads do not divide")
        grad, q, out, log_sum = (_in_groups(m, x, heads) for x in (grad, q, out, log_sum))
        k, v = m.unit(k, 2), m.unit(v, 2)
        if attn_mask is not None and attn_mask.type.rank == 4:
            attn_mask = _in_groups(m, attn_mask, heads)
        columns = "abgmn,abgmd->abnd"
    scores = _scores(m, q, k, attn_mask, causal, factor)
    weights = m.emit("exp", m.elementwise("sub", scores, m.unit(log_sum, log_sum.type.rank)))
    dv = m.emit("einsum", weights, grad, spec=columns)
    rows = reduce(m, "sum", m.emit("mul", grad, out), (grad.type.rank - 1,), keepdim=True)
    inner = m.emit("mul", weights, m.emit("sub", m.emit("matmul", grad, _turned(m, v)), rows))
    dq = m.reshape(m.elementwise("mul", m.emit("matmul", inner, k), factor), shape)
    dk = m.elementwise("mul", m.emit("einsum", inner, q, spec=columns), factor)
    return m.cast(dq, dtype), m.cast(dk, dtype), m.cast(dv, dtype)

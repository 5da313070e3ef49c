"""Importers of activations and blends: half types are rounded once, at the end."""

from __future__ import annotations

from typing import Any

from effcc.frontend.importer import Importer, Operand, aten, imports
from effcc.ir.graph import Value


@imports(aten.gelu.default)
def gelu(m: Importer, x: Value, approximate: str = "none") -> Value:
    return m.emit("gelu", x, approximate=approximate)


@imports(aten.silu.default)
def silu(m: Importer, x: Value) -> Value:
    return m.emit("silu", x)


@imports(aten.elu.default)
def elu(m: Importer, x: Value, alpha: Any = 1, scale: Any = 1, input_scale: Any = 1) -> Value:
    """x < 0 ? alpha * scale * (exp(x * input_scale) - 1) : scale * x."""
    wide = m.accurate(x, x.type.dtype)
    factor, slope, inner = (m.constant(v, wide.type.dtype) for v in (alpha * scale, scale, input_scale))
    below = m.emit("mul", m.emit("expm1", m.emit("mul", wide, inner)), factor)
    negative = m.emit("lt", wide, m.constant(0, wide.type.dtype))
    return m.cast(m.emit("where", negative, below, m.emit("mul", wide, slope)), x.type.dtype)


@imports(aten.lerp.Tensor, aten.lerp.Scalar)
def lerp(m: Importer, a: Value, b: Value, weight: Operand) -> Value:
    """a + weight * (b - a), or b + (weight - 1) * (b - a) where that is nearer; a tensor of weights is rounded."""
    dtype = a.type.dtype
    start, end = m.accurate(a, dtype), m.accurate(b, dtype)
    wide = start.type.dtype
    span = m.emit("sub", end, start)
    if isinstance(weight, Value):
        share = m.accurate(weight, dtype)
        half, one = m.constant(0.5, wide), m.constant(1, wide)
        from_end = m.emit("add", end, m.emit("mul", m.emit("sub", share, one), span))
        from_start = m.emit("add", start, m.emit("mul", share, span))
        found = m.emit("where", m.emit("lt", m.emit("abs", share), half), from_start, from_end)
    elif abs(weight) < 0.5:
        found = m.emit("add", start, m.emit("mul", span, m.constant(weight, wide)))
    else:
        found = m.emit("add", end, m.emit("mul", span, m.constant(weight - 1, wide)))
    return m.cast(found, dtype)

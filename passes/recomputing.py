"""What it costs to compute a value again, for passes that would rather do so than keep it, or must not."""

from __future__ import annotations

from effcc.ir.op import Op

_TRANSCENDENTAL = frozenset(
    {"exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "pow", "erf", "erfc", "lgamma", "sigmoid", "silu", "gelu"}
    | {"sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh"}
)
_OF_KIND = {"view": 0, "create": 0, "gather": 1, "norm": 8, "contraction": 64, "opaque": 64, "control": 256}
_OTHER = 4


def cost(op: Op) -> int:
    """What recomputing one result element costs, roughly, in simple operations."""
    if op.kind == "pointwise":
        return 4 if op.name in _TRANSCENDENTAL else 1
    return _OF_KIND.get(op.kind, _OTHER)

"""Between which numbers a value lies, as far as its operators alone tell: what was clamped stays within its bounds.

    q = cast<i8>(minimum(maximum(round(x), -63), 63))          -63 <= q <= 63

NaN is in no range; what an integer made of it is, nobody knows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from effcc.ir.dtypes import DType, i7, l8
from effcc.ir.graph import Node, Value

Range = tuple[float, float]

_MOST_STEPS = 12
"""So many operators before a value are looked at: a clamp is near what it bounds, and `x + relu(x)` again and again has
twice as many ways to its beginning each time."""
_ANY: Range = (-math.inf, math.inf)
_RULES: Mapping[str, Callable[..., Range]] = {
    "maximum": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "minimum": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "relu": lambda a: (max(a[0], 0.0), max(a[1], 0.0)),
    "add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "sub": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "neg": lambda a: (-a[1], -a[0]),
    "round": lambda a: (_whole(a[0]), _whole(a[1])),
    **dict.fromkeys(("cast", "reshape", "transpose", "slice", "expand"), lambda a: a),
}


def range_of(value: Value, producers: Mapping[Value, Node], steps: int = _MOST_STEPS) -> Range:
    """The least and the largest number that a value may be."""
    node, known = producers.get(value), _of_dtype(value.type.dtype)
    if node is None or steps == 0:
        return known
    if node.op == "constant":
        number = float(node.attrs["value"])  # type: ignore[arg-type]
        return known if math.isnan(number) else (number, number)
    if node.op not in _RULES or len(node.results) != 1:
        return known
    least, most = _RULES[node.op](*(range_of(o, producers, steps - 1) for o in node.operands))
    if value.type.dtype.is_integer:
        least, most = (x if math.isinf(x) else float(math.trunc(x)) for x in (least, most))
    return (least, most) if known[0] <= least and most <= known[1] else known  # beyond, integers wrap around


def zero_point(value: Value, codes: DType, producers: Mapping[Value, Node]) -> int | None:
    """The constant that is taken away from codes of a dtype, where it is one of those that they may be."""
    made = producers.get(value)
    number = made.attrs.get("value") if made is not None and made.op == "constant" else None
    if not isinstance(number, int | float) or not math.isfinite(number) or number != int(number):
        return None
    least, most = _of_dtype(codes)
    return int(number) if least <= number <= most else None


def _of_dtype(dtype: DType) -> Range:
    if not dtype.is_integer:
        return _ANY
    if dtype in (i7, l8):
        return -64.0, 63.0
    info = np.iinfo(dtype.numpy)
    return float(info.min), float(info.max)


def _whole(x: float) -> float:
    return x if math.isinf(x) else float(round(x))

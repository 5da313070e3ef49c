"""Functions of floats over all magnitudes, each element within some units in the last place.

Elsewhere an error counts beside the largest element of a result, so that a function may be wrong where it is small: an
exponential that is 0 too early, a logarithm of denormals, a cancellation near 0. Bounds are the worst errors over all
floats (`benchmarks/ulp.md`) and a half more; of half types, which are computed in f32 and rounded once, hardly more
than a half.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from effcc.ir.dtypes import DType, bf16, f16, f32
from effcc.ir.graph import Graph
from effcc.ir.ops import TABLE

if TYPE_CHECKING:
    from effcc.fuzz.sketch import Sketch

ULPS = {
    "exp": 1.1, "exp2": 1.1, "expm1": 1.5, "log": 0.9, "log2": 1.9, "log10": 1.9, "log1p": 1.5, "tanh": 1.4,
    "sigmoid": 2.5, "erf": 1.2, "erfc": 4.9, "sin": 2.3, "cos": 2.3, "tan": 3.2, "asin": 1.7, "acos": 1.1, "atan": 1.9,
    "sqrt": 0.5, "rsqrt": 1.5, "sinh": 1.5, "cosh": 1.5, "asinh": 1.5, "acosh": 1.5, "atanh": 1.5,
}  # fmt: skip
SLACK = 0.5
OF_HALVES = 0.6
TOGETHER = 9
"""Functions in one graph: a campaign of minutes is to see all of them."""
_WHERE_IT_TURNS = {
    "exp": (-110.0, 92.0), "exp2": (-152.0, 130.0), "expm1": (-30.0, 90.0), "erfc": (-4.0, 10.5), "erf": (-4.5, 4.5),
    "tanh": (-1.5, 1.5), "sigmoid": (-105.0, 20.0), "log1p": (-1.0, 2.0), "asin": (-1.0, 1.0), "acos": (-1.0, 1.0),
    "atanh": (-1.0, 1.0), "sinh": (-90.0, 90.0), "cosh": (-90.0, 90.0),
}  # fmt: skip


def functions_of(graph: Graph) -> tuple[str, ...]:
    """The function that each result is, of a parameter but for moves before it, "" where it is a parameter; nothing for
    a graph of anything else."""
    producers = graph.producers()
    computed = [n for n in graph.nodes if TABLE[n.op].kind != "view"]
    values = [*graph.params, *(r for n in graph.nodes for r in n.results)]
    known = all(v.type.dtype in (f32, f16, bf16) for v in values) and all(n.op in ULPS for n in computed)
    between = {o for n in graph.nodes for o in n.operands} & {r for n in computed for r in n.results}
    if not known or not computed or between:
        return ()
    return tuple(n.op if (n := producers.get(v)) in computed and n is not None else "" for v in graph.results)


def draw_functions(s: Sketch, turn: int | None = None) -> None:
    """Append several functions, each of a tensor of its own: those whose turn it is, or any."""
    shape = s.random.choice(((64,), (200,), (17, 33), (300,), (3, 5, 7)))
    names = sorted(ULPS)
    chosen = s.random.sample(names, TOGETHER)
    if turn is not None:
        chosen = [names[k % len(names)] for k in range(turn * TOGETHER, (turn + 1) * TOGETHER)]
    for op in chosen:
        dtype = s.random.choice((f32, f32, f16, bf16)) if s.random.random() < 0.3 else f32
        x = s.given(_arguments(op, shape, s.data).astype(dtype.numpy))
        if s.random.random() < 0.2:
            x = s.emit("flip", x, axes=(0,))
        s.emit(op, x)


def _arguments(op: str, shape: tuple[int, ...], data: np.random.Generator) -> Any:
    with np.errstate(all="ignore"):
        bits = data.integers(0, 2**32, shape, np.uint32).view(np.float32)
        low, high = _WHERE_IT_TURNS.get(op, (-20.0, 20.0))
        near = data.uniform(low, high, shape)
        small = data.standard_normal(shape) * np.exp2(data.integers(-20, 3, shape).astype(np.float64))
        least = data.uniform(0, 2.0**-126, shape)
        values = np.choose(data.integers(0, 5, shape), (bits, near, near, small, least))
        return values.astype(np.float32)


def ulp_errors(op: str, true: Any, got: Any, dtype: DType = f32) -> Any:
    """By how many units in the last place of a dtype elements are beyond the bound; at most 0 where they are within."""
    info = ml_dtypes.finfo(dtype.numpy)
    end = 2.0 ** int(info.maxexp)
    with np.errstate(all="ignore"):
        wide = got.astype(np.float64)
        held, wanted = np.clip(wide, -end, end), np.clip(true, -end, end)
        _, exponent = np.frexp(np.where(np.abs(wanted) < end, wanted, end / 2))
        unit = np.exp2(np.maximum(exponent - 1, int(info.minexp)) - int(info.nmant))
        bound = ULPS[op] + SLACK if dtype == f32 else OF_HALVES
        error = np.abs(held - wanted) / unit - bound
        return np.where(np.isnan(true) | np.isnan(wide), np.where(np.isnan(true) & np.isnan(wide), 0.0, np.inf), error)

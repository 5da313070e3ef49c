"""Graphs of which every step is defined to the bit: additions, products, quotients, on numbers of every magnitude.

Elsewhere numbers stay ordinary and errors are measured against float64, in which a rounding by a magic number rounds
nothing and no product overflows. Here nothing is a sum of many terms or a function that implementations round as they
like, so compiled code must give what the steps give: no step may be merged, moved or left out that rounds, overflows
or underflows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from effcc.ir.dtypes import DTYPES, DType, f32, f64
from effcc.ir.graph import Graph, Value
from effcc.ir.ops import TABLE
from effcc.ir.types import TensorType
from effcc.passes.rules.constants import as_held
from effcc.passes.rules.drawing import MAGNITUDES
from effcc.passes.rules.instances import vast

if TYPE_CHECKING:
    from effcc.fuzz.sketch import Sketch

_STEPS = ("add", "sub", "mul", "div", "neg", "abs")
_DEFINED = frozenset({*_STEPS, "where", "eq", "ne", "lt", "le", "gt", "ge", "constant", "full", "reciprocal"})
_UNDO = {"add": lambda c: -c, "sub": lambda c: -c, "mul": lambda c: 1 / c, "div": lambda c: 1 / c}


def defined_to_the_bit(graph: Graph) -> bool:
    """Whether each op rounds once, as IEEE 754 says; half types are computed wider."""
    values = [*graph.params, *(r for n in graph.nodes for r in n.results)]
    wide = all(v.type.dtype in (f32, f64) or not v.type.dtype.is_float for v in values)
    return wide and all(n.op in _DEFINED or TABLE[n.op].kind == "view" for n in graph.nodes)


def same_bits(a: Any, b: Any, zeros_apart: bool = True) -> Any:
    """Where two arrays hold the same numbers; any NaN is any NaN, and the two zeros are two unless told otherwise."""
    if a.dtype.kind in "iub":
        return a == b
    equal = (a == b) & (np.signbit(a) == np.signbit(b)) if zeros_apart else a == b
    return (np.isnan(a) & np.isnan(b)) | equal


def draw_steps(s: Sketch) -> None:
    """Append a chain of steps, whose constants often undo one another."""
    dtype = s.random.choice((f32, f32, f32, f64))
    shape = s.random.choice(((5,), (17,), (64,), (3, 33)))
    last = _tensor(s, dtype, shape)
    before, op = 0.0, ""
    for _ in range(s.random.randint(2, 7)):
        op = op if op in _UNDO and s.random.random() < 0.6 else s.random.choice(_STEPS)
        operands = [last]
        if TABLE[op].arity == (2, 2):
            if s.random.random() < 0.7:
                undone = before and s.random.random() < 0.6
                before = _UNDO[op](before) if undone else s.random.choice((-1, 1)) * s.random.choice(MAGNITUDES)
                held = as_held(before, dtype)
                operands.append(s.emit("full", shape=(), value=held, dtype=dtype))
            else:
                operands.append(s.random.choice((last, _tensor(s, dtype, shape))))
            if s.random.random() < 0.2:
                operands.reverse()
        last = s.emit(op, *operands)
    if s.random.random() < 0.2:
        s.emit("where", s.emit("lt", last, operands[0]), last, _tensor(s, dtype, shape))


def _tensor(s: Sketch, dtype: DType, shape: tuple[int, ...]) -> Value:
    return s.given(vast(TensorType(DTYPES[dtype.name], shape), s.data), s.random.random() < 0.4)

"""Borders around codes: what is padded with zeros and then quantized is quantized first.

    codes(pad(x, 0))  =  pad(codes(x), zero)          codes: round(x * (1 / step)) + zero, clamped, as an integer

so that the border is the convolution's own, and quantizing is the end of what makes x. (A step of 0 or NaN has no
codes; where the border would be one of these, it is 0.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from effcc.ir.graph import Node, Value
from effcc.ir.ops import lookup
from effcc.passes.writer import Writer

_POINTWISE = ("cast", "relu", "round", "minimum", "maximum", "add", "sub", "mul")
_MOST_STEPS = 12
Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Border:
    """A padding with zeros of `inner`, by `low` and `high` elements an axis, and what is done to it, in order."""

    inner: Value
    low: Sizes
    high: Sizes
    steps: tuple[Node, ...]

    @property
    def around(self) -> tuple[Sizes, Sizes]:
        return self.low, self.high

    def written(self, writer: Writer) -> Value:
        """The steps without the border."""
        value = self.inner
        for step in self.steps:
            operands = [value if i == followed_operand(step) else o for i, o in enumerate(step.operands)]
            value = writer.copy(step, operands, f"{step.result.name}_inside")
        return value


def border_of(codes: Value, zero: int, producers: Mapping[Value, Node]) -> Border | None:
    """The border that codes have, where it is `zero`; None where there is none."""
    steps: list[Node] = []
    value = codes
    while (node := producers.get(value)) is not None and len(steps) <= _MOST_STEPS:
        if node.op == "pad":
            low, high = (cast(Sizes, node.attrs[side]) for side in ("low", "high"))
            known = all(isinstance(n, int) and n >= 0 for n in (*low, *high))
            if not known or any((*low[:2], *high[:2])) or _border(node, steps[::-1], producers) != zero:
                return None
            return Border(node.operands[0], low, high, tuple(steps[::-1]))
        followed = followed_operand(node)
        if followed is None:
            return None
        steps.append(node)
        value = node.operands[followed]
    return None


def followed_operand(node: Node) -> int | None:
    """The operand that a pointwise step changes by numbers alone."""
    if node.op not in _POINTWISE:
        return None
    shape = node.result.type.shape
    full = [i for i, o in enumerate(node.operands) if o.type.shape == shape]
    single = all(o.type.rank == 0 for i, o in enumerate(node.operands) if i not in full)
    return full[0] if len(full) == 1 and single else None


def _border(pad: Node, steps: list[Node], producers: Mapping[Value, Node]) -> Any:
    """What a border of zeros becomes; None where that is not known."""
    if pad.attrs["value"] != 0:
        return None
    value: Any = np.zeros((), pad.result.type.dtype.numpy)
    for step in steps:
        followed = followed_operand(step)
        given = [producers.get(o) for i, o in enumerate(step.operands) if i != followed]
        known = [n.attrs["value"] for n in given if n is not None and n.op == "constant"]
        if len(known) < len(given):
            if step.op != "mul" or value != 0:
                return None
            continue  # a step is a number
        others = [np.asarray(v, value.dtype) for v in known]
        operands = [value if i == followed else others.pop(0) for i in range(len(step.operands))]
        reference = lookup(step.op).reference
        assert reference is not None, "pointwise steps have one"
        value = np.asarray(reference(*operands, **step.attrs))
    return value.item()

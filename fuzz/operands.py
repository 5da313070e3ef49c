"""What random operands must satisfy beyond types: which integers are positions, and how ops that move data are called.

Types and attributes of most ops are drawn as for the checks of rules (`effcc.passes.rules.drawing`); here stand those
that no rule mentions. A proposal may be refused by the op's type rule: the generator then draws again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from effcc.ir.dims import Shape
from effcc.ir.dtypes import i64
from effcc.ir.encodings import stored_as
from effcc.ir.op import Op, normalize_axis
from effcc.ir.table.movement import slice_bounds
from effcc.ir.types import TensorType
from effcc.passes.rules.drawing import draw, draw_dtype, draw_shape

LEAST_EPS = 1e-6  # of the norm of one element

Known = list[TensorType | None]
Attrs = dict[str, Any]
Bounds = tuple[int, int]


def propose(op: Op, known: Known, random: Random, fixed: Mapping[str, Any]) -> tuple[list[TensorType], Attrs]:
    """Types for the operands that are None, and all attributes; those in `fixed` are kept where no rule sets them."""
    attrs: Attrs = dict(fixed)
    special = _PROPOSALS.get(op.name)
    if special is None:
        return draw(op, known, attrs, random)
    x = known[0] or TensorType(draw_dtype(random), draw_shape(random, 1, 4))
    return special([x, *known[1:]], attrs, random), op.complete_attrs(attrs)


def bounds(op: str, types: Sequence[TensorType], attrs: Mapping[str, Any]) -> dict[int, Bounds]:
    """The integers that operands may hold, by position (inclusive): places on an axis, shifts, exponents, divisors."""
    element = types[0].dtype if types else None
    if op in ("floordiv", "mod", "fmod") and element is not None and not element.is_float:
        return {1: (1, 5)}
    if op in ("shl", "shr"):
        return {0: (0, 9), 1: (0, 4)}
    if op == "pow" and element is not None and not element.is_float:
        return {1: (0, 3)}
    if op == "decode":
        levels = stored_as(attrs["encoding"], attrs["shape"], attrs["dtype"], [t.shape for t in types]).levels
        last = levels.shape[-1] // levels.block[1] - 1
        return {n: (0, last) for n, (name, *_) in enumerate(levels.coordinates) if name == "columns"}
    if op == "embedding":
        return {1: (0, int(types[0].shape[0]) - 1)}
    if op in ("index_select", "gather", "scatter"):
        size = int(types[0].shape[normalize_axis(attrs["axis"], types[0].rank)]) if types[0].rank else 1
        return {1: (0, size - 1)}
    if op in ("index", "index_put"):
        first = 1 if op == "index" else 2
        sizes = [int(types[0].shape[a]) for a in attrs["axes"]]
        return {first + k: (-n, n - 1) for k, n in enumerate(sizes)}
    return {}


def is_deterministic(op: Op, types: Sequence[TensorType], attrs: Mapping[str, Any]) -> bool:
    """Whether the result depends neither on the order in which elements are written nor on roundings alone.

    The norm of one element is 0 / sqrt(eps), and in eager whatever a rounding leaves of 0.
    """
    if op.name in ("group_norm", "layer_norm"):
        shape = types[0].shape
        group = shape[1:] if op.name == "group_norm" else shape[len(shape) - attrs["axes"] :]
        if math.prod(int(d) for d in group) == attrs.get("groups", 1) and attrs["eps"] < LEAST_EPS:
            return False
    return op.kind != "scatter" or attrs["combine"] != "set"


def _axis(x: TensorType, random: Random) -> int:
    return random.randrange(-x.rank, x.rank) if x.rank else 0


def _window(types: list[TensorType], attrs: Attrs, random: Random) -> list[TensorType]:
    spatial = random.randint(1, min(2, types[0].rank))
    kernel = tuple(random.randint(1, 3) for _ in range(spatial))
    attrs.update(
        kernel=kernel,
        stride=tuple(random.randint(1, 2) for _ in kernel),
        padding=tuple(random.randint(0, k // 2) for k in kernel),
        ceil=random.random() < 0.2,
    )
    return types


def _dilated_window(types: list[TensorType], attrs: Attrs, random: Random) -> list[TensorType]:
    _window(types, attrs, random)
    attrs["dilation"] = random.choice([None, None, tuple(random.randint(1, 2) for _ in attrs["kernel"])])
    return types


def _average_window(types: list[TensorType], attrs: Attrs, random: Random) -> list[TensorType]:
    _window(types, attrs, random)
    attrs.update(count_padding=random.random() < 0.5, divisor=random.choice([None, None, 3]))
    return types


def _adaptive(types: list[TensorType], attrs: Attrs, random: Random) -> list[TensorType]:
    attrs["sizes"] = tuple(random.randint(1, 4) for _ in range(random.randint(1, min(2, types[0].rank))))
    return types


def _diagonal(types: list[TensorType], attrs: Attrs, random: Random) -> list[TensorType]:
    first, second = random.sample(range(types[0].rank), 2) if types[0].rank > 1 else (0, 0)
    attrs.update(offset=random.randint(-2, 2), axis1=first, axis2=second)
    return types


def _as_strided(types: list[TensorType], attrs: Attrs, random: Random) -> list[TensorType]:
    room = max(int(types[0].size) - 1, 0)
    shape, strides, offset = [], [], random.randint(0, min(room, 3))
    room -= offset
    for _ in range(random.randint(1, 3)):
        stride = random.randint(0, 5)
        size = random.randint(1, min(5, room // stride + 1 if stride else 5))
        room -= stride * (size - 1)
        shape.append(size)
        strides.append(stride)
    attrs.update(shape=tuple(shape), strides=tuple(strides), offset=offset)
    return types


def _slice_scatter(types: list[TensorType | None], attrs: Attrs, random: Random) -> list[TensorType]:
    x = types[0]
    assert x is not None
    axis = _axis(x, random)
    size = int(x.shape[axis])
    attrs.update(
        axis=axis, start=random.randint(0, size), end=random.choice([None, random.randint(0, size)]),
        step=random.choice([1, 1, 2]),
    )  # fmt: skip
    _, length = slice_bounds(size, attrs["start"], attrs["end"], attrs["step"])
    shape = list(x.shape)
    shape[axis] = length
    return [x, types[1] or TensorType(x.dtype, tuple(shape))]


def _index_select(types: list[TensorType | None], attrs: Attrs, random: Random) -> list[TensorType]:
    x = types[0]
    assert x is not None
    attrs["axis"] = _axis(x, random)
    return [x, types[1] or TensorType(i64, (random.randint(1, 6),))]


def _part(x: TensorType, axis: int, random: Random) -> Shape:
    """A shape not larger than that of `x`, but on `axis`."""
    return tuple(
        random.randint(1, 6) if i == axis % x.rank else random.randint(min(1, int(n)), int(n))
        for i, n in enumerate(x.shape)
    )


def _gather(types: list[TensorType | None], attrs: Attrs, random: Random) -> list[TensorType]:
    x = types[0]
    assert x is not None
    attrs["axis"] = _axis(x, random)
    return [x, types[1] or TensorType(i64, _part(x, attrs["axis"], random))]


def _scatter(types: list[TensorType | None], attrs: Attrs, random: Random) -> list[TensorType]:
    x, index = _gather(types[:2], attrs, random)
    attrs["combine"] = random.choice(["add", "mul", "max", "min"])
    return [x, index, types[2] or TensorType(x.dtype, index.shape)]


def _index_put(types: list[TensorType | None], attrs: Attrs, random: Random) -> list[TensorType]:
    x = types[0]
    assert x is not None
    count = min(len(types) - 2, x.rank)
    attrs.update(axes=tuple(range(count)), combine="add")
    index = draw_shape(random, 1, 2)
    values = TensorType(x.dtype, (*index, *x.shape[count:]))
    return [x, types[1] or values, *(t or TensorType(i64, index) for t in types[2:])]


def _cell(states: int, gates: int) -> Callable[[list[TensorType | None], Attrs, Random], list[TensorType]]:
    def propose_layer(types: list[TensorType | None], attrs: Attrs, random: Random) -> list[TensorType]:
        x = types[0]
        assert x is not None
        hidden = random.choice([1, 3, 8])
        batch, width = (x.shape[1], x.shape[2]) if x.rank == 3 else (1, 1)
        attrs["reverse"] = random.random() < 0.4
        state = TensorType(x.dtype, (batch, hidden))
        shapes = [(gates * hidden, width), (gates * hidden, hidden), (gates * hidden,), (gates * hidden,)]
        return [x, *[state] * states, *(TensorType(x.dtype, s) for s in shapes)][: len(types)]

    return propose_layer


def _recurrence(types: list[TensorType | None], attrs: Attrs, random: Random) -> list[TensorType]:
    x = types[0]
    assert x is not None
    axis = attrs["axis"] = random.randrange(max(x.rank, 1))
    return [x, x, TensorType(x.dtype, (*x.shape[:axis], *x.shape[axis + 1 :]))][: len(types)]


_PROPOSALS: dict[str, Callable[[Any, Attrs, Random], list[TensorType]]] = {
    "max_pool": _dilated_window, "argmax_pool": _dilated_window, "avg_pool": _average_window,
    "adaptive_avg_pool": _adaptive, "diagonal": _diagonal, "as_strided": _as_strided, "slice_scatter": _slice_scatter,
    "index_select": _index_select, "gather": _gather, "scatter": _scatter, "index_put": _index_put,
    "lstm": _cell(2, 4), "gru": _cell(1, 3), "rnn": _cell(1, 1),
    "linear_recurrence": _recurrence,
}  # fmt: skip

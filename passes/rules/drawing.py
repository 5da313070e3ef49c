"""Random operand types and attributes that fit an op: what the rule checker draws instances from.

Given the types already known of some operands and some attributes, `draw` proposes the rest. A proposal may still be
refused by the op's type rule; the caller then draws again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from effcc.ir.dims import Shape
from effcc.ir.dtypes import DTYPES, DType, boolean, i64
from effcc.ir.op import REQUIRED, Op
from effcc.ir.types import TensorType

Known = list[TensorType | None]
Attrs = dict[str, Any]

_DTYPES = ["f32"] * 6 + ["f64", "f64", "f16", "bf16", "i64", "i32", "u8", "bool"]
EVENLY = ("f32", "f64", "f16", "bf16", "i64", "i32", "i16", "i8", "u8", "bool")
_SIZES = [0] + [1] * 5 + [2] * 6 + [3] * 4 + [4] * 2 + [5]
_NUMBERS = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 3.0, -2.5, 0.1, 4.0, 8.0, 1e-5, 100.0]


MAGNITUDES = (
    1e-45, 3e-42, 1e-39, 1e-37, 1e-30, 1e-25, 1e-20, 1e-10, 6e-8, 6e-5, 1e8, 1e15, 1e20, 1e30, 1e38, 3e38,
    11.5, 88.9, 95.0, 104.0, 384.0, 1536.0, 8388608.0, 12582912.0, 16777216.0, 65504.0, 6755399441055744.0,
)  # fmt: skip
"""Numbers whose products or exponentials overflow and underflow, and those that rounding idioms add and take away."""


class Preferences(Random):
    """Randomness that prefers the sizes and dtypes of its choice to those that suit rules; repeat one to prefer it."""

    def __init__(self, seed: int, sizes: Sequence[int] = _SIZES, dtypes: Sequence[str] = _DTYPES) -> None:
        super().__init__(seed)
        self.sizes = sizes
        self.dtypes = dtypes


class AnyMagnitude(Preferences):
    """Randomness that also draws constants of every magnitude, and those that undo one another."""


def draw(op: Op, known: Known, attrs: Attrs, random: Random) -> tuple[list[TensorType], Attrs]:
    """Types for the operands that are None, and values for the attributes that `attrs` lacks."""
    complete = dict(attrs)
    types = _OPERANDS.get(op.name, _OPERANDS_BY_KIND.get(op.kind, _alike))(known, complete, random)
    chosen = _ATTRS.get(op.name)
    if chosen is not None:
        chosen(types, complete, random)
    for name, default in op.attrs.items():
        if name not in complete:
            complete[name] = _GENERIC[name](types, random) if name in _GENERIC else default
        if complete[name] is REQUIRED:
            raise ValueError(
                f"the checker cannot draw the attribute {name!r} of op {op.name!r}; teach effcc.passes.rules.drawing"
            )
    return types, complete


def draw_dtype(random: Random) -> DType:
    return DTYPES[random.choice(random.dtypes if isinstance(random, Preferences) else _DTYPES)]


def draw_shape(random: Random, least: int = 0, most: int = 4) -> Shape:
    return tuple(_size(random) for _ in range(random.randint(least, most)))


def draw_number(dtype: DType, random: Random, others: Sequence[float] = ()) -> float | int | bool:
    """A constant of a dtype: mostly the numbers that rules look for, beside the `others` of the same rule."""
    value = random.choice(_NUMBERS)
    if isinstance(random, AnyMagnitude) and dtype.is_float and random.random() < 0.5:
        value = random.choice([-1, 1]) * random.choice(MAGNITUDES)
        if others and random.random() < 0.5:
            near = random.choice(others)
            value = random.choice([-near, 1 / near if near else near])
    if dtype.is_float:
        return value
    return bool(value) if dtype == boolean else abs(int(value)) if dtype.kind == "uint" else int(value)


def _size(random: Random) -> int:
    return random.choice(random.sizes if isinstance(random, Preferences) else _SIZES)


def _first(known: Known) -> TensorType | None:
    return next((t for t in known if t is not None), None)


def _dtype_of(known: Known, random: Random) -> DType:
    near = _first(known)
    return near.dtype if near is not None else draw_dtype(random)


# --- operands --------------------------------------------------------------------------------------------------------


def _alike(known: Known, attrs: Attrs, random: Random) -> list[TensorType]:
    """Independent shapes, one dtype."""
    dtype = _dtype_of(known, random)
    return [t or TensorType(dtype, draw_shape(random)) for t in known]


def _pointwise(known: Known, attrs: Attrs, random: Random) -> list[TensorType]:
    dtype = _dtype_of(known, random)
    near = _first(known)
    shape = near.shape if near is not None else draw_shape(random)
    return [t or TensorType(dtype, _broadcastable(shape, random)) for t in known]


def _broadcastable(shape: Shape, random: Random) -> Shape:
    """A shape that broadcasts with `shape`: mostly the same, else with axes dropped, of size 1, widened or added."""
    if random.random() < 0.5:
        return shape
    result = [1 if random.random() < 0.25 else d if d != 1 or random.random() < 0.6 else _size(random) for d in shape]
    if random.random() < 0.3:
        return (*draw_shape(random, 1, 2), *result)[-4:] if len(result) < 4 else tuple(result)
    return tuple(result[random.randint(0, len(result)) :]) if random.random() < 0.5 else tuple(result)


def _where(known: Known, attrs: Attrs, random: Random) -> list[TensorType]:
    condition, *branches = known
    shape = next((t.shape for t in known if t is not None), None) or draw_shape(random)
    dtype = _dtype_of(branches, random)
    return [
        condition or TensorType(boolean, _broadcastable(shape, random)),
        *(t or TensorType(dtype, _broadcastable(shape, random)) for t in branches),
    ]


def _linear(known: Known, attrs: Attrs, random: Random) -> list[TensorType]:
    x, w, *bias = known
    dtype = _dtype_of(known, random)
    k = x.shape[-1] if x is not None and x.rank else w.shape[1] if w is not None and w.rank == 2 else _size(random)
    x = x or TensorType(dtype, (*draw_shape(random, 0, 3), k))
    w = w or TensorType(dtype, (_size(random), k))
    return [x, w, *(b or TensorType(dtype, w.shape[:1]) for b in bias)]


def _matmul(known: Known, attrs: Attrs, random: Random) -> list[TensorType]:
    a, b = known
    dtype = _dtype_of(known, random)
    near = a or b
    batch = near.shape[:-2] if near is not None and near.rank >= 2 else draw_shape(random, 0, 2)
    if random.random() < 0.4:
        batch = _broadcastable(batch, random)[:3] if random.random() < 0.4 else ()
    k = (
        a.shape[-1]
        if a is not None and a.rank >= 2
        else b.shape[-2]
        if b is not None and b.rank >= 2
        else _size(random)
    )
    return [
        a or TensorType(dtype, (*batch, _size(random), k)),
        b or TensorType(dtype, (*batch, k, _size(random))),
    ]


def _einsum(known: Known, attrs: Attrs, random: Random) -> list[TensorType]:
    """Labels from a small alphabet, one size each; operands that are known fix the sizes of theirs."""
    if "spec" in attrs:
        return _alike(known, attrs, random)
    dtype = _dtype_of(known, random)
    sizes = {label: _size(random) for label in "abcde"}
    used: list[str] = []
    types: list[TensorType] = []
    for t in known:
        rank = t.rank if t is not None else random.randint(1, 3)
        term = ""
        for axis in range(rank):
            free = [c for c in "abcdefgh" if c not in term]
            if t is not None:
                fits = [c for c in free if sizes.get(c) == t.shape[axis] and c in "".join(used)]
                label = (
                    random.choice(fits)
                    if fits and random.random() < 0.7
                    else next(c for c in free if c not in "".join(used))
                )
                sizes[label] = t.shape[axis]
            else:
                label = random.choice([c for c in free if c in sizes][:4])
            term += label
        used.append(term)
        types.append(t or TensorType(dtype, tuple(sizes[c] for c in term)))
    everything = sorted(set("".join(used)))
    random.shuffle(everything)
    attrs["spec"] = f"{','.join(used)}->{''.join(everything[: random.randint(0, len(everything))])}"
    return types


def _convolution(known: Known, attrs: Attrs, random: Random) -> list[TensorType]:
    x, w, *bias = known
    dtype = _dtype_of(known, random)
    space = x.rank - 2 if x is not None else len(attrs["stride"]) if "stride" in attrs else random.randint(1, 2)
    space = max(space, 1)
    attrs.setdefault("groups", random.choice([1, 1, 2]))
    groups = attrs["groups"]
    attrs.setdefault("stride", tuple(random.randint(1, 2) for _ in range(space)))
    attrs.setdefault("padding", tuple(random.randint(0, 2) for _ in range(space)))
    attrs.setdefault("dilation", tuple(random.choice([1, 1, 2]) for _ in range(space)))
    attrs.setdefault("transposed", False)
    attrs.setdefault("output_padding", None)
    channels = (
        x.shape[1] if x is not None and x.rank > 1 and isinstance(x.shape[1], int) else groups * random.randint(1, 2)
    )
    x = x or TensorType(dtype, (random.randint(1, 2), channels, *(random.randint(2, 5) for _ in range(space))))
    outputs = groups * random.randint(1, 2)
    w = w or TensorType(dtype, (outputs, channels // groups, *(random.randint(1, 3) for _ in range(space))))
    return [x, w, *(b or TensorType(dtype, w.shape[:1]) for b in bias)]


def _per_channel(known: Known, attrs: Attrs, random: Random) -> list[TensorType]:
    """x[n, c, ...] and vectors of c."""
    dtype = _dtype_of(known, random)
    x = known[0] or TensorType(dtype, draw_shape(random, 2, 4))
    return [x, *(t or TensorType(dtype, x.shape[1:2]) for t in known[1:])]


def _trailing(known: Known, attrs: Attrs, random: Random) -> list[TensorType]:
    """x[..., n] and tensors of its last axes."""
    dtype = _dtype_of(known, random)
    x = known[0] or TensorType(dtype, draw_shape(random, 1, 4))
    axes = attrs.setdefault("axes", random.randint(1, max(1, min(2, x.rank))))
    return [x, *(t or TensorType(dtype, x.shape[-axes:]) for t in known[1:])]


def _index(known: Known, attrs: Attrs, random: Random) -> list[TensorType]:
    """A tensor with an axis for each index; indices that broadcast together."""
    x, *indices = known
    near = _first(indices)
    shape = near.shape if near is not None else draw_shape(random, 0, 3)
    dtype = draw_dtype(random)
    sizes = [t.size if t is not None else random.randint(1, 3) for t in indices]
    own = (*sizes, *draw_shape(random, 0, 1))
    attrs.setdefault("axes", tuple(range(len(indices))))
    return [x or TensorType(dtype, own), *(t or TensorType(i64, shape) for t in indices)]


def _embedding(known: Known, attrs: Attrs, random: Random) -> list[TensorType]:
    table, index = known
    return [
        table or TensorType(draw_dtype(random), (random.randint(1, 6), _size(random))),
        index or TensorType(i64, draw_shape(random, 0, 2)),
    ]


def _concat(known: Known, attrs: Attrs, random: Random) -> list[TensorType]:
    near = _first(known) or TensorType(draw_dtype(random), draw_shape(random, 1))
    axis = attrs.setdefault("axis", random.randrange(-near.rank, near.rank) if near.rank else 0)
    axis %= max(near.rank, 1)
    return [t or TensorType(near.dtype, (*near.shape[:axis], _size(random), *near.shape[axis + 1 :])) for t in known]


# --- attributes ------------------------------------------------------------------------------------------------------


def _reshape(types: Sequence[TensorType], attrs: Attrs, random: Random) -> None:
    """The sizes merged, split and surrounded by 1s at random; sometimes as they were."""
    if "shape" in attrs:
        return
    sizes = [int(d) for d in types[0].shape]
    for _ in range(random.randint(0, 3)):
        at = random.randint(0, len(sizes))
        if len(sizes) >= 2 and random.random() < 0.5:
            at = random.randrange(len(sizes) - 1)
            sizes[at : at + 2] = [sizes[at] * sizes[at + 1]]
        elif sizes and random.random() < 0.4:
            at = random.randrange(len(sizes))
            divisor = random.choice([d for d in range(1, max(sizes[at], 1) + 1) if sizes[at] % d == 0])
            sizes[at : at + 1] = [divisor, sizes[at] // divisor]
        else:
            sizes.insert(at, 1)
    attrs["shape"] = tuple(sizes[:6]) if len(sizes) <= 6 else types[0].shape


def _transpose(types: Sequence[TensorType], attrs: Attrs, random: Random) -> None:
    order = list(range(types[0].rank))
    if random.random() < 0.85:
        random.shuffle(order)
    attrs.setdefault("perm", tuple(order))


def _broadcast(types: Sequence[TensorType], attrs: Attrs, random: Random) -> None:
    own = tuple(_size(random) if d == 1 and random.random() < 0.5 else d for d in types[0].shape)
    attrs.setdefault("shape", (*draw_shape(random, 0, max(0, min(2, 5 - len(own)))), *own))


def _slice(types: Sequence[TensorType], attrs: Attrs, random: Random) -> None:
    rank = types[0].rank
    axis = attrs.setdefault("axis", random.randrange(rank) if rank else 0)
    size = int(types[0].shape[axis]) if rank else 0
    attrs.setdefault("start", random.choice([0, 0, random.randint(-size - 1, size + 1)]))
    attrs.setdefault("end", random.choice([None, 2**63 - 1, random.randint(-size - 1, size + 1), size]))
    attrs.setdefault("step", random.choice([1, 1, 1, 2, 3]))


def _pad(types: Sequence[TensorType], attrs: Attrs, random: Random) -> None:
    for side in ("low", "high"):
        attrs.setdefault(side, tuple(random.choice([0, 0, 1, 2, -1]) for _ in range(types[0].rank)))
    attrs.setdefault("value", random.choice([0, 0, 1, -1]))


def _some_axes(types: Sequence[TensorType], random: Random) -> tuple[int, ...]:
    rank = types[0].rank
    least = 0 if random.random() < 0.1 else min(rank, 1)
    return tuple(sorted(random.sample(range(rank), random.randint(least, rank))))


def _reduce(types: Sequence[TensorType], attrs: Attrs, random: Random) -> None:
    axes = _some_axes(types, random)
    if axes and random.random() < 0.3:
        axes = tuple(a - types[0].rank for a in axes)
    attrs.setdefault("axes", None if random.random() < 0.1 else axes)
    attrs.setdefault("keepdim", random.random() < 0.5)


def _group_norm(types: Sequence[TensorType], attrs: Attrs, random: Random) -> None:
    channels = int(types[0].shape[1]) if types[0].rank > 1 else 1
    attrs.setdefault("groups", random.choice([d for d in range(1, channels + 1) if channels % d == 0] or [1]))


def _iota(types: Sequence[TensorType], attrs: Attrs, random: Random) -> None:
    attrs.setdefault("size", random.randint(0, 6))


_OPERANDS_BY_KIND: dict[str, Callable[[Known, Attrs, Random], list[TensorType]]] = {"pointwise": _pointwise}
_OPERANDS: dict[str, Callable[[Known, Attrs, Random], list[TensorType]]] = {
    "where": _where, "linear": _linear, "matmul": _matmul, "einsum": _einsum, "convolution": _convolution,
    "batch_norm": _per_channel, "group_norm": _per_channel, "layer_norm": _trailing, "rms_norm": _trailing,
    "concat": _concat, "index": _index, "embedding": _embedding,
}  # fmt: skip
_ATTRS: dict[str, Callable[[Sequence[TensorType], Attrs, Random], None]] = {
    "reshape": _reshape, "transpose": _transpose, "broadcast": _broadcast, "slice": _slice, "pad": _pad,
    "sum": _reduce, "prod": _reduce, "max": _reduce, "min": _reduce, "any": _reduce, "all": _reduce, "mean": _reduce,
    "var": _reduce, "group_norm": _group_norm, "iota": _iota,
}  # fmt: skip
_GENERIC: dict[str, Callable[[Sequence[TensorType], Random], Any]] = {
    "axis": lambda types, random: random.randrange(types[0].rank) if types[0].rank else 0,
    "axes": _some_axes,
    "dtype": lambda types, random: draw_dtype(random),
    "eps": lambda types, random: random.choice([1e-5, 1e-12, 1e-6, 0.1]),
    "repeats": lambda types, random: tuple(random.choice([1, 1, 2]) for _ in range(types[0].rank)),
    "correction": lambda types, random: random.choice([0, 1]),
    "shape": lambda types, random: draw_shape(random),
    "value": lambda types, random: random.choice(_NUMBERS),
    "approximate": lambda types, random: random.choice(["none", "tanh"]),
    "safe": lambda types, random: random.random() < 0.3,
}

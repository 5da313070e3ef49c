"""Conditions on tensors: their dtypes, their shapes, and who computes them."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

from effcc.ir.dims import same
from effcc.ir.dims import same_shape as shapes_equal
from effcc.ir.dtypes import DType, bf16, boolean, f16, f32, f64, i32, i64, u8
from effcc.ir.graph import Value
from effcc.ir.types import TensorType
from effcc.passes.rules.condition import Conditions, Propose, nothing
from effcc.passes.rules.language import Expression, Name, Tensor

if TYPE_CHECKING:
    from effcc.passes.rules.instances import Draft
    from effcc.passes.rules.matching import Facts

CONDITIONS = Conditions()


def _as_weight(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
    draft.weights.update(a.name for a in args if isinstance(a, Tensor))


@CONDITIONS.enter(_as_weight)
def weight(facts: Facts, x: Value) -> bool:
    """x depends on weights and constants alone, so what is computed from it is computed once; it has no encoding."""
    return x in facts.fixed and x.type.encoding is None


def _as_dtype(*choices: DType) -> Propose:
    def propose(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
        (x,) = args
        if isinstance(x, Tensor) and x.name in draft.tensors:
            old, new = draft.tensors[x.name].dtype, random.choice(choices)
            draft.tensors.update({n: replace(t, dtype=new) for n, t in draft.tensors.items() if t.dtype == old})
            draft.keep(*draft.tensors)

    return propose


@CONDITIONS.enter(_as_dtype(i64, i32, u8))
def integer(facts: Facts, x: Value) -> bool:
    """x has an integer dtype."""
    return x.type.dtype.is_integer


@CONDITIONS.enter(_as_dtype(boolean))
def truth(facts: Facts, x: Value) -> bool:
    """x is boolean."""
    return x.type.dtype == boolean


@CONDITIONS.enter(_as_dtype(f32, f64, f16))
def real(facts: Facts, x: Value) -> bool:
    """x has a floating dtype."""
    return x.type.dtype.is_float


def _as_magnitude(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
    for a in args:
        if isinstance(a, Tensor):
            draft.producers[a.name] = random.choice(["abs", "exp", "sigmoid"])


@CONDITIONS.enter(_as_magnitude)
def nonnegative(facts: Facts, x: Value) -> bool:
    """No element of x is below zero or -0.0; some may be NaN."""
    return _nonnegative(facts, x, 8)


def _nonnegative(facts: Facts, x: Value, depth: int) -> bool:
    number = facts.number(x)
    if number is not None:
        return number > 0 or (number == 0 and math.copysign(1.0, number) > 0)
    node = facts.producer.get(x)
    if node is None or depth == 0 or not x.type.dtype.is_float:
        return False
    if node.op in ("abs", "exp", "exp2", "sigmoid", "softmax", "var"):
        return True
    if node.op == "mul" and node.operands[0] is node.operands[1]:
        return True
    if node.op == "cast":
        return node.operands[0].type.dtype.kind in ("bool", "uint") or _nonnegative(facts, node.operands[0], depth - 1)
    if node.op in ("add", "mul", "sqrt", "mean", "sum", "reshape", "transpose", "broadcast"):
        return all(_nonnegative(facts, o, depth - 1) for o in node.operands)
    return False


def _as_counter(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
    (x,) = args
    if isinstance(x, Tensor):
        draft.tensors[x.name] = TensorType(i64, (random.randint(0, 4),))
        draft.producers[x.name] = "iota"
        draft.keep(x.name)


@CONDITIONS.enter(_as_counter)
def counter(facts: Facts, x: Value) -> bool:
    """x counts upwards from a number that is not negative."""
    node = facts.producer.get(x)
    while node is not None and node.op in ("reshape", "broadcast", "transpose", "slice"):
        node = facts.producer.get(node.operands[0])
    return node is not None and node.op == "iota" and all(_counts_up(node.attrs[name]) for name in ("start", "step"))


def _counts_up(bound: object) -> bool:
    return isinstance(bound, int) and bound >= 0


def _as_product(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
    draft.producers.update({a.name: "linear" for a in args if isinstance(a, Tensor)})


@CONDITIONS.enter(_as_product)
def product_with_weights(facts: Facts, x: Value) -> bool:
    """x is, through views, a product with weights, which a factor can go into."""
    node = facts.producer.get(x)
    while node is not None and node.op in ("reshape", "transpose"):
        node = facts.producer.get(node.operands[0])
    return node is not None and node.op == "linear" and all(weight(facts, w) for w in node.operands[1:])


@CONDITIONS.enter(_as_dtype(f16, bf16))
def half(facts: Facts, x: Value) -> bool:
    """x has a half type: every op rounds its result to it, so that one op rounds less than two."""
    return x.type.dtype in (f16, bf16)


@CONDITIONS.enter(_as_dtype(f32, f64, bf16))
def wide_range(facts: Facts, x: Value) -> bool:
    """x has a floating dtype whose range is at least that of f32."""
    return x.type.dtype in (f32, f64, bf16)


@CONDITIONS.enter(nothing)
def has_rank(facts: Facts, x: Value, rank: int) -> bool:
    """x has this many axes."""
    return x.type.rank == rank


def _as_channels(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
    """A vector with an element for each channel, and the shape that lays it along them."""
    g, t, result = args
    if isinstance(g, Tensor) and isinstance(t, Name) and isinstance(result, Tensor):
        whole = draft.tensors[result.name]
        draft.tensors[g.name] = TensorType(whole.dtype, whole.shape[1:2])
        draft.scalars[t.name] = (*(1,) * random.randint(0, 1), whole.shape[1], *(1,) * (whole.rank - 2))
        draft.keep(*draft.tensors)


@CONDITIONS.enter(_as_channels)
def by_channel(facts: Facts, g: Value, shape: tuple[Any, ...], x: Value) -> bool:
    """g is a vector, and `shape` lays it along the channels of x[n, c, ...]."""
    along = (x.type.shape[1], *(1,) * (x.type.rank - 2))
    return g.type.rank == 1 and shapes_equal(shape, along if len(shape) == len(along) else (1, *along))


def _like(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
    a, b = args
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.name in draft.tensors and b.name in draft.tensors:
        draft.tensors[a.name] = replace(draft.tensors[a.name], shape=draft.tensors[b.name].shape)
        draft.keep(a.name)


@CONDITIONS.enter(_like)
def same_shape(facts: Facts, a: Value, b: Value) -> bool:
    """a and b have provably equal shapes."""
    return shapes_equal(a.type.shape, b.type.shape)


def _sized_ones(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
    """Sizes of 1 where a broadcast would repeat."""
    x = args[0]
    if isinstance(x, Tensor) and x.name in draft.tensors:
        t = draft.tensors[x.name]
        for name, value in draft.scalars.items():
            if isinstance(value, tuple) and len(value) >= t.rank:
                draft.scalars[name] = (1,) * (len(value) - t.rank) + t.shape


@CONDITIONS.enter(_sized_ones)
def same_size(facts: Facts, a: Value, b: Value) -> bool:
    """a and b have provably the same number of elements."""
    return same(a.type.size, b.type.size)


def _batched_product(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
    """Factors a[..., m, k] and b[..., k, n] with one batch."""
    a, b = args
    if isinstance(a, Tensor) and isinstance(b, Tensor) and draft.tensors[a.name].rank >= 2:
        shape = draft.tensors[a.name].shape
        draft.tensors[b.name] = replace(draft.tensors[a.name], shape=(*shape[:-2], shape[-1], random.randint(1, 3)))
        draft.keep(a.name, b.name)


@CONDITIONS.enter(_batched_product)
def same_batch(facts: Facts, a: Value, b: Value) -> bool:
    """All axes of a and b but the last two are provably the same."""
    return shapes_equal(a.type.shape[:-2], b.type.shape[:-2])

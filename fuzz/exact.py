"""Graphs whose results are exact: casts, comparisons, roundings, extremes, integers that wrap around, moves.

An error bound would let a cast round the wrong way and a sum of integers lose its low bits in floats. Inputs are what
such code goes wrong at: ties, the ends of every dtype, numbers around 2^24 and 2^31, signed zeros, NaN in all places,
bytes and bools over their whole range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from effcc.fuzz.functions import draw_functions
from effcc.ir.dtypes import DTYPES, DType, boolean, f32, f64, i32, i64
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.ops import TABLE
from effcc.ir.scalars import SAME_BITS
from effcc.ir.types import TensorType

if TYPE_CHECKING:
    from effcc.fuzz.sketch import Sketch

_NAMES = ("f32", "f32", "f64", "f16", "bf16", "i64", "i32", "i16", "i8", "u8", "bool")
_EXTREMES = ("maximum", "minimum", "max", "min", "relu")
"""Which of two zeros they give is the implementation's choice."""
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_OF_FLOATS = (*_EXTREMES, *_COMPARISONS, "floor", "ceil", "trunc", "round", "sign", "neg", "abs", "isnan", "isinf",
              "argmax", "argmin", "cast", "copysign", "fmod", "mod")  # fmt: skip
_OF_INTEGERS = (*_EXTREMES[:4], *_COMPARISONS, "add", "sub", "mul", "neg", "abs", "sign", "and", "or", "xor", "not",
                "shl", "shr", "floordiv", "mod", "fmod", "pow", "sum", "prod", "cumsum", "any", "all", "argmax",
                "argmin", "linear", "cast")  # fmt: skip
_OF_BOOLS = ("and", "or", "xor", "not", "any", "all", "sum", "eq", "ne", "cast")
_MOVES = ("transpose", "flip", "concat", "slice", "reshape", "broadcast")
_REDUCTIONS = ("max", "min", "sum", "prod", "any", "all", "argmax", "argmin")
_UNARY = ("floor", "ceil", "trunc", "round", "sign", "neg", "abs", "isnan", "isinf", "relu", "not")
_ANY_SECOND = (*_EXTREMES[:2], *_COMPARISONS, "add", "sub", "mul", "and", "or", "xor", "copysign")
_BESIDE_VECTORS = (5, 7, 9, 15, 17, 23, 31, 33, 47, 63, 65, 129)
_SHAPES = ((5,), (17,), (64,), (3, 33), (9, 8), (2, 3, 5), (4, 65), (130,), (2, 1, 300))


def exactness(graph: Graph) -> str:
    """Whether results are equal in every `bits`, or as `numbers`, the two zeros being one; "" where neither holds."""
    read = [n.operands[0] for n in graph.nodes if n.op == "bits"]
    if not graph.nodes or not all(map(_is_exact, graph.nodes)) or not all(v in graph.params for v in read):
        return ""
    return "numbers" if any(n.op in _EXTREMES for n in graph.nodes) else "bits"


def _is_exact(node: Node) -> bool:
    if TABLE[node.op].kind in ("view", "gather") or node.op in ("where", "full", "constant", "iota", "bits"):
        return True
    types = [v.type.dtype for v in node.operands]
    if node.op == "cast":
        return _is_exact_cast(types[0], node.results[0].type.dtype)
    known = _OF_FLOATS if any(t.is_float for t in types) else _OF_BOOLS if types[0] == boolean else _OF_INTEGERS
    return node.op in known


def _is_exact_cast(source: DType, to: DType) -> bool:
    """Whether all agree on a cast: not on one that rounds twice, nor on what floats beyond an integer become."""
    if source.is_float and to.is_integer:
        return False
    through_f32 = source == f64 or (source.is_integer and source.bits > 16)  # eager's, to half types
    return not (through_f32 and to.is_float and to.bits == 16)


def draw_exact(s: Sketch) -> None:
    """Append a chain of exact steps, a cast first at times; or many steps of one tensor, each by itself."""
    shape = s.random.choice(_SHAPES)
    x = _given(s, DTYPES[s.random.choice(_NAMES)], shape)
    how = s.random.random()
    if how < 0.2:
        _casts(s, x)
    elif how < 0.4:
        _each(s, x)
    else:
        x = _cast(s, x) if how < 0.6 else x
        for _ in range(s.random.randint(1, 5)):
            x = _step(s, x)


_PAIRS = (("f32", "i64"), ("u8", "f64"), ("i32", "bf16"), ("i8", "f16"), ("bool", "i16"))
PERIOD = 20


def of_single_steps(turn: int) -> bool:
    """Whether a sweep is of single steps and casts, of which every language's spelling is asked."""
    return bool((turn + turn // PERIOD) % 2)


def draw_sweep(s: Sketch, turn: int) -> None:
    """Append everything of one kind for two dtypes, all kinds and dtypes within `PERIOD` turns: so two minutes are
    enough to see them.

    Even turns are reductions and functions (`effcc.fuzz.functions`), odd ones single steps and casts; in every second
    period it is the other way round, as schedules are drawn at odd seeds alone.
    """
    place = turn % PERIOD // 2
    kind = (("each", "casts") if of_single_steps(turn) else ("reductions", "functions"))[place % 2]
    pair = [DTYPES[name] for name in _PAIRS[place // 2 % len(_PAIRS)]]
    if kind == "functions":
        draw_functions(s, place // 2)
        return
    for dtype in pair:
        if kind == "reductions":
            _reductions(s, dtype)
        elif kind == "each":
            _each(s, _given(s, dtype, s.random.choice(_SHAPES)))
        else:
            shape = s.random.choice(((130,), (3, 65), (2, 200)))
            _casts(s, s.given(telling(TensorType(dtype, shape), s.data, all_edges=True)))


def _reductions(s: Sketch, dtype: DType) -> None:
    """Every reduction along a row that no vector divides, of numbers of one sign, odd ones at times: what joins beyond
    the end, or is left out, then shows."""
    rows, n = s.random.choice((1, 3, 4)), s.random.choice(_BESIDE_VECTORS)
    odd = s.data.integers(1, 10, (rows, n)) * 2 - 1
    x = s.given(odd.astype(dtype.numpy) if dtype != boolean else s.data.random((rows, n)) < 0.9)
    axis = 1 if s.random.random() < 0.8 else 0
    x = s.emit("transpose", x, perm=(1, 0)) if axis == 0 else x
    known = _OF_FLOATS if dtype.is_float else _OF_BOOLS if dtype == boolean else _OF_INTEGERS
    other = s.emit("not" if dtype == boolean else "neg", x)
    for op in _REDUCTIONS:
        if op in known and not (op in ("any", "all") and dtype.kind == "uint"):
            for given in (x, other):
                s.emit(op, given, axes=(axis,), keepdim=False)


def _casts(s: Sketch, x: Value) -> None:
    """To every dtype, and back."""
    for to in _targets(x.type.dtype):
        y = s.emit("cast", x, dtype=to)
        if _is_exact_cast(to, x.type.dtype) and s.random.random() < 0.5:
            s.emit("cast", y, dtype=x.type.dtype)


def _each(s: Sketch, x: Value) -> None:
    """Every function and comparison of the tensor and one other."""
    dtype = x.type.dtype
    known = _OF_FLOATS if dtype.is_float else _OF_BOOLS if dtype == boolean else _OF_INTEGERS
    y = _given(s, dtype, _shape(x))
    if dtype in SAME_BITS:
        s.emit("bits", x)
    if dtype.is_float:  # of few turns: eager's own vectors have NaN where the quotient is vast
        a, b = (s.data.standard_normal(_shape(x)) for _ in range(2))
        a, b = np.where(s.data.random(a.shape) < 0.2, np.rint(a), 8 * a), np.where(np.abs(b) < 0.1, -1.0, b)
        for op in ("fmod", "mod"):
            s.emit(op, s.given(a.astype(dtype.numpy)), s.given(b.astype(dtype.numpy)))
    for op in dict.fromkeys(known):
        if op in ("cast", "linear", "cumsum", *_REDUCTIONS) or (dtype.is_float and op in ("fmod", "mod")):
            continue
        second = [] if op in _UNARY else [y if op in _ANY_SECOND else _second(s, op, x)]
        s.attempt(lambda s, op=op, second=second: s.emit(op, x, *second))  # type: ignore[misc]


def _cast(s: Sketch, x: Value) -> Value:
    return s.emit("cast", x, dtype=s.random.choice(_targets(x.type.dtype)))


def _targets(dtype: DType) -> list[DType]:
    return [d for n in dict.fromkeys(_NAMES) if (d := DTYPES[n]) != dtype and _is_exact_cast(dtype, d)]


def _step(s: Sketch, x: Value) -> Value:
    dtype, random = x.type.dtype, s.random
    if random.random() < 0.2 and x.type.rank:
        return _moved(s, x)
    if random.random() < 0.1:
        condition = _given(s, boolean, _shape(x))
        return s.emit("where", condition, x, _given(s, dtype, _shape(x)))
    ops = _OF_FLOATS if dtype.is_float else _OF_BOOLS if dtype == boolean else _OF_INTEGERS
    op = random.choice(ops)
    if op == "cast":
        return _cast(s, x)
    if dtype.is_float and op in ("fmod", "mod"):
        return x
    if op in _UNARY:
        return s.emit(op, x)
    if op in _REDUCTIONS:
        if not x.type.rank or (op in ("any", "all") and dtype.kind == "uint"):  # eager gives bytes for those of bytes
            return x
        return s.emit(op, x, axes=(random.randrange(x.type.rank),), keepdim=random.random() < 0.5)
    if op == "cumsum":
        return s.emit("cumsum", x, axis=random.randrange(x.type.rank)) if x.type.rank else x
    if op == "linear":
        if dtype not in (i32, i64) or not x.type.rank:
            return x
        return s.emit("linear", x, _given(s, dtype, (random.choice((1, 5, 16)), _shape(x)[-1]), random.random() < 0.5))
    return s.emit(op, x, _second(s, op, x))


def _second(s: Sketch, op: str, x: Value) -> Value:
    """The other operand: shifts, some by the width and more, divisors of integers that are not 0, small exponents, else
    whatever there is."""
    dtype, shape = x.type.dtype, _shape(x)
    if s.random.random() < 0.4 and shape:
        shape = shape[1:] if s.random.random() < 0.5 else (*shape[:-1], 1)
    if op in ("shl", "shr"):
        return s.given(s.data.integers(0, dtype.bits + 3, shape).astype(dtype.numpy))
    if op in ("floordiv", "mod", "fmod") and dtype.is_integer:
        sizes = s.data.integers(2, 120, shape)
        signs = s.data.choice([1, -1], shape) if dtype.kind == "int" else 1
        return s.given(np.asarray(sizes * signs).astype(dtype.numpy))
    if op == "pow":
        few = s.data.integers(0 if dtype.kind == "uint" else -3, 5, shape)
        return s.given(
            np.where(s.data.random(shape) < 0.1, s.data.choice([31, 64, 65, 99], shape), few).astype(dtype.numpy)
        )
    if s.random.random() < 0.2:
        return x
    return _given(s, dtype, shape)


def _moved(s: Sketch, x: Value) -> Value:
    shape, random = _shape(x), s.random
    axis = random.randrange(len(shape))
    match random.choice(_MOVES):
        case "transpose":
            perm = random.sample(range(len(shape)), len(shape))
            return s.emit("transpose", x, perm=tuple(perm))
        case "flip":
            return s.emit("flip", x, axes=(axis,))
        case "concat":
            return s.emit("concat", *random.sample([x, _given(s, x.type.dtype, shape)], 2), axis=axis)
        case "slice":
            start = random.randint(0, max(shape[axis] - 1, 0))
            return s.emit("slice", x, axis=axis, start=start, end=shape[axis], step=random.choice((1, 1, 2, 3, 4)))
        case "broadcast":
            return s.emit("broadcast", x, shape=(random.randint(1, 3), *shape))
    return s.emit("reshape", x, shape=(int(np.prod(shape)),))


def _shape(x: Value) -> tuple[int, ...]:
    return tuple(int(n) for n in x.type.shape)


def _given(s: Sketch, dtype: DType, shape: tuple[int, ...], weight: bool = False) -> Value:
    return s.given(telling(TensorType(dtype, shape), s.data), weight or s.random.random() < 0.15)


def telling(type: TensorType, data: np.random.Generator, all_edges: bool = False) -> Any:
    """An array of the numbers that code goes wrong at, and of ordinary ones; with `all_edges`, every edge is there."""
    shape, dtype = tuple(int(n) for n in type.shape), type.dtype
    if dtype == boolean:
        return data.integers(0, 2, shape).astype(bool)
    if dtype.is_integer:
        ends = np.iinfo(dtype.numpy)
        near = [int(e) + k for e in (0, 2**7, 2**8, 2**15, 2**24, 2**31, 2**53) for k in (-2, -1, 0, 1, 3)]
        near = [n for m in near for n in (m, -m) if ends.min <= n <= ends.max] + [int(ends.min), int(ends.max)]
        some = data.integers(ends.min, ends.max, shape, dtype.numpy, endpoint=True)
        small = data.integers(0 if dtype.kind == "uint" else -9, 10, shape).astype(dtype.numpy)
        picked = np.array(near, dtype.numpy)[data.integers(0, len(near), shape)]
        return np.asarray(_mixed(data, (some, small, picked)))
    info = ml_dtypes.finfo(dtype.numpy)
    eps, least, most = float(info.eps), float(info.smallest_subnormal), float(info.max)
    with np.errstate(all="ignore"):
        low, high = np.log2(least), np.log2(most)
        some = np.exp2(data.uniform(low, high, shape) - 1) * data.choice([-1.0, 1.0], shape)
        halves = data.integers(-9, 10, shape) / 2.0
        # Halfway between neighbours of the narrower floating dtypes, and a little beside.
        tie = (1 + (2 * data.integers(0, 64, shape) + 1) * data.choice([2.0**-8, 2.0**-11, 2.0**-24], shape)) * np.exp2(
            data.integers(-10, 10, shape).astype(np.float64)
        )
        tie = tie * (1 + data.choice([0.0, 0.0, eps, -eps], shape))
        edges = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, least, -least, float(info.tiny), most, -most, 65504.0,
                          65520.0, 2.0**24 + 1, 2.0**31, -(2.0**31), 0.5, 1.5, 2.5, -0.5, 3.4e38])  # fmt: skip
        special = edges[data.integers(0, len(edges), shape)]
        plain = data.standard_normal(shape)
        found = np.asarray(_mixed(data, (some, halves, tie, special, plain, plain))).astype(dtype.numpy)
        if all_edges:
            put = np.tile([*edges, np.nan, np.nan], 3).astype(dtype.numpy)[: found.size]
            found.reshape(-1)[data.permutation(found.size)[: len(put)]] = put
        return _with_payloads(found, data) if dtype in (f32, f64) else found


def _with_payloads(array: Any, data: np.random.Generator) -> Any:
    """Floats whose NaNs have any bits that NaNs may have, all ones among them: to round those carries into the sign."""
    word = np.dtype(f"u{array.dtype.itemsize}")
    bits, digits = array.view(word).copy(), np.finfo(array.dtype).nmant
    most = (1 << digits) - 1
    payload = np.where(data.random(array.shape) < 0.4, most, data.integers(1, most, array.shape, endpoint=True))
    sign = data.integers(0, 2, array.shape).astype(word) << word.type(8 * array.dtype.itemsize - 1)
    ones = np.array(np.inf, array.dtype).view(word)
    return np.where(np.isnan(array), ones | payload.astype(word) | sign, bits).view(array.dtype)


def _mixed(data: np.random.Generator, kinds: tuple[Any, ...]) -> Any:
    """Elements of all kinds, or of one alone."""
    if data.random() < 0.3:
        return kinds[int(data.integers(len(kinds)))]
    return np.choose(data.integers(0, len(kinds), kinds[0].shape), kinds)

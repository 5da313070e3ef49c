"""Weights as they are stored: in one encoding, as sums and products of encodings, as bytes that meet bytes."""

from __future__ import annotations

import numpy as np

from effcc.errors import EncodingError
from effcc.fuzz.sketch import Refused, Sketch, floats, number, size, wide
from effcc.ir.dtypes import DType, f32, i8, i32, i64, u8
from effcc.ir.encodings import storage
from effcc.ir.encodings.registry import DECLARATIONS, declared
from effcc.ir.graph import Value
from effcc.ir.parser import encoding_of, parse_encoding
from effcc.ir.types import TensorType

MAGNITUDES = (0.0, 1e-41, 1e-6, 0.1, 1.0, 1.0, 3.0, 100.0)
"""Of the rows of a stored weight: also none, and subnormal ones."""
FIRST_TERMS = ("outliers(2)", "low_rank(2)", "low_rank(1) . int8", "csr(share=0.1)", "monarch(2)", "monarch(2) . int4")


def stored(s: Sketch) -> None:
    """A stored weight and who reads it."""
    s.random.choice((one_chain, one_chain, sum_of_terms, product_of_bytes))(s)


def one_chain(s: Sketch) -> None:
    """A weight stored in levels, in values, or in both."""
    dtype = wide(s)
    scheme, blocks = _chain(s)
    shape = blocks[0] * size(s, 1, 2, 4, 5, 8), blocks[1] * size(s, 2, 3, 8, 17, 32)
    level = encoding_of(scheme).terms[0][0]
    kept, density = declared(level.name).kept, s.random.choice((0.05, 0.5, 1.0))
    count = 0 if kept is None else kept(shape, density, **declared(level.name).given(level))
    read(s, decoded(s, scheme, shape, dtype, count))


def sum_of_terms(s: Sketch) -> None:
    """A weight stored as a sum, or as a product of factors alone."""
    dtype = wide(s)
    terms = [s.random.choice(FIRST_TERMS)]
    if s.random.random() < 0.2:
        terms.append("low_rank(1)")
    if s.random.random() < 0.8:
        terms.append(s.random.choice(_samples("values", s)))
    shape = 2 * size(s, 1, 2, 4, 5, 8), 2 * size(s, 2, 3, 8, 17)
    read(s, decoded(s, " + ".join(terms), shape, dtype))


def product_of_bytes(s: Sketch) -> None:
    """Bytes times bytes, summed in i32, a zero point taken away before, or after by sums of rows; scaled as floats.

    Sums of bytes of every size are taken on as remainders, which are small and show each of their bits.
    """
    m, n, k = size(s, 1, 3, 8, 17, 33), size(s, 1, 5, 16, 17, 33), size(s, 1, 3, 8, 33, 65, 130)
    whole = s.random.random() < 0.6
    x = _bytes(s, (m, k), u8 if s.random.random() < 0.4 else i8)
    weight = s.fresh(TensorType(i8, (n, k)), s.random.random() < 0.85, limits=(-128, 127) if whole else (-2, 2))
    wide_x, wide_w = (s.emit("cast", v, dtype=i32) for v in (x, weight))
    zero = _integer(s, s.random.choice((1, 7, 128, 255)))
    corrected = s.random.choice(("before", "after", "not"))
    if corrected == "before":
        wide_x = s.emit("sub", wide_x, zero)
    if s.random.random() < 0.3:
        sums = s.emit("matmul", wide_x, s.emit("transpose", wide_w, perm=(1, 0)))
    else:
        sums = s.emit("linear", wide_x, wide_w)
    if corrected == "after":
        sums = s.emit("sub", sums, s.emit("mul", s.emit("sum", wide_w, axes=(1,), keepdim=False), zero))
    if whole:
        sums = s.emit("mod", sums, _integer(s, 4096))
    y = s.emit("mul", s.emit("cast", sums, dtype=f32), number(s, 2.0**-10, f32))
    s.emit(s.random.choice(("relu", "tanh", "neg")), s.emit("mul", y, floats(s, n, dtype=f32, weight=True)))


def _integer(s: Sketch, value: int) -> Value:
    return s.emit("constant", value=value, dtype=i32)


def _bytes(s: Sketch, shape: tuple[int, int], dtype: DType) -> Value:
    """Bytes that are given, or made of floats in eighths: those are rounded alike whatever their last bit is."""
    low, high = (0, 255) if dtype == u8 else (-128, 127)
    if s.random.random() < 0.5:
        return s.fresh(TensorType(dtype, shape), limits=(low, high))
    eighths = s.given((s.data.integers(low + 2, high - 2, shape) / 8).astype(np.float32))
    return s.emit("cast", s.emit("round", s.emit("mul", eighths, number(s, 8.0, f32))), dtype=dtype)


def decoded(s: Sketch, scheme: str, shape: tuple[int, int], dtype: DType, count: int = 0) -> Value:
    """A random weight, stored and decoded; what is decoded lies within the error bound."""
    try:
        made = storage(encoding_of(scheme), shape, dtype, count)
        dense = (s.data.standard_normal(shape) * s.data.choice(MAGNITUDES, (shape[0], 1))).astype(dtype.numpy)
        arrays = made.encode(dense)
    except EncodingError as error:
        raise Refused(str(error)) from error
    if not made.holds(arrays, dense):
        raise AssertionError(f"{scheme} of {list(dense.shape)} does not hold its error bound")
    weight = s.random.random() < 0.85
    parts = [s.given(a, weight) for a in arrays]
    return s.emit("decode", *parts, encoding=made.encoding, dtype=dtype, shape=shape)


def read(s: Sketch, w: Value) -> None:
    """One product of the weight or several, or readers that need it whole."""
    dtype, (n, k) = w.type.dtype, (int(d) for d in w.type.shape)
    rows = size(s, 1, 2, 7, 8, 16, 33)
    x = floats(s, rows, k, dtype=dtype)
    reader = s.random.choice(("linear", "linear", "linear", "matmul", "einsum", "both", "other", "embedding", "result"))
    if reader == "matmul":
        s.emit("matmul", x, s.emit("transpose", w, perm=(1, 0)))
    elif reader == "einsum":
        s.emit("einsum", x, w, spec="bk,nk->nb")
    elif reader == "other":
        s.emit("matmul", floats(s, rows, n, dtype=dtype), w)
    elif reader == "embedding":
        s.emit("embedding", w, s.fresh(TensorType(i64, (rows,)), limits=(0, n - 1)))
    else:
        y = s.emit("linear", x, w, *([floats(s, n, dtype=dtype, weight=True)] if s.random.random() < 0.5 else []))
        if reader == "both":
            s.emit("linear", s.emit("tanh", x), w)
        if reader == "result":
            s.emit("sum", w, axes=(0,), keepdim=False)
        s.emit("gelu" if s.random.random() < 0.5 else "relu", y)


def _chain(s: Sketch) -> tuple[str, tuple[int, int]]:
    """The notation of a level, of values, or of both, as their declarations have samples; and the level's block."""
    level = s.random.choice(_samples("level", s)) if s.random.random() < 0.5 else ""
    known = ("int8", 'int8(per="tensor")') if s.random.random() < 0.3 else _samples("values", s)
    value = s.random.choice(known) if not level or s.random.random() < 0.6 else ""
    sizes = [int(a) for a in parse_encoding(level).terms[0][0].args] if level else []
    height, width = sizes if len(sizes) == 2 else (1, 1)
    return " . ".join(filter(None, (level, value))), (1 if level.startswith("nm") else height, width)


def _samples(kind: str, s: Sketch) -> tuple[str, ...]:
    """What the declaration of one scheme of a kind has as samples."""
    return s.random.choice([d.samples for d in DECLARATIONS.values() if d.kind == kind and d.name != "dense"])

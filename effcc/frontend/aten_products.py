"""Importers of contractions: matrix products, einsum's pieces and convolutions."""

from __future__ import annotations

from typing import Any

import sympy

from effcc.frontend.importer import Import, Importer, NotNative, aten, imports
from effcc.ir.dtypes import i32
from effcc.ir.graph import Value


def _transposed(m: Importer, w: Value) -> bool:
    """Whether `w` is the transpose of another matrix."""
    made = m.producer(w)
    return made is not None and made.op == "transpose"


@imports(aten.mm.default, aten.bmm.default)
def mm(m: Importer, a: Value, b: Value) -> Value:
    """A product with a transposed matrix is a `linear`, which reads the matrix as it is stored."""
    if b.type.rank == 2 and _transposed(m, b):
        return m.emit("linear", a, m.transpose(b, (1, 0)))
    return m.emit("matmul", a, b)


@imports(aten._int_mm.default)
def int_mm(m: Importer, a: Value, b: Value) -> Value:
    """The product of bytes, summed in i32, which wraps around as PyTorch's does."""
    made = m.producer(b)
    if made is not None and made.op == "transpose":
        return m.emit("linear", m.cast(a, i32), m.cast(m.transpose(b, (1, 0)), i32))
    return m.emit("matmul", m.cast(a, i32), m.cast(b, i32))


@imports(aten.addmm.default)
def addmm(m: Importer, bias: Value, a: Value, b: Value, beta: Any = 1, alpha: Any = 1) -> Value:
    """beta * bias + alpha * (a @ b); where a factor is 0, what it multiplies is not read, be it NaN."""
    if beta == 1 and alpha == 1 and bias.type.rank == 1 and bias.type.shape == (b.type.shape[1],):
        return m.emit("linear", a, m.transpose(b, (1, 0)), bias)
    if alpha == 0:
        shape = (a.type.shape[0], b.type.shape[1])
        scaled = m.constant(0, a.type.dtype) if beta == 0 else m.scaled("mul", bias, beta, a.type.dtype)
        return m.broadcast(scaled, shape)
    return _blend(m, bias, a, b, beta, alpha, mm)


@imports(aten.baddbmm.default)
def baddbmm(m: Importer, bias: Value, a: Value, b: Value, beta: Any = 1, alpha: Any = 1) -> Value:
    return _blend(m, bias, a, b, beta, alpha, lambda m, a, b: m.emit("matmul", a, b))


@imports(aten.addmv.default)
def addmv(m: Importer, bias: Value, a: Value, x: Value, beta: Any = 1, alpha: Any = 1) -> Value:
    """beta * bias + alpha * (a @ x)."""
    found = _blend(m, bias, a, x, beta, alpha, mv)
    return m.broadcast(found, (a.type.shape[0],))


@imports(aten.addbmm.default)
def addbmm(m: Importer, bias: Value, a: Value, b: Value, beta: Any = 1, alpha: Any = 1) -> Value:
    """beta * bias + alpha * the sum over the batch of a @ b."""
    return _blend(m, bias, a, b, beta, alpha, lambda m, a, b: m.emit("einsum", a, b, spec="bmk,bkn->mn"))


def _blend(m: Importer, bias: Value, a: Value, b: Value, beta: Any, alpha: Any, product: Import) -> Value:
    """beta * bias + alpha * product(a, b), rounded once; a bias that beta = 0 leaves out is not read."""
    dtype = a.type.dtype
    made = m.producer(b)
    if made is not None and made.op == "transpose":  # stays one, for `linear`
        perm: Any = made.attrs["perm"]
        b = m.transpose(m.accurate(made.operands[0], dtype), perm)
    found: Value = product(m, m.accurate(a, dtype), m.accurate(b, dtype))
    wide = found.type.dtype
    if alpha != 1:
        found = m.elementwise("mul", found, m.constant(alpha, wide))
    if beta != 0:
        term = m.accurate(bias, dtype)
        found = m.emit("add", found, term if beta == 1 else m.emit("mul", term, m.constant(beta, wide)))
    return m.cast(found, dtype)


@imports(aten.linear.default)
def linear(m: Importer, x: Value, w: Value, bias: Value | None = None) -> Value:
    if w.type.rank != 2:
        raise NotNative("a linear layer with a vector for its weight")
    return m.emit("linear", x, w) if bias is None else m.emit("linear", x, w, bias)


@imports(aten.mv.default)
def mv(m: Importer, a: Value, x: Value) -> Value:
    return m.emit("einsum", a, x, spec="mk,k->m")


@imports(aten.dot.default)
def dot(m: Importer, a: Value, b: Value) -> Value:
    return m.emit("einsum", a, b, spec="k,k->")


@imports(aten.convolution.default)
def convolution(
    m: Importer, x: Value, w: Value, bias: Value | None, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int,
) -> Value:  # fmt: skip
    if len({o.type.dtype for o in (x, w, bias) if o is not None}) > 1:
        raise NotNative("a convolution of unlike dtypes, which eager takes of integers")
    refused = [*(n < 1 for n in (*dilation, *stride)), *(p < 0 for p in padding)]
    if any(isinstance(r, sympy.core.relational.Relational) for r in refused):
        raise NotNative("a convolution whose steps depend on a size, so that eager may refuse them")
    if any(refused):
        raise NotNative("a convolution whose steps eager refuses")
    spatial = w.type.rank - 2
    return m.emit(
        "convolution", *((x, w) if bias is None else (x, w, bias)),
        stride=_per_axis(stride, spatial), padding=_per_axis(padding, spatial), dilation=_per_axis(dilation, spatial),
        groups=groups, transposed=transposed,
        output_padding=_per_axis(output_padding, spatial) if transposed else None,
    )  # fmt: skip


def _per_axis(values: Any, spatial: int) -> tuple[int, ...]:
    return tuple(values) * spatial if len(values) == 1 else tuple(values)

"""Contractions: linear, matmul, einsum and convolution, each a sum of products over named axes.

Axes are never collapsed, so that fusion sees which axis of which operand is which. Sums accumulate in f32 for half
types, in i32 for integers of up to 32 bits, else in the operands' type; a bias is added after the reduction, in a
statement of its own, before the one rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effcc.ir.dims import Dim, ceil_div, dim, same, show
from effcc.ir.dtypes import from_numpy
from effcc.ir.expr import (
    Axis,
    Const,
    Expr,
    add,
    both,
    cast,
    compare,
    floor_div,
    integer,
    modulo,
    multiply,
    where,
)  # fmt: skip
from effcc.ir.form import FormBuilder, call, constant
from effcc.ir.op import REQUIRED, Op, Types, broadcast_shapes, require
from effcc.ir.types import TensorType


def require_one_dtype(operands: Types) -> None:
    for operand in operands[1:]:
        first = operands[0].dtype
        require(operand.dtype == first, f"operands must have one dtype, got {first.name} and {operand.dtype.name}")


def require_vector(t: TensorType, size: Dim, what: str) -> None:
    """Refuse a bias, scale or the like that is not `[size]`."""
    require(t.rank == 1 and same(t.shape[0], size), f"{what} must be [{show(size)}], got {t}")


def _with_bias(b: FormBuilder, axes: Sequence[Axis], total: Expr, bias: Axis | None) -> None:
    """Define the result as `total`, plus the last operand at the axis `bias` where there is one."""
    if bias is None:
        b.define(axes, total)
        return
    partial = b.temporary(axes, total)
    b.define(axes, call("add", partial, cast(b.load(len(b.operands) - 1, (bias,)), partial.dtype)))


def product(b: FormBuilder, *factors: Expr) -> Expr:
    """The product of factors, in the type in which such products are summed."""
    wide = factors[0].dtype.products
    result = cast(factors[0], wide)
    for factor in factors[1:]:
        result = call("mul", result, cast(factor, wide))
    return result


def sum_of_products(b: FormBuilder, axes: Sequence[Axis], *factors: Expr) -> Expr:
    """The sum of a product over `axes`, accumulated in the type of the product."""
    body = product(b, *factors)
    return b.reduce("sum", axes, body, body.dtype)


def wide(x: Any) -> Any:
    """An array in the type that references compute in: f64 for floats, i64 for integers."""
    return x.astype(np.float64 if from_numpy(x.dtype).is_float else np.int64)


# --- linear and matmul ---------------------------------------------------------------------------------------------


def _infer_linear(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    x, w = operands[:2]
    require_one_dtype(operands)
    require(x.rank >= 1 and w.rank == 2, f"needs x[..., k] and w[n, k], got ranks {x.rank} and {w.rank}")
    require(
        same(x.shape[-1], w.shape[1]),
        f"x's last size {show(x.shape[-1])} and w's last size {show(w.shape[1])} must be equal",
    )
    if len(operands) == 3:
        require_vector(operands[2], w.shape[0], "the bias")
    return TensorType(x.dtype, (*x.shape[:-1], w.shape[0]))


def _linear(b: FormBuilder) -> None:
    x, w = b.operands[0].type, b.operands[1].type
    *rows, n = axes = (*b.axes(x.shape[:-1], "m"), b.axis(w.shape[0], "n"))
    k = b.axis(x.shape[-1], "k")
    total = sum_of_products(b, (k,), b.load(0, (*rows, k)), b.load(1, (n, k)))
    _with_bias(b, axes, total, n if len(b.operands) == 3 else None)


def _linear_reference(x: Any, w: Any, bias: Any = None) -> Any:
    result = wide(x) @ wide(w).T
    return (result if bias is None else result + wide(bias)).astype(x.dtype)


def _infer_matmul(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    a, w = operands
    require_one_dtype(operands)
    require(a.rank >= 2 and w.rank >= 2, f"needs two tensors of rank 2 or more, got ranks {a.rank} and {w.rank}")
    require(
        same(a.shape[-1], w.shape[-2]),
        f"the left's last size {show(a.shape[-1])} and the right's last but one {show(w.shape[-2])} must be equal",
    )
    return TensorType(a.dtype, (*broadcast_shapes([a.shape[:-2], w.shape[:-2]]), a.shape[-2], w.shape[-1]))


def _batched(shape: Sequence[Dim], batch: Sequence[Axis]) -> list[Expr]:
    """The batch index of a matmul operand: the result's batch axes, trailing, and 0 where the operand has size 1."""
    own = shape[:-2]
    aligned = batch[len(batch) - len(own) :]
    return [integer(0) if size == 1 else axis for size, axis in zip(own, aligned, strict=True)]


def _matmul(b: FormBuilder) -> None:
    left, right = b.operands[0].type.shape, b.operands[1].type.shape
    *batch, m, n = axes = (
        *b.axes(b.results[0].type.shape[:-2], "b"), b.axis(left[-2], "m"), b.axis(right[-1], "n"),
    )  # fmt: skip
    k = b.axis(left[-1], "k")
    x = b.load(0, (*_batched(left, batch), m, k))
    w = b.load(1, (*_batched(right, batch), k, n))
    b.define(axes, sum_of_products(b, (k,), x, w))


# --- einsum --------------------------------------------------------------------------------------------------------


def _labels(spec: str) -> tuple[list[str], str]:
    """`"bqd,bkd->bqk"` as (["bqd", "bkd"], "bqk")."""
    left, arrow, right = spec.partition("->")
    require(bool(arrow), f"the spec must name its result, as in 'ij,jk->ik'; got {spec!r}")
    terms = left.split(",")
    for label in "".join([*terms, right]):
        require(label.isalpha(), f"labels must be letters, got {label!r} in {spec!r}")
    require(len(set(right)) == len(right), f"a result label occurs twice in {spec!r}")
    require(set(right) <= set("".join(terms)), f"a result label occurs in no operand in {spec!r}")
    return terms, right


def _label_sizes(terms: Sequence[str], shapes: Sequence[Sequence[Dim]]) -> dict[str, Dim]:
    sizes: dict[str, Dim] = {}
    for term, shape in zip(terms, shapes, strict=True):
        require(len(term) == len(shape), f"term {term!r} has {len(term)} labels for an operand of rank {len(shape)}")
        for label, size in zip(term, shape, strict=True):
            known = sizes.setdefault(label, size)
            require(same(known, size), f"label {label!r} has sizes {show(known)} and {show(size)}")
    return sizes


def _infer_einsum(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    require_one_dtype(operands)
    terms, right = _labels(attrs["spec"])
    require(len(terms) == len(operands), f"spec {attrs['spec']!r} has {len(terms)} terms for {len(operands)} operands")
    sizes = _label_sizes(terms, [o.shape for o in operands])
    return TensorType(operands[0].dtype, tuple(sizes[label] for label in right))


def _einsum(b: FormBuilder) -> None:
    terms, right = _labels(b.attrs["spec"])
    sizes = _label_sizes(terms, [o.type.shape for o in b.operands])
    axis = {label: b.axis(size, label) for label, size in sizes.items()}
    factors = [b.load(i, [axis[label] for label in term]) for i, term in enumerate(terms)]
    summed = [axis[label] for label in sizes if label not in right]
    b.define([axis[label] for label in right], sum_of_products(b, summed, *factors))


# --- convolution ---------------------------------------------------------------------------------------------------


def _infer_convolution(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    x, w = operands[:2]
    require_one_dtype(operands)
    spatial = len(attrs["stride"])
    require(
        x.rank == w.rank == spatial + 2,
        f"needs x[n, c, {spatial} sizes] and w of the same rank, got ranks {x.rank} and {w.rank}",
    )
    for name in ("padding", "dilation"):
        require(len(attrs[name]) == spatial, f"{name} must have {spatial} entries, got {len(attrs[name])}")
    groups, channels = attrs["groups"], x.shape[1]
    if attrs["transposed"]:
        require(same(w.shape[0], channels), f"w's first size {show(w.shape[0])} must be x's channels {show(channels)}")
        out = dim(w.shape[1] * groups)
    else:
        require(
            same(dim(w.shape[1] * groups), channels),
            f"w's {show(w.shape[1])} channels times {groups} groups must be x's {show(channels)} channels",
        )
        out = w.shape[0]
    grouped = w.shape[0]  # results' channels, or x's where transposed
    divides = not isinstance(grouped, int) or grouped % groups == 0
    require(divides, f"w's first size {show(grouped)} must be a multiple of the {groups} groups")
    if len(operands) == 3:
        require_vector(operands[2], out, "the bias")
    return TensorType(x.dtype, (x.shape[0], out, *_convolved(x.shape[2:], w.shape[2:], attrs)))


def _convolved(sizes: Sequence[Dim], kernel: Sequence[Dim], attrs: Mapping[str, Any]) -> tuple[Dim, ...]:
    """The spatial sizes of a convolution's result."""
    extra = attrs["output_padding"] or (0,) * len(sizes)
    found: list[Dim] = []
    for d, size in enumerate(sizes):
        stride, pad, reach = attrs["stride"][d], attrs["padding"][d], attrs["dilation"][d] * (kernel[d] - 1) + 1
        if attrs["transposed"]:
            found.append(dim((size - 1) * stride - 2 * pad + reach + extra[d]))
        else:
            found.append(ceil_div(dim(size + 2 * pad - reach + 1), stride))
    return tuple(found)


def inside(position: Expr, size: Dim, below: bool, above: bool) -> list[Expr]:
    """The conditions `0 <= position` and `position < size` that are asked for."""
    conditions = [compare("ge", position, Const(0, position.dtype))] if below else []
    return [*conditions, compare("lt", position, integer(size))] if above else conditions


def overhangs(size: Dim, out: Dim, stride: int, pad: int, reach: int) -> bool:
    """Whether the last window of `reach` elements may end beyond the input; for symbolic sizes, if it is padded."""
    if isinstance(size, int) and isinstance(out, int):
        return (out - 1) * stride - pad + reach > size
    return pad > 0


def _convolution(b: FormBuilder) -> None:
    """`y[n,o,i] = sum(c,k: x[n,c,p] * w[o,c,k])`, with the positions p of the taps k, and 0 where p is outside."""
    transposed = b.attrs["transposed"]
    x, w, y = b.operands[0].type.shape, b.operands[1].type.shape, b.results[0].type.shape
    n, o, *out = axes = (b.axis(y[0], "n"), b.axis(y[1], "o"), *b.axes(y[2:], "y"))
    per_group = _quotient(x[1], b.attrs["groups"]) if transposed else w[1]
    summed: list[Axis] = []
    c = _reduction_axis(b, per_group, "c", summed)
    taps = [_reduction_axis(b, size, "k", summed) for size in w[2:]]
    positions, guards = (_reaching if transposed else _under_window)(b, out, taps)
    channel = add(multiply(_group(b, o, y[1]), integer(per_group)), c)
    value: Expr = b.load(0, (n, channel, *positions))
    if guards:
        value = where(both(*guards), value, constant(0, value))
    own = modulo(o, integer(w[1])) if b.attrs["groups"] > 1 else o
    weight = b.load(1, (channel, own, *taps) if transposed else (o, c, *taps))
    total = sum_of_products(b, summed or [b.axis(1, "c")], value, weight)
    _with_bias(b, axes, total, o if len(b.operands) == 3 else None)


def _under_window(b: FormBuilder, out: Sequence[Axis], taps: Sequence[Expr]) -> tuple[list[Expr], list[Expr]]:
    """Where each tap of a convolution reads: p = i*stride + k*dilation - pad, and the conditions for p to be inside."""
    x, w, y = (v.type.shape[2:] for v in (b.operands[0], b.operands[1], b.results[0]))
    positions, guards = [], []
    for d, (i, tap) in enumerate(zip(out, taps, strict=True)):
        stride, pad, dilation = b.attrs["stride"][d], b.attrs["padding"][d], b.attrs["dilation"][d]
        position = add(add(multiply(i, integer(stride)), multiply(tap, integer(dilation))), integer(-pad))
        reach = dilation * (w[d] - 1) + 1
        guards += inside(position, x[d], pad > 0, overhangs(x[d], y[d], stride, pad, reach))
        positions.append(position)
    return positions, guards


def _reaching(b: FormBuilder, out: Sequence[Axis], taps: Sequence[Expr]) -> tuple[list[Expr], list[Expr]]:
    """Where each tap of a transposed convolution reads: p with i + pad - k*dilation = stride*p, where there is one."""
    x, w = b.operands[0].type.shape[2:], b.operands[1].type.shape[2:]
    positions, guards = [], []
    for d, (i, tap) in enumerate(zip(out, taps, strict=True)):
        stride, pad, dilation = b.attrs["stride"][d], b.attrs["padding"][d], b.attrs["dilation"][d]
        reached = add(add(i, multiply(tap, integer(-dilation))), integer(pad))
        if stride > 1:
            guards.append(compare("eq", modulo(reached, integer(stride)), integer(0)))
        position = floor_div(reached, integer(stride))
        exact = stride == 1 and w[d] == 1 and pad == 0
        guards += inside(position, x[d], not exact, not exact)
        positions.append(position)
    return positions, guards


def _quotient(size: Dim, by: int) -> Dim:
    return size // by if isinstance(size, int) else dim(size / by)


def _reduction_axis(b: FormBuilder, extent: Dim, base: str, summed: list[Axis]) -> Expr:
    """A fresh reduction axis, added to `summed`; 0 where there is only one point."""
    if extent == 1:
        return integer(0)
    summed.append(b.axis(extent, base))
    return summed[-1]


def _group(b: FormBuilder, o: Axis, channels: Dim) -> Expr:
    """The group that output channel `o` belongs to."""
    groups = b.attrs["groups"]
    if groups == 1:
        return integer(0)
    return floor_div(o, integer(channels // groups if isinstance(channels, int) else dim(channels / groups)))


def _convolution_reference(
    x: Any, w: Any, bias: Any = None, *, stride: Any, padding: Any, dilation: Any, groups: int, transposed: bool,
    output_padding: Any,
) -> Any:  # fmt: skip
    attrs = {"stride": stride, "padding": padding, "dilation": dilation, "transposed": transposed,
             "output_padding": output_padding}  # fmt: skip
    a, k = wide(x), wide(w)
    sizes = _convolved(x.shape[2:], w.shape[2:], attrs)
    if transposed:
        a, k, stride, padding = _as_plain_convolution(a, k, sizes, stride, padding, dilation, groups)
    else:
        a = np.pad(a, [(0, 0), (0, 0), *((p, p) for p in padding)])
    spatial, per_group = len(stride), a.shape[1] // groups
    result = np.zeros((x.shape[0], k.shape[0], *sizes), a.dtype)
    for tap in np.ndindex(*k.shape[2:]):
        window = a[(slice(None), slice(None), *(
            slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in zip(tap, dilation, sizes, stride, strict=True)
        ))]  # fmt: skip
        grouped = window.reshape(x.shape[0], groups, per_group, *sizes)
        weights = k[(..., *tap)].reshape(groups, k.shape[0] // groups, per_group)
        letters = "xyz"[:spatial]
        part = np.einsum(f"ngc{letters},goc->ngo{letters}", grouped, weights)
        result += part.reshape(result.shape)
    if bias is not None:
        result = result + wide(bias).reshape(1, -1, *(1,) * spatial)
    return result.astype(x.dtype)


def _as_plain_convolution(
    a: Any, k: Any, sizes: Sequence[Any], stride: Any, padding: Any, dilation: Any, groups: int
) -> tuple[Any, Any, Any, Any]:
    """A transposed convolution as a plain one: input spread by the stride and padded, kernel flipped and swapped."""
    spatial = len(stride)
    spread = np.zeros((*a.shape[:2], *((n - 1) * s + 1 for n, s in zip(a.shape[2:], stride, strict=True))), a.dtype)
    spread[(slice(None), slice(None), *(slice(None, None, s) for s in stride))] = a
    pads = []
    for d in range(spatial):
        reach = dilation[d] * (k.shape[2 + d] - 1)
        low = reach - padding[d]
        pads.append((low, sizes[d] + reach - low - spread.shape[2 + d]))
    for d, (low, high) in enumerate(pads):
        cut = [slice(None)] * spread.ndim
        cut[2 + d] = slice(max(-low, 0), spread.shape[2 + d] - max(-high, 0))
        spread = spread[tuple(cut)]
    spread = np.pad(spread, [(0, 0), (0, 0), *((max(low, 0), max(high, 0)) for low, high in pads)])
    flipped = np.flip(k, axis=tuple(range(2, 2 + spatial)))
    per_group = k.shape[0] // groups
    swapped = np.concatenate([np.swapaxes(flipped[g * per_group : (g + 1) * per_group], 0, 1) for g in range(groups)])
    return spread, swapped, (1,) * spatial, (0,) * spatial


OPS: list[Op] = [
    Op("linear", "contraction", (2, 3), _infer_linear, _linear_reference,
       "x[..., k] times w[n, k] transposed, plus bias[n]", form=_linear),
    Op("matmul", "contraction", (2, 2), _infer_matmul, lambda a, w: np.matmul(wide(a), wide(w)).astype(a.dtype),
       "a[..., m, k] times w[..., k, n]; batch sizes broadcast", form=_matmul),
    Op("einsum", "contraction", (1, None), _infer_einsum,
       lambda *xs, spec: np.asarray(np.einsum(spec, *(wide(x) for x in xs))).astype(xs[0].dtype),
       "sum of products by labels, as in \"bqd,bkd->bqk\"", {"spec": REQUIRED}, _einsum),
    Op("convolution", "contraction", (2, 3), _infer_convolution, _convolution_reference,
       "cross-correlation of x[n, c, ...] with w[o, c/groups, ...] (transposed: w[c, o/groups, ...]), plus bias[o]",
       {"stride": REQUIRED, "padding": REQUIRED, "dilation": REQUIRED, "groups": 1, "transposed": False,
        "output_padding": None}, _convolution),
]  # fmt: skip

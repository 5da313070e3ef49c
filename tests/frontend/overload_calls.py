"""Sample calls of ATen overloads, for tests of the importer: at least one for each overload that it knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of an overload, with real tensors for arguments."""

    overload: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        shown = ",".join(_show(a) for a in (*self.args, *self.kwargs.values()))
        return f"{self.overload}({shown})"


def _show(argument: Any) -> str:
    if isinstance(argument, Tensor):
        return f"{str(argument.dtype).removeprefix('torch.')}{list(argument.shape)}".replace(" ", "")
    if isinstance(argument, list | tuple):
        return "[" + ",".join(_show(a) for a in argument) + "]"
    return str(argument)


def floats(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + 17 * len(shape))).to(dtype)


def positive(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (floats(*shape).abs() + 0.2).to(dtype)


def integers(*shape: int, low: int = -4, high: int = 4, dtype: torch.dtype = torch.int64, seed: int = 0) -> Tensor:
    return torch.randint(low, high + 1, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def bools(*shape: int, seed: int = 0) -> Tensor:
    return integers(*shape, low=0, high=1, seed=seed).bool()


HALF = torch.bfloat16
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

_UNARY = [
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "cos",
    "cosh",
    "erf",
    "exp",
    "expm1",
    "log",
    "log10",
    "log1p",
    "log2",
    "reciprocal",
    "rsqrt",
    "sigmoid",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "exp2",
    "erfc",
    "lgamma",
]
_SHAPE_PRESERVING = ["abs", "neg", "sign", "relu", "floor", "ceil", "trunc", "round"]


def _unary() -> list[Call]:
    calls = []
    for name in _UNARY:
        for x in (*(positive(3, 2, dtype=d) for d in FLOATS), integers(3, 2, low=1)):
            calls.append(Call(getattr(aten, name).default, (x,)))
    for name in _SHAPE_PRESERVING:
        for x in (floats(3, 2), floats(3, 2, dtype=HALF), integers(3, 2), integers(3, 2, dtype=torch.int8)):
            calls.append(Call(getattr(aten, name).default, (x,)))
    for name in ("isnan", "isinf"):
        x = torch.tensor([1.0, float("nan"), float("inf"), -float("inf")])
        calls += [Call(getattr(aten, name).default, (v,)) for v in (x, x.half(), integers(3))]
    calls += [Call(aten.logical_not.default, (v,)) for v in (bools(4), integers(4), floats(4))]
    calls += [Call(aten.bitwise_not.default, (v,)) for v in (bools(4), integers(4))]
    calls += [
        Call(aten.gelu.default, (floats(5, dtype=d),), {"approximate": a}) for d in FLOATS for a in ("none", "tanh")
    ]
    return [*calls, Call(aten.silu.default, (floats(5),)), Call(aten.square.default, (floats(5),))]


def _binary() -> list[Call]:
    a, b, h, i, c = floats(2, 3), floats(3, seed=1), floats(2, 3, dtype=HALF), integers(2, 3), bools(2, 3)
    zero_d = torch.tensor(1.5, dtype=torch.float64)
    pairs: list[tuple[Any, Any]] = [
        (a, b),
        (h, h),
        (a, i),
        (h, a),
        (i, zero_d),
        (a, zero_d),
        (i, integers(3, dtype=torch.int32)),
    ]
    calls = []
    for name in ("add", "sub", "mul", "div"):
        packet = getattr(aten, name)
        calls += [Call(packet.Tensor, pair) for pair in pairs]
        calls += [Call(packet.Tensor, (x, s)) for x in (a, h, i) for s in (2, 0.1)]
        calls.append(Call(packet.Scalar, (a, 0.3)))
    calls += [Call(aten.add.Tensor, (a, b), {"alpha": 0.5}), Call(aten.sub.Tensor, (i, 3), {"alpha": 2})]
    calls += [
        Call(aten.add.Tensor, (c, bools(2, 3, seed=1))),
        Call(aten.mul.Tensor, (c, bools(3))),
        Call(aten.add.Tensor, (c, i)),
    ]
    calls += [Call(aten.add.Scalar, (i, 2, 3)), Call(aten.rsub.Scalar, (a, 2.0, 0.5)), Call(aten.rsub.Tensor, (a, b))]
    for mode in (None, "floor", "trunc"):
        calls += [
            Call(aten.div.Tensor_mode, pair, {"rounding_mode": mode})
            for pair in ((a, b), (i, integers(3, low=1)), (i, integers(3, low=-3, high=-1)))
        ]
        calls += [
            Call(aten.div.Scalar_mode, (a, 0.7), {"rounding_mode": mode}),
            Call(aten.div.Scalar_mode, (i, -3), {"rounding_mode": mode}),
        ]
    calls += [
        Call(aten.floor_divide.default, (i, 2)),
        Call(aten.atan2.default, (a, b)),
        Call(aten.atan2.default, (i, i)),
    ]
    calls += [Call(aten.copysign.Tensor, (a, b)), Call(aten.copysign.Scalar, (a, -1))]
    for name in ("remainder", "fmod"):
        packet = getattr(aten, name)
        calls += [
            Call(packet.Tensor, (a, b)),
            Call(packet.Scalar, (a, -0.7)),
            Call(packet.Scalar, (i, -3)),
            Call(packet.Scalar, (h, 0.3)),
        ]
    for name in ("maximum", "minimum"):
        calls += [Call(getattr(aten, name).default, pair) for pair in ((a, b), (i, i + 1), (a, i))]
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        packet = getattr(aten, name)
        calls += [
            Call(packet.Tensor, (a, b)),
            Call(packet.Tensor, (i, a)),
            Call(packet.Scalar, (i, 1)),
            Call(packet.Scalar, (i, 0.5)),
            Call(packet.Scalar, (h, 0.1)),
        ]
    for name in ("and", "or", "xor"):
        packet = getattr(aten, f"bitwise_{name}")
        calls += [
            Call(packet.Tensor, (i, integers(3, seed=2))),
            Call(packet.Tensor, (c, bools(3, seed=3))),
            Call(packet.Scalar, (i, 3)),
            Call(packet.Scalar_Tensor, (3, i)),
        ]
        calls += [Call(getattr(aten, f"logical_{name}").default, pair) for pair in ((c, bools(3)), (i, a))]
    shift = integers(3, low=0, high=3)
    for packet in (aten.__lshift__, aten.__rshift__):
        calls += [Call(packet.Tensor, (i, shift)), Call(packet.Scalar, (i, 2))]
    calls += [Call(torch.ops.prims.div.default, (a, a + 5)), Call(torch.ops.prims.div.default, (i - 9, i * 0 + 2))]
    calls += [Call(aten.true_divide.Tensor, (a, i)), Call(aten.true_divide.Scalar, (i, 3))]
    calls += [Call(aten.bitwise_left_shift.Tensor, (i, shift)), Call(aten.bitwise_right_shift.Tensor, (i, shift))]
    for packet in (aten.bitwise_left_shift, aten.bitwise_right_shift):
        calls += [Call(packet.Tensor_Scalar, (i, 2)), Call(packet.Scalar_Tensor, (9, shift))]
    calls += [
        Call(aten.remainder.Scalar_Tensor, (-7, positive(2, 3))),
        Call(aten.remainder.Scalar_Tensor, (-7, shift + 1)),
    ]
    for e in (0, 1, 2, 3, 0.5, -0.5, -1, -2, 2.5):
        calls.append(Call(aten.pow.Tensor_Scalar, (positive(2, 3), e)))
    calls += [
        Call(aten.pow.Tensor_Scalar, (i, 2)),
        Call(aten.pow.Tensor_Scalar, (integers(3, low=1), 0.5)),
        Call(aten.pow.Tensor_Scalar, (h, 2)),
    ]
    calls += [Call(aten.ldexp.Tensor, (a, e)) for e in (integers(2, 3), integers(3), floats(2, 3))]
    calls += [Call(aten.pow.Tensor_Tensor, (positive(2, 3), b)), Call(aten.pow.Scalar, (2.0, a))]
    calls += [
        Call(aten.where.self, (c, a, b)),
        Call(aten.where.self, (c, h, torch.tensor(1.0))),
        Call(aten.where.self, (c, i, a)),
    ]
    calls += [
        Call(aten.clamp.default, (x, lo, hi))
        for x in (a, h, i)
        for lo, hi in ((-1, None), (None, 1), (-0.5, 0.5), (1, -1))
    ]
    calls += [
        Call(aten.clamp.Tensor, (a, b, None)),
        Call(aten.clamp_min.default, (a, 0)),
        Call(aten.clamp_max.default, (a, 0)),
    ]
    calls += [Call(aten.masked_fill.Scalar, (a, c, 2)), Call(aten.masked_fill.Tensor, (a, c, torch.tensor(0.0)))]
    calls += [
        Call(overload, (x.to(d), positive(2, 3, dtype=d), positive(1, 3, dtype=d)), {"value": 3})
        for overload, dtypes in ((aten.addcmul.default, (*FLOATS, torch.int64)), (aten.addcdiv.default, FLOATS))
        for d in dtypes
        for x in [floats(2, 3, seed=4)]
    ]
    calls += [Call(aten.elu.default, (x, 1.5)) for x in (a, h)]
    calls += [Call(aten.lerp.Scalar, (a, floats(2, 3, seed=4), 0.3)), Call(aten.lerp.Tensor, (a, a + 1, b))]
    calls += [
        Call(aten._to_copy.default, (x,), {"dtype": d})
        for x in (a, i, c)
        for d in (torch.float16, torch.int32, torch.bool, torch.float64)
    ]
    calls += [Call(aten.copy.default, (a, i)), Call(aten.copy.default, (a, torch.tensor(2.0)))]
    return [*calls, Call(torch.ops.prims.convert_element_type.default, (a, torch.bfloat16))]


def _reductions() -> list[Call]:
    x, h, i = floats(2, 3, 4), floats(2, 3, 4, dtype=HALF), integers(2, 3, 4)
    prims = torch.ops.prims
    calls = [Call(prims.sum.default, (x, [1])), Call(prims.var.default, (x, [0, 2], 1.0))]
    for v in (x, h, i, bools(2, 3)):
        calls += [
            Call(aten.sum.default, (v,)),
            Call(aten.sum.dim_IntList, (v, [-1], True)),
            Call(aten.prod.default, (v,)),
        ]
        calls += [
            Call(aten.amax.default, (v, [0, 1])),
            Call(aten.amin.default, (v, [1], True)),
            Call(aten.prod.dim_int, (v, 1)),
        ]
        calls += [Call(aten.any.default, (v,)), Call(aten.any.dim, (v, 1)), Call(aten.any.dims, (v, [0, 1], True))]
        calls += [Call(aten.all.default, (v,)), Call(aten.all.dim, (v, 1))]
    calls += [Call(aten.all.dims, (x, [0, 1])), Call(aten.max.default, (x,)), Call(aten.min.default, (x,))]
    calls += [Call(aten.sum.dim_IntList, (h, [1]), {"dtype": torch.float32}), Call(aten.sum.dim_IntList, (x, None))]
    calls += [Call(aten.sum.default, (torch.tensor(2.0),)), Call(aten.amax.default, (torch.tensor(2.0),))]
    for v in (x, h):
        calls += [Call(aten.mean.default, (v,)), Call(aten.mean.dim, (v, [1, 2], True)), Call(aten.mean.dim, (v, [-1]))]
        calls += [
            Call(aten.std.correction, (v, [1])),
            Call(aten.std.correction, (v,), {"correction": 0, "keepdim": True}),
            Call(aten.var.correction, (v, [1])),
            Call(aten.var.correction, (v,), {"correction": 0, "keepdim": True}),
        ]
        calls += [Call(aten.var.dim, (v, [1], False)), Call(aten.var_mean.correction, (v, [1]), {"correction": 1})]
        calls += [Call(aten.std_mean.correction, (v, [1]), {"correction": 1})]
    for v in (x, i):
        calls += [
            Call(aten.argmax.default, (v,)),
            Call(aten.argmax.default, (v, 1, True)),
            Call(aten.argmin.default, (v, -1)),
        ]
        calls += [Call(aten.max.dim, (v, 1)), Call(aten.min.dim, (v, 2, True))]
    calls += [Call(aten.linalg_vector_norm.default, (x, p, [1])) for p in (2, 1, 0, 3, float("inf"), -float("inf"))]
    calls += [
        Call(aten.linalg_vector_norm.default, (x,)),
        Call(aten.cumsum.default, (x, 1)),
        Call(aten.cumsum.default, (i, -1)),
    ]
    calls += [
        Call(aten.cumsum.default, (bools(3, 2), 0)),
        Call(aten.cumprod.default, (x, 1)),
        Call(aten.cumsum.default, (torch.tensor(2.0), 0)),
    ]
    calls += [Call(aten.cumsum.default, (i.int(), 1)), Call(aten.cumsum.default, (h, 1), {"dtype": torch.float32})]
    return calls


def _products() -> list[Call]:
    a, b = floats(3, 4), floats(4, 5, seed=1)
    calls = [Call(aten.mm.default, (v(a), v(b))) for v in (lambda t: t, lambda t: t.bfloat16(), lambda t: t.double())]
    calls += [Call(aten.mm.default, (integers(2, 3), integers(3, 2)))]
    calls += [Call(aten._int_mm.default, (integers(2, 3).to(torch.int8), integers(3, 2).to(torch.int8)))]
    calls += [Call(aten.bmm.default, (floats(2, 3, 4), floats(2, 4, 5)))]
    calls += [Call(aten.addmm.default, (floats(5), a, b)), Call(aten.addmm.default, (floats(3, 5), a, b))]
    calls += [
        Call(aten.addmm.default, (floats(5), a, b), {"beta": 0.5, "alpha": 2}),
        Call(aten.addmm.default, (floats(1), a, b)),
    ]
    calls += [Call(aten.baddbmm.default, (floats(3, 5), floats(2, 3, 4), floats(2, 4, 5)), {"alpha": 0.5})]
    calls += [
        Call(aten.linear.default, (floats(2, 3, 4), floats(5, 4), floats(5))),
        Call(aten.linear.default, (a, floats(5, 4))),
    ]
    calls += [Call(aten.mv.default, (a, floats(4))), Call(aten.dot.default, (floats(4), floats(4, seed=1)))]
    scales = ({}, {"beta": 0.5, "alpha": 2}, {"beta": 0, "alpha": 1})
    batches = floats(2, 3, 4), floats(2, 4, 5)
    calls += [Call(aten.addmv.default, (bias, a, floats(4)), s) for bias in (floats(3), floats(1)) for s in scales]
    calls += [Call(aten.addbmm.default, (bias, *batches), s) for bias in (floats(3, 5), floats(5)) for s in scales]
    image, kernel = floats(2, 4, 7, 6), floats(6, 2, 3, 3)
    calls += [
        Call(aten.convolution.default, (image, kernel, floats(6), [2, 1], [1, 1], [1, 2], False, [0, 0], 2)),
        Call(aten.convolution.default, (image, kernel, None, [1], [1], [1], False, [0], 2)),
        Call(aten.convolution.default, (floats(2, 4, 7), floats(4, 3, 3), floats(6), [2], [1], [1], True, [1], 2)),
        Call(
            aten.convolution.default,
            (image.bfloat16(), kernel.bfloat16(), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 2),
        ),
    ]
    return calls


def _views() -> list[Call]:
    x = floats(2, 6, 4)
    calls = [
        Call(aten.view.default, (x, [12, -1])),
        Call(aten.view.default, (x, [2, 2, 3, 4])),
        Call(aten.reshape.default, (x, [-1])),
    ]
    calls += [
        Call(aten._unsafe_view.default, (x, [48])),
        Call(aten.clone.default, (x,)),
        Call(aten.alias.default, (x,)),
        Call(aten.detach.default, (x,)),
        Call(aten.detach_copy.default, (x,)),
    ]
    calls += [
        Call(aten.contiguous.default, (x,)),
        Call(aten.lift_fresh_copy.default, (x,)),
        Call(aten.permute.default, (x, [0, -1, 1])),
    ]
    calls += [
        Call(aten.t.default, (floats(2, 3),)),
        Call(aten.t.default, (floats(3),)),
        Call(aten.transpose.int, (x, 0, -1)),
    ]
    calls += [
        Call(aten.expand.default, (floats(2, 1, 4), [3, -1, 5, 4])),
        Call(torch.ops.prims.broadcast_in_dim.default, (x[:, :1, 0], [2, *x.shape[:1], 4, 3], [1, 2])),
        Call(aten.unsqueeze.default, (x, -1)),
        Call(aten.unsqueeze.default, (x, 1)),
    ]
    one = floats(1, 3, 1)
    calls += [
        Call(aten.squeeze.dim, (one, 0)),
        Call(aten.squeeze.dim, (one, 1)),
        Call(aten.squeeze.dims, (one, [0, 2])),
        Call(aten.squeeze.default, (one,)),
    ]
    calls += [
        Call(aten.slice.Tensor, (x, 1, a, z, s))
        for a, z, s in ((1, 5, 1), (None, None, 2), (-3, 99, 1), (2, -1, 3), (5, 2, 1), (0, 2**63 - 1, 1))
    ]
    calls += [Call(aten.select.int, (x, 1, k)) for k in (2, -1)]
    calls += [
        Call(aten.split_with_sizes.default, (x, [1, 2, 3], 1)),
        Call(aten.split.Tensor, (x, 4, 1)),
        Call(aten.unbind.int, (x, 0)),
    ]
    calls += [
        Call(aten.cat.default, ([x, floats(2, 1, 4)], 1)),
        Call(aten.cat.default, ([x, torch.zeros(0)], -1)),
        Call(aten.cat.default, ([x, integers(2, 6, 1)], -1)),
    ]
    calls += [Call(aten.cat.default, ([x],)), Call(aten.stack.default, ([x, x + 1], -1))]
    calls += [Call(aten.constant_pad_nd.default, (x, p, 0.5)) for p in ([1, 2], [-1, 2, 0, 1], [0, 0])]
    calls += [
        Call(aten.constant_pad_nd.default, (integers(2, 3), [1, 1], 7)),
        Call(aten.flip.default, (x, [0, -1])),
        Call(aten.flip.default, (x, [])),
    ]
    calls += [Call(aten.repeat.default, (floats(2, 3), r)) for r in ([1, 2], [2, 1, 1], [1, 1], [2, 3])] + [
        Call(aten.repeat.default, (floats(1, 3), [4, 1]))
    ]
    calls += [Call(aten.diagonal.default, (x, k, a, z)) for k, a, z in ((0, 0, 1), (1, 1, 2), (-2, -2, -1))]
    calls += [
        Call(aten.as_strided.default, (x, [3, 2], [1, 8], 2)),
        Call(aten.as_strided.default, (x, [12, 4], [4, 1])),
    ]
    calls += [
        Call(aten.slice_scatter.default, (x, floats(2, n, 4), 1, a, z, s))
        for a, z, s, n in ((1, 4, 1, 3), (None, None, 2, 3), (-2, 99, 1, 2))
    ]
    calls += [Call(aten.select_scatter.default, (x, floats(2, 4), 1, k)) for k in (0, -1)]
    calls += [
        Call(f.default, (v, k))
        for f in (aten.tril, aten.triu)
        for v in (floats(2, 3, 4), bools(3, 3))
        for k in (0, 1, -1)
    ]
    calls += [Call(aten.unfold.default, (x, k, 2, 3)) for k in (1, -1)]
    return calls + _copies(x)


def _copies(x: Tensor) -> list[Call]:
    """Views that give new memory; bytes read as other numbers; parts replaced."""
    one = floats(2, 1, 3)
    calls = [
        Call(aten.view_copy.default, (x, [12, -1])),
        Call(aten.alias_copy.default, (x,)),
        Call(aten.permute_copy.default, (x, [0, -1, 1])),
        Call(aten.t_copy.default, (floats(2, 3),)),
        Call(aten.transpose_copy.int, (x, 0, -1)),
        Call(aten.expand_copy.default, (one, [4, 2, 5, 3])),
        Call(aten.unsqueeze_copy.default, (x, -1)),
        Call(aten.squeeze_copy.default, (one,)),
        Call(aten.squeeze_copy.dim, (one, 1)),
        Call(aten.squeeze_copy.dims, (one, [0, 1])),
        Call(aten.slice_copy.Tensor, (x, 1, 1, 6, 2)),
        Call(aten.narrow_copy.default, (x, -2, 2, 3)),
        Call(aten.narrow_copy.default, (x, 1, -3, 2)),
        Call(aten.select_copy.int, (x, 1, -1)),
        Call(aten.split_copy.Tensor, (x, 4, 1)),
        Call(aten.split_with_sizes_copy.default, (x, [1, 5], 1)),
        Call(aten.unbind_copy.int, (x, 1)),
        Call(aten.diagonal_copy.default, (x, 1, 1, 2)),
        Call(aten.as_strided_copy.default, (x, [3, 2], [1, 8], 2)),
    ]
    calls += [
        Call(aten.diagonal_scatter.default, (floats(*shape), floats(*part), k, a, z))
        for shape, part, k, a, z in (
            ((4, 4), (4,), 0, 0, 1),
            ((3, 5), (3,), 1, 0, 1),
            ((5, 3), (2,), 1, 0, 1),
            ((5, 3), (3,), -1, 0, 1),
            ((5, 3), (1,), -4, 0, 1),
            ((2, 6, 4), (6, 2), -1, 2, 0),
        )
    ]
    bytes_ = integers(2, 16, low=0, high=256, dtype=torch.uint8)
    sources = [x, x.double(), bytes_, bytes_.view(torch.int8), bytes_.view(torch.int16), integers(2, 8), bools(2, 8)]
    targets = (torch.float32, torch.float64, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
    calls += [  # to floats only of floats: others may be no numbers
        Call(aten.view.dtype, (source, to))
        for source in sources
        for to in targets
        if source.is_floating_point() or not to.is_floating_point
    ]
    return [*calls, Call(aten.view.dtype, (integers(2, 8).double().view(torch.int64), torch.float64))]


def _indexing() -> list[Call]:
    x, rows = floats(5, 4, 3), integers(2, 3, low=0, high=4)
    calls = [
        Call(aten.embedding.default, (floats(5, 3), rows)),
        Call(aten.embedding.default, (floats(5, 3), rows.int(), 1)),
    ]
    calls += [Call(aten.index_select.default, (x, 1, integers(6, low=0, high=3)))]
    calls += [Call(aten.gather.default, (x, 1, integers(2, 6, 3, low=0, high=3)))]
    first, second = integers(2, 1, low=-5, high=4), integers(3, low=-4, high=3)
    for overload in (aten.index.Tensor, aten._unsafe_index.Tensor):
        calls += [
            Call(overload, (x, i))
            for i in (
                [first],
                [None, second],
                [first, second],
                [integers(2, low=0, high=2), None, integers(2, low=0, high=2)],
            )
        ]
    calls += [Call(aten.index_put.default, (x, [integers(2, low=-5, high=4)], floats(2, 4, 3), a)) for a in (True,)]
    calls += [
        Call(aten.index_put.default, (x, [torch.tensor([0, 3])], floats(4, 3))),
        Call(aten.index_put.default, (x, [bools(5, 4)], torch.tensor(2.0))),
    ]
    calls += [Call(aten.index_put.default, (x, [None, torch.tensor([1, 2])], torch.tensor(1.0)))]
    calls += [Call(aten._unsafe_index_put.default, (x, [torch.tensor([1, 1])], floats(2, 4, 3), True))]
    index, source = torch.tensor([[0, 1, 2], [4, 3, 0]]), floats(3, 4)
    y = floats(5, 4)
    calls += [Call(aten.scatter.src, (y, 0, index, source)), Call(aten.scatter.value, (y, 0, index, 2.5))]
    calls += [
        Call(aten.scatter_add.default, (y, 0, index, source)),
        Call(aten.scatter_add.default, (y, 1, index.clamp(max=3), source)),
    ]
    calls += [Call(aten.scatter_reduce.two, (y, 0, index, source, r)) for r in ("sum", "prod", "amax", "amin")]
    calls += [
        Call(aten.scatter_reduce.two, (y, 0, index, source, "mean")),
        Call(aten.scatter_reduce.two, (y, 0, index, source, "mean"), {"include_self": False}),
        Call(aten.scatter_reduce.two, (y.long(), 0, index, source.long(), "mean")),
        *(
            Call(aten.scatter_reduce.two, (t, 0, index, s, r), {"include_self": False})
            for t, s in ((y, source), (y.long(), source.long()))
            for r in ("sum", "prod", "amax", "amin")
        ),
        Call(aten.scatter_reduce.two, (floats(), 0, torch.tensor(0), floats(), "sum")),
        Call(aten.scatter.src, (floats(), 0, torch.tensor(0), floats(1)[0])),
        Call(aten.scatter.value, (floats(3), 0, torch.tensor(2), 2.5)),
        Call(aten.gather.default, (floats(), 0, torch.tensor([0]))),
        Call(aten.gather.default, (floats(5), 0, torch.tensor(3))),
        Call(aten.gather.default, (floats(5), 0, torch.zeros(0, dtype=torch.uint8))),
        Call(aten.index_select.default, (floats(), 0, torch.tensor([0]))),
    ]
    for combine in ("add", "multiply"):
        calls.append(Call(aten.scatter.reduce, (y, 0, index, source), {"reduce": combine}))
        calls.append(Call(aten.scatter.value_reduce, (y, 0, index, 2.5), {"reduce": combine}))
    calls += [Call(aten.index_add.default, (x, 1, torch.tensor([0, 2, 2]), floats(5, 3, 3)), {"alpha": 0.5})]
    rows_, added = torch.tensor([0, 2, 2, 4]), floats(4, 4, 3)
    calls += [
        Call(aten.index_reduce.default, (t, 0, rows_, s, r), {"include_self": k})
        for t, s in ((x, added), (x.long(), added.long()))
        for r in ("prod", "amax", "amin")
        for k in (True, False)
    ]
    calls += [
        Call(aten.put.default, (x, torch.tensor([[0, -1], [7, 30]]), floats(2, 2))),
        Call(aten.put.default, (x, torch.tensor([0, 0, -1]), floats(3), True)),
    ]
    calls += [Call(aten.index_copy.default, (x, 1, torch.tensor([0, 2]), floats(5, 2, 3)))]
    calls += [Call(aten.index_fill.int_Scalar, (x, 1, torch.tensor([0, -1]), 2.5))]
    calls += [Call(aten.index_fill.int_Tensor, (x, 1, torch.tensor([0, -1]), torch.tensor(2.5)))]
    offsets = torch.tensor([0, 2, 2, 4])
    calls += [
        Call(aten.segment_reduce.default, (floats(5, 3), r), {"offsets": offsets})
        for r in ("sum", "mean", "max", "prod")
    ]
    calls += [Call(aten.segment_reduce.default, (floats(4, 3), "sum"), {"lengths": torch.tensor([1, 0, 3])})]
    bags = (floats(5, 3), torch.tensor([0, 4, 1, 4]), torch.tensor([0, 1, 1]), False, 0, False)
    calls += [Call(o.default, bags) for o in (aten._embedding_bag, aten._embedding_bag_forward_only)]
    groups = (floats(5, 8).bfloat16(), floats(3, 8, 16).bfloat16())
    calls += [Call(aten._grouped_mm.default, groups, {"offs": torch.tensor([2, 2, 5], dtype=torch.int32)})]
    grad = floats(2, 3, 4)
    calls += [Call(aten.embedding_dense_backward.default, (grad, rows, 5, p, False)) for p in (-1, 2)]
    return calls


def _norms() -> list[Call]:
    x, image = floats(2, 3, 4), floats(2, 6, 4, 3)
    calls = [Call(aten._softmax.default, (v, -1, False)) for v in (x, x.bfloat16(), x.half())] + [
        Call(aten._softmax.default, (x, 1, False))
    ]
    masked = x.masked_fill(bools(2, 3, 4), -float("inf"))
    masked[0, 0] = -float("inf")
    calls += [
        Call(aten._safe_softmax.default, (masked, -1)),
        Call(aten._log_softmax.default, (x, 1, False)),
        Call(aten._log_softmax.default, (x.bfloat16(), 1, False)),
    ]
    calls += [
        Call(aten._softmax.default, (torch.tensor(2.0), 0, False)),
        Call(aten._log_softmax.default, (torch.tensor(2.0), 0, False)),
    ]
    for v in (x, x.bfloat16()):
        w, b = floats(4).to(v.dtype), floats(4, seed=1).to(v.dtype)
        calls += [
            Call(aten.native_layer_norm.default, (v, [4], a, s, 1e-5))
            for a, s in ((w, b), (w, None), (None, None), (None, b))
        ]
    calls += [Call(aten.native_layer_norm.default, (x, [3, 4], floats(3, 4), None, 1e-5))]
    calls += [Call(aten._fused_rms_norm.default, (x, [4], w, 1e-5)) for w in (floats(4), None)]
    calls += [
        Call(aten.native_group_norm.default, (image, a, s, 2, 6, 12, 3, 1e-5))
        for a, s in ((floats(6), floats(6, seed=1)), (None, None))
    ]
    mean, var, w, b = floats(6), positive(6), floats(6, seed=2), floats(6, seed=3)
    calls += [
        Call(aten._native_batch_norm_legit_no_training.default, (image, *p, mean, var, 0.1, 1e-5))
        for p in ((w, b), (w, None), (None, None))
    ]
    calls += [Call(aten._native_batch_norm_legit.no_stats, (image, w, b, True, 0.1, 1e-5))]
    calls += [
        Call(aten._native_batch_norm_legit_functional.default, (image, w, b, mean, var, t, 0.1, 1e-5))
        for t in (True, False)
    ]
    return calls


def _creation() -> list[Call]:
    x = floats(2, 3)
    calls = [Call(aten.full.default, ([2, 3], v)) for v in (1.5, 2, True)] + [
        Call(aten.full.default, ([], 2), {"dtype": torch.float16})
    ]
    calls += [
        Call(aten.full_like.default, (x, 2)),
        Call(aten.full_like.default, (x, 2), {"dtype": torch.int32}),
        Call(aten.fill.Scalar, (x, 3)),
        Call(aten.fill.Tensor, (x, torch.tensor(3))),
    ]
    calls += [Call(aten.scalar_tensor.default, (v,)) for v in (1.5, 2)] + [
        Call(aten.scalar_tensor.default, (2,), {"dtype": torch.int64})
    ]
    calls += [Call(aten.zeros.default, ([2],)), Call(aten.ones.default, ([2],), {"dtype": torch.bool})]
    calls += [
        Call(aten.arange.start_step, (a, z, s))
        for a, z, s in ((0, 5, 1), (5, 0, -2), (0, 7, 3), (0.0, 1.0, 0.25), (3, 3, 1), (1, 2.5, 0.5))
    ]
    calls += [
        Call(aten.arange.start_step, (0, 5), {"dtype": torch.float32}),
        Call(
            torch.ops.prims.iota.default,
            (5,),
            {"start": 1, "step": 2, "dtype": torch.int64, "device": torch.device("cpu"), "requires_grad": False},
        ),
    ]
    return [*calls, Call(aten.eye.default, (3,)), Call(aten.eye.m, (2, 4), {"dtype": torch.int64})]


def _windows() -> list[Call]:
    x = floats(2, 3, 7, 6)
    calls = [
        Call(aten.max_pool2d_with_indices.default, (v, *p))
        for v in (x, x[0])
        for p in (([2, 2],), ([3], [2], [1]), ([3, 2], [2, 1], [1, 1], [2, 1]), ([2, 2], [2, 2], 0, 1, True))
    ]
    calls += [Call(aten.max_pool3d_with_indices.default, (floats(1, 2, 4, 5, 6), [2, 2, 2]))]
    calls += [Call(aten.adaptive_max_pool2d.default, (floats(1, 2, 4, 6), sizes)) for sizes in ([2, 3], [1, 1])]
    calls += [Call(aten.adaptive_max_pool3d.default, (floats(1, 2, 4, 2, 6), [2, 1, 3]))]
    pooled, places = aten.max_pool2d_with_indices(x, [2, 2])
    calls += [Call(aten.max_unpool2d.default, (pooled, places, [7, 6]))]
    pooled, places = aten.max_pool3d_with_indices(floats(1, 2, 4, 5, 6), [2, 2, 2])
    calls += [Call(aten.max_unpool3d.default, (pooled, places, [4, 5, 6], [2, 2, 2], [0, 0, 0]))]
    calls += [
        Call(aten.avg_pool2d.default, (x, *p))
        for p in (
            ([2, 2],),
            ([3, 3], [2, 2], [1, 1]),
            ([3, 3], [2, 2], [1, 1], True, False),
            ([3, 3], [2, 2], [1, 1], False, True, 5),
        )
    ]
    calls += [
        Call(aten.avg_pool1d.default, (x[0], [3], [2], [1])),
        Call(aten.avg_pool3d.default, (floats(1, 2, 4, 5, 6), [2, 3, 2])),
    ]
    calls += [Call(aten._adaptive_avg_pool2d.default, (x, s)) for s in ([1, 1], [7, 3], [3, 4])]
    calls += [
        Call(aten._adaptive_avg_pool3d.default, (floats(1, 2, 4, 5, 6), [2, 5, 4])),
        Call(aten.adaptive_avg_pool1d.default, (x[0], [4])),
    ]
    return calls


def _gradients() -> list[Call]:
    x, w = floats(2, 4, 7, 6), floats(6, 2, 3, 3)
    calls = []
    for stride, padding, dilation in (([2, 1], [1, 1], [1, 2]), ([1, 1], [0, 0], [1, 1]), ([3, 2], [1, 0], [1, 1])):
        out = aten.convolution(x, w, None, stride, padding, dilation, False, [0, 0], 2)
        options = (stride, padding, dilation, False, [0, 0], 2, [True, True, True])
        calls.append(Call(aten.convolution_backward.default, (floats(*out.shape), x, w, [6], *options)))
    turned = floats(4, 3, 3, 2)
    out = aten.convolution(x, turned, None, [2, 1], [1, 0], [1, 1], True, [1, 0], 2)
    options = ([2, 1], [1, 0], [1, 1], True, [1, 0], 2, [True, True, True])
    calls.append(Call(aten.convolution_backward.default, (floats(*out.shape), x, turned, [6], *options)))
    for p in (([2, 2], [2, 2], [0, 0], [1, 1], False), ([3, 2], [2, 1], [1, 1], [1, 1], False)):
        values, index = aten.max_pool2d_with_indices(x, *p)
        calls.append(Call(aten.max_pool2d_with_indices_backward.default, (floats(*values.shape), x, *p, index)))
    for q in (
        ([2, 2], [2, 2], [0, 0], False, True, None),
        ([3, 2], [2, 1], [1, 1], False, True, 5),
        ([3], [], [1], False, True, None),
    ):
        calls.append(Call(aten.avg_pool2d_backward.default, (floats(*aten.avg_pool2d(x, *q).shape), x, *q)))
    calls += [Call(aten._adaptive_avg_pool2d_backward.default, (floats(2, 4, *s), x)) for s in ((1, 1), (7, 3))]
    q, k, v, grad = (
        floats(2, 2, 5, 4),
        floats(2, 2, 6, 4, seed=1),
        floats(2, 2, 6, 4, seed=2),
        floats(2, 2, 5, 4, seed=3),
    )
    hidden = floats(2, 1, 5, 6, seed=4)
    hidden[0, 0, 1] = -float("inf")
    for causal, options in ((False, {}), (True, {"scale": 0.3}), (False, {"attn_mask": hidden})):
        out, log_sum = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, **options)
        calls.append(Call(aten._scaled_dot_product_flash_attention_for_cpu.default, (q, k, v, 0.0, causal), options))
        arguments = (grad, q, k, v, out, log_sum, 0.0, causal)
        calls.append(Call(aten._scaled_dot_product_flash_attention_for_cpu_backward.default, arguments, options))
    return [*calls, Call(aten._cdist_forward.default, (floats(2, 3, 4), floats(2, 5, 4), 2.0, None))]


def all_calls() -> list[Call]:
    """Every sample call."""
    families = (_unary, _binary, _reductions, _products, _views, _indexing, _norms, _creation, _windows, _gradients)
    return [call for family in families for call in family()]

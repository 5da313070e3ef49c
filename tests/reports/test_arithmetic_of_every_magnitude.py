"""Arithmetic across overflow, underflow and rounding gives what eager gives: nothing is moved, merged or cancelled.

Every expression is computed on numbers of every magnitude and compared with eager element by element: NaN, infinities
and zeros in the same places, everything else within a few units in the last place. Not with float64, in which a
rounding by a magic number rounds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import effcc

Expression = Callable[..., Tensor]

X = torch.tensor([
    0.0, -0.0, 1e-45, -1e-42, 1e-38, -3e-30, 1e-25, 1e-20, -1e-10, 0.3, 0.5, -0.7, 1.0, 1.5, -2.5, 2.5, 3.5, -7.4,
    40.0, -60.0, 1e4, 1.6777217e7, -1e10, 1e15, -1e20, 1e25, 1e30, -1e37, 1e38, 3e38, -3e38, 3.4e38, math.inf,
    -math.inf, math.nan,
])  # fmt: skip
Y = torch.roll(X, 7)

MAGIC = 12582912.0  # 1.5 * 2^23: adding it to a float32 and taking it away again rounds to an integer

POINTWISE: Mapping[str, Expression] = {
    "round_by_magic": lambda x, y: (x + MAGIC) + -MAGIC,
    "round_by_magic_subtracted": lambda x, y: (x + MAGIC) - MAGIC,
    "round_by_magic_first": lambda x, y: (MAGIC + x) - MAGIC,
    "round_by_magic_downward": lambda x, y: (x - MAGIC) + MAGIC,
    "absorbed": lambda x, y: (x + 1e8) + -1e8,
    "absorbed_in_parts": lambda x, y: ((x + 1e8) + 1.0) - 1e8,
    "absorbed_of_a_tensor": lambda x, y: (x + y) - y,
    "absorbed_of_two_tensors": lambda x, y: (x - y) + (y - x),
    "added_twice": lambda x, y: (x + 3e38) + 3e38,
    "added_and_taken_of_the_largest": lambda x, y: (x + 3e38) - 3e38,
    "overflows_and_comes_back": lambda x, y: (x * 1e30) * 1e-30,
    "overflows_twice": lambda x, y: (x * 1e30) * 1e30,
    "underflows_and_comes_back": lambda x, y: (x * 1e-30) * 1e30,
    "underflows_twice": lambda x, y: (x * 1e-25) * 1e-25,
    "loses_bits_as_a_denormal": lambda x, y: (x * 1e-20 * 1e-20) * 1e20,
    "multiplied_and_divided": lambda x, y: (x * 1e30) / 1e30,
    "divided_and_multiplied": lambda x, y: (x / 1e30) * 1e30,
    "divided_twice": lambda x, y: (x / 1e20) / 1e20,
    "divided_by_a_denormal": lambda x, y: x / 1e-40,
    "divided_by_three": lambda x, y: x / 3.0,
    "divided_by_a_power_of_two": lambda x, y: x / 2.0**127,
    "divided_by_the_least_power_of_two": lambda x, y: x / 2.0**-149,
    "reciprocal_twice": lambda x, y: 1 / (1 / x),
    "reciprocal_of_product": lambda x, y: 1 / (x * y),
    "product_of_reciprocals": lambda x, y: (1 / x) * (1 / y),
    "quotient_of_quotients": lambda x, y: (x / y) / (y / x),
    "quotient_times_divisor": lambda x, y: (x / y) * y,
    "minus_itself": lambda x, y: x - x,
    "over_itself": lambda x, y: x / x,
    "times_zero": lambda x, y: x * 0,
    "plus_zero": lambda x, y: 1 / (x + 0.0),
    "minus_zero": lambda x, y: 1 / (x - 0.0),
    "plus_minus_zero": lambda x, y: 1 / (x + -0.0),
    "zero_minus": lambda x, y: 1 / (0.0 - x),
    "negated_twice": lambda x, y: 1 / torch.neg(torch.neg(x)),
    "times_minus_one": lambda x, y: 1 / (x * -1),
    "doubled": lambda x, y: x * 2 + x * 2,
    "factored": lambda x, y: x * y + x * 3.0,
    "factored_out": lambda x, y: x * (y + 3.0),
    "difference_of_squares": lambda x, y: x * x - y * y,
    "square_of_difference": lambda x, y: (x - y) ** 2,
    "sum_of_three": lambda x, y: (x + y) + x,
    "sum_of_three_otherwise": lambda x, y: x + (y + x),
    "product_of_three": lambda x, y: (x * y) * y,
    "product_of_three_otherwise": lambda x, y: x * (y * y),
    "multiplied_and_added": lambda x, y: x * y + 1.0,
    "multiplied_and_subtracted": lambda x, y: x * x - x * x,
    "error_of_a_sum": lambda x, y: x - ((x + y) - y),
    "split_in_two": lambda x, y: (x * 4097.0) - ((x * 4097.0) - x),
    "exp_log": lambda x, y: torch.exp(torch.log(x)),
    "log_exp": lambda x, y: torch.log(torch.exp(x)),
    "log_of_product": lambda x, y: torch.log(x * x),
    "log_times_two": lambda x, y: torch.log(x.abs()) * 2,
    "product_of_exponentials": lambda x, y: torch.exp(x) * torch.exp(-x),
    "exp_of_sum": lambda x, y: torch.exp(x + -x),
    "square_of_root": lambda x, y: torch.sqrt(x) * torch.sqrt(x),
    "root_of_square": lambda x, y: torch.sqrt(x * x),
    "root_of_sum_of_squares": lambda x, y: torch.sqrt(x * x + y * y),
    "rsqrt": lambda x, y: torch.rsqrt(x),
    "one_over_root": lambda x, y: 1 / torch.sqrt(x),
    "over_root": lambda x, y: x / torch.sqrt(y.abs()),
    "over_root_of_square": lambda x, y: x / torch.sqrt(x * x),
    "times_rsqrt_of_square": lambda x, y: x * torch.rsqrt(x * x),
    "power_two": lambda x, y: x**2,
    "power_three": lambda x, y: x**3,
    "power_half": lambda x, y: x**0.5,
    "power_minus_half": lambda x, y: x**-0.5,
    "power_minus_one": lambda x, y: x**-1,
    "power_minus_two": lambda x, y: x**-2,
    "power_two_as_a_tensor": lambda x, y: torch.pow(x, torch.tensor(2.0)),
    "power_zero": lambda x, y: x**0,
    "power_one": lambda x, y: x**1,
    "square": lambda x, y: torch.square(x),
    "cube_by_hand": lambda x, y: x * x * x,
    "maximum": lambda x, y: torch.maximum(x, y),
    "minimum": lambda x, y: torch.minimum(x, y),
    "clamp": lambda x, y: x.clamp(-1.0, 1.0),
    "clamp_with_crossed_bounds": lambda x, y: x.clamp(1.0, -1.0),
    "two_lower_bounds": lambda x, y: x.clamp_min(-2.0).clamp_min(1e-30),
    "two_upper_bounds": lambda x, y: x.clamp_max(1e30).clamp_max(2.0),
    "relu": lambda x, y: torch.relu(x),
    "relu6": lambda x, y: F.relu6(x),
    "less": lambda x, y: x < y,
    "not_less": lambda x, y: ~(x < y),
    "not_less_or_equal": lambda x, y: ~(x <= y),
    "less_or_equal_is_not_greater": lambda x, y: (x <= y) ^ ~(x > y),
    "equal_to_itself": lambda x, y: x == x,
    "not_equal_to_itself": lambda x, y: x != x,
    "less_after_scaling": lambda x, y: (x * 1e-30) < (y * 1e-30),
    "less_by_difference": lambda x, y: (x - y) < 0,
    "where_of_nan": lambda x, y: torch.where(x != x, y, x),
    "where_of_comparison": lambda x, y: torch.where(x < y, x, y),
    "where_unread_side": lambda x, y: torch.where(x > 0, torch.log(x), y),
    "masked_to_zero": lambda x, y: x * (y > 0),
    "masked_fill": lambda x, y: x.masked_fill(y > 0, -math.inf),
    "abs": lambda x, y: 1 / x.abs(),
    "abs_of_negated": lambda x, y: (-x).abs(),
    "abs_of_product": lambda x, y: (x * y).abs(),
    "sign": lambda x, y: torch.sign(x),
    "sign_times_abs": lambda x, y: torch.sign(x) * x.abs(),
    "copysign": lambda x, y: torch.copysign(x, y),
    "floor": lambda x, y: torch.floor(x / 3.0) * 3.0,
    "rounded": lambda x, y: torch.round(x * 10.0) / 10.0,
    "truncated": lambda x, y: torch.trunc(x) + torch.frac(x),
    "floor_divided": lambda x, y: torch.floor_divide(x, 3.0),
    "remainder": lambda x, y: torch.remainder(x, 3.0),
    "fmod": lambda x, y: torch.fmod(x, 3.0),
    "to_f16_and_back": lambda x, y: x.half().float(),
    "to_bf16_and_back": lambda x, y: x.bfloat16().float(),
    "to_bf16_through_f16": lambda x, y: x.half().bfloat16().float(),
    "to_f64_and_back": lambda x, y: x.double().float(),
    "computed_in_f64": lambda x, y: (x.double() * y.double()).float(),
    "rounded_to_f32_between": lambda x, y: ((x.double() * 3.0).float().double() / 3.0).float(),
    "scaled_in_f64": lambda x, y: ((x.double() * 1e30) * 1e-30).float(),
    "round_by_magic_in_f64": lambda x, y: (x.double() + 6755399441055744.0) - 6755399441055744.0,
    "overflows_in_f64": lambda x, y: (x.double() * 1e300) * 1e-300,
    "expm1": lambda x, y: torch.expm1(x),
    "exp_minus_one": lambda x, y: torch.exp(x) - 1,
    "log1p": lambda x, y: torch.log1p(x),
    "log_of_one_plus": lambda x, y: torch.log(1 + x),
    "softplus": lambda x, y: F.softplus(x),
    "softplus_by_hand": lambda x, y: torch.log(1 + torch.exp(x)),
    "log_sigmoid": lambda x, y: F.logsigmoid(x),
    "sigmoid_by_hand": lambda x, y: 1 / (1 + torch.exp(-x)),
    "silu_by_hand": lambda x, y: x / (1 + torch.exp(-x)),
    "tanh": lambda x, y: torch.tanh(x),
    "tanh_by_hand": lambda x, y: (torch.exp(x) - torch.exp(-x)) / (torch.exp(x) + torch.exp(-x)),
    "gelu_by_hand": lambda x, y: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))),
    "gelu_tanh_by_hand": lambda x, y: 0.5 * x * (1 + torch.tanh(0.7978845608028654 * (x + 0.044715 * x**3))),
    "elu": lambda x, y: F.elu(x),
    "selu": lambda x, y: F.selu(x),
    "celu": lambda x, y: F.celu(x, 0.3),
    "leaky_relu": lambda x, y: F.leaky_relu(x),
    "hardswish": lambda x, y: F.hardswish(x),
    "hardsigmoid": lambda x, y: F.hardsigmoid(x),
    "softsign": lambda x, y: F.softsign(x),
    "tanhshrink": lambda x, y: F.tanhshrink(x),
    "lerp": lambda x, y: torch.lerp(x, y, 0.3),
    "lerp_beyond_the_middle": lambda x, y: torch.lerp(x, y, 0.7),
    "lerp_to_the_end": lambda x, y: torch.lerp(x, y, 1.0),
    "lerp_by_a_tensor": lambda x, y: torch.lerp(x, y, torch.sigmoid(x.clamp(-9, 9))),
    "addcmul": lambda x, y: torch.addcmul(x, x, y, value=1e20),
    "addcmul_small": lambda x, y: torch.addcmul(x, x, y, value=3e-20),
    "added_with_a_factor": lambda x, y: torch.add(x, y.clamp(-1e8, 1e8), alpha=1e30) * 1e-30,
    "subtracted_with_a_factor": lambda x, y: torch.sub(x, y, alpha=1e-30) * 1e30,
    "logaddexp": lambda x, y: torch.logaddexp(x, y),
    "xlogy": lambda x, y: torch.xlogy(x, y),
    "deg2rad": lambda x, y: torch.deg2rad(x),
    "nan_to_num": lambda x, y: torch.nan_to_num(x),
    "nan_to_num_after_scaling": lambda x, y: torch.nan_to_num(x * 1e30) * 1e-30,
    "smooth_l1": lambda x, y: F.smooth_l1_loss(x, y, reduction="none"),
    "huber": lambda x, y: F.huber_loss(x, y, reduction="none", delta=0.5),
    "squared_error": lambda x, y: F.mse_loss(x, y, reduction="none"),
    "fake_quantized": lambda x, y: torch.clamp(torch.round(x * (1 / 0.013)) + 3.0, 0, 255) * 0.013,
    "quantized_by_magic": lambda x, y: ((x / 0.013 + MAGIC) - MAGIC) * 0.013,
    "integers": lambda x, y: (torch.nan_to_num(x).clamp(-9e4, 9e4).to(torch.int32) * 65536) * 65536,
    "integers_shifted": lambda x, y: (torch.nan_to_num(x).clamp(-9e4, 9e4).long() + 2**62) + 2**62,
    "integers_divided": lambda x, y: (torch.nan_to_num(x).clamp(-9e4, 9e4).int() * 3) // 3,
    "integers_as_floats": lambda x, y: (torch.nan_to_num(x).clamp(-9e4, 9e4).long() + 2**53).float() - 2.0**53,
    "bytes": lambda x, y: (torch.nan_to_num(x).clamp(0, 255).to(torch.uint8) + 200) - 200,
}  # fmt: skip

# Dynamo itself divides and multiplies these in another order, whatever the backend is.
EXPORTED: Mapping[str, Expression] = {
    "addcdiv": lambda x, y: torch.addcdiv(x, x, y, value=3e20),
    "addcdiv_small": lambda x, y: torch.addcdiv(x, x, y, value=3e-20),
}

# Sums of products: as near to eager as other orders of summation allow.
G = torch.Generator().manual_seed(0)
A, B = torch.randn(6, 16, generator=G), torch.randn(16, 8, generator=G)
W, V = torch.randn(8, 16, generator=G), torch.randn(8, generator=G)
FILTERS = torch.randn(4, 3, 3, 3, generator=G)
IMAGE = torch.randn(2, 3, 6, 6, generator=G)

SUMS: Mapping[str, Expression] = {
    "factor_before_a_product": lambda a, b, w, v: (a * 1e-20) @ (b * 1e25) * 1e-3,
    "small_factor_before_a_product": lambda a, b, w, v: (a * 1e-30) @ (b * 1e30),
    "denormal_before_a_product": lambda a, b, w, v: ((a * 1e-42) @ b) * 1e38,
    "factor_on_the_right": lambda a, b, w, v: (a * 1e30) @ (b * 1e-30),
    "large_factor_behind_a_product": lambda a, b, w, v: ((a * 1e-30) @ b) * 1e35,
    "factor_behind_linear": lambda a, b, w, v: F.linear(a * 1e-15, w * 1e30) * 1e15,
    "small_weights": lambda a, b, w, v: F.linear(a * 1e30, w * 1e-25) * 1e-20,
    "small_factor_behind_linear": lambda a, b, w, v: F.linear(a * 1e30, w * 1e-25, v) * 1e-20,
    "rows_scaled": lambda a, b, w, v: F.linear(a * 1e-20, w * 1e20) * (v * 1e30),
    "rows_scaled_with_bias": lambda a, b, w, v: F.linear(a * 1e30, w * 1e-25, v * 1e3) * (v * 1e-20),
    "product_rounded_by_magic": lambda a, b, w, v: (F.linear(a, w) + MAGIC) - MAGIC,
    "product_with_a_magic_bias": lambda a, b, w, v: F.linear(a, w, torch.full((8,), MAGIC)) - MAGIC,
    "product_and_a_magic_vector": lambda a, b, w, v: (F.linear(a, w) + torch.full((8,), MAGIC)) - MAGIC,
    "weights_rounded_by_magic": lambda a, b, w, v: F.linear(a, (w / 0.1 + MAGIC) - MAGIC),
    "weights_overflow": lambda a, b, w, v: F.linear(a, ((w * 3e38) * 3e38) * 0.0 + w),
    "weights_through_half": lambda a, b, w, v: F.linear(a, (w * 1e-6).half().float() * 1e6),
    "two_products": lambda a, b, w, v: F.linear(F.linear(a * 1e20, w * 1e-30), (b * 1e25)),
    "three_products": lambda a, b, w, v: ((a * 1e25) @ (b * 1e-35)) @ (w * 1e30),
    "sum_of_products": lambda a, b, w, v: (a @ b) * 1e38 + (a @ b) * -1e38,
    "scores": lambda a, b, w, v: torch.softmax((a * 1e20) @ b / 1e20, -1),
    "attention": lambda a, b, w, v: torch.softmax((a @ b) * 0.25 - 1e4, -1) @ (w * 1e30),
    "masked_attention": lambda a, b, w, v: torch.softmax((a @ b).masked_fill(a[:, :8] > 0, -math.inf), -1) @ w,
    "softmax_of_large": lambda a, b, w, v: torch.softmax(a * 1e38, -1),
    "log_softmax_of_large": lambda a, b, w, v: torch.log_softmax(a * 1e30, -1),
    "log_sum_exp": lambda a, b, w, v: torch.logsumexp(a * 1e3, -1),
    "log_sum_exp_by_hand": lambda a, b, w, v: torch.log(torch.exp(a * 60).sum(-1)),
    "mean_of_large": lambda a, b, w, v: (a.abs() * 1e38).mean(-1),
    "mean_of_means": lambda a, b, w, v: (a.abs() * 2e37).view(6, 4, 4).mean(-1).mean(-1),
    "sum_over_count": lambda a, b, w, v: (a.abs() * 1e38).sum(-1) / 16,
    "sum_of_scaled": lambda a, b, w, v: (a * 1e-30).sum(-1) * 1e30,
    "sum_of_sums": lambda a, b, w, v: (a * 1e37).sum(-1).sum(-1),
    "mean_of_copies": lambda a, b, w, v: (v[:4] * 3e38 * 1e-1).expand(64, 4).mean(0),
    "sum_of_copies": lambda a, b, w, v: (v * 1e37).expand(64, 8).sum(0),
    "variance_of_large": lambda a, b, w, v: (a * 1e15 + 1e18).var(-1),
    "variance_overflows": lambda a, b, w, v: (a * 1e25).var(-1),
    "deviation_of_large": lambda a, b, w, v: (a * 1e25).std(-1),
    "deviation_of_small": lambda a, b, w, v: (a * 1e-25).std(-1, correction=0),
    "normalized_by_deviation": lambda a, b, w, v: (a - a.mean(-1, True)) * 1e22 / (a * 1e22).std(-1, keepdim=True),
    "norm_of_large": lambda a, b, w, v: torch.linalg.vector_norm(a * 1e25, dim=-1),
    "norm_of_small": lambda a, b, w, v: torch.linalg.vector_norm(a * 1e-25, dim=-1),
    "normalized_of_large": lambda a, b, w, v: F.normalize(a * 1e25, dim=-1),
    "normalized_of_small": lambda a, b, w, v: F.normalize(a * 1e-30, dim=-1),
    "layer_norm_of_large": lambda a, b, w, v: F.layer_norm(a * 1e15, (16,), a[0], a[1]),
    "layer_norm_of_small": lambda a, b, w, v: F.layer_norm(a * 1e-15, (16,), a[0], a[1]),
    "layer_norm_by_hand": lambda a, b, w, v: (
        (a * 1e25 - (a * 1e25).mean(-1, True)) * torch.rsqrt((a * 1e25).var(-1, keepdim=True, correction=0) + 1e-5)
    ),
    "rms_norm_by_hand": lambda a, b, w, v: (
        a * 1e25 * torch.rsqrt((a * 1e25).pow(2).mean(-1, True) + 1e-6) * a[0] + a[1]
    ),
    "cosine": lambda a, b, w, v: F.cosine_similarity(a * 1e15, a.flip(0) * 1e-15),
    "product_of_elements": lambda a, b, w, v: (a.abs() * 1e10).prod(-1),
    "running_sum": lambda a, b, w, v: (a + 1e8).cumsum(-1) - 1e8,
    "addmm": lambda a, b, w, v: torch.addmm(v * 1e30, a * 1e-10, b, beta=1e-30, alpha=1e10),
    "baddbmm": lambda a, b, w, v: torch.baddbmm(a[None, :, :8] * 1e30, a[None], b[None], beta=1e-30, alpha=1e-3),
    "einsum_scaled": lambda a, b, w, v: torch.einsum("ik,kj->ij", a * 1e-30, b * 1e30) * 1e30,
    "distances": lambda a, b, w, v: torch.cdist(a * 1e10, b.T * 1e10),
}  # fmt: skip


class BatchNorms(nn.Module):
    """A batch norm whose scale, put into the filters, would overflow or leave denormals; one whose shift is large."""

    def __init__(self, filters: float, deviation: float, mean: float) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, bias=mean > 0)
        self.norm = nn.BatchNorm2d(4)
        with torch.no_grad():
            self.convolution.weight.copy_(FILTERS * filters)
            self.norm.running_var.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]) * deviation**2)
            self.norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]) * mean)
            self.norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5, 1e-3]))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.convolution(x))


def units_apart(got: Tensor, expected: Tensor) -> Tensor:
    """How many units in the last place of `expected` two floats are apart, element by element."""
    wide = expected.double().abs()
    info = torch.finfo(expected.dtype)
    unit = 2.0 ** torch.floor(torch.log2(wide.clamp_min(info.tiny))) * info.eps
    return (got.double() - expected.double()).abs() / unit


def assert_alike(name: str, got: Tensor, expected: Tensor, bound: Any) -> None:
    assert got.dtype == expected.dtype and got.shape == expected.shape, name
    if not expected.dtype.is_floating_point:
        assert torch.equal(got, expected), f"{name}: {got} for {expected}"
        return
    finite = expected.isfinite()
    same = torch.where(finite, got.isfinite(), (got == expected) | (got.isnan() & expected.isnan()))
    assert same.all(), f"{name}: {got[~same]} where eager has {expected[~same]}"
    far = bound(torch.where(finite, got, 0), torch.where(finite, expected, 0))
    assert not far.any(), f"{name}: {got[far]} for {expected[far]}"


class Expressions(nn.Module):
    """Some of the expressions, as one program with many results; tensors of weights are its parameters."""

    def __init__(self, expressions: Mapping[str, Expression], *weights: Tensor) -> None:
        super().__init__()
        self.expressions = list(expressions.values())
        self.weights = nn.ParameterList([nn.Parameter(w) for w in weights])

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(e(*inputs, *self.weights) for e in self.expressions)


def few_units(got: Tensor, expected: Tensor) -> Tensor:
    return units_apart(got, expected) > 8


def few_roundings_of_the_largest(got: Tensor, expected: Tensor) -> Tensor:
    return (got.double() - expected.double()).abs() > 64 * 1.2e-7 * expected.double().abs().max() + 1e-43


def through_compile(module: nn.Module, inputs: tuple[Tensor, ...], path: Any) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return torch.compile(module, backend="effcc")(*inputs)


def through_package(module: nn.Module, inputs: tuple[Tensor, ...], path: Any) -> tuple[Tensor, ...]:
    effcc.export(module, inputs, path / "model.effcc")
    return effcc.load(path / "model.effcc")(*inputs)


WAYS = {"compiled": through_compile, "packaged": through_package}


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def way(request):
    torch.compiler.reset()
    return request.param


EXACT: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_by_hand": lambda x: 0.5 * x * torch.special.erfc(-x / math.sqrt(2.0)),
    "gelu_tanh_by_hand": lambda x: x * torch.sigmoid(2 * 0.7978845608028654 * (x + 0.044715 * x**3)),
}
"""Where eager's own sum loses nearly all bits: what it stands for, without the sum."""


def nearer_than_eager(name: str, got: Tensor, expected: Tensor, x: Tensor) -> Tensor:
    """What was computed, with eager's elements in place of those that are nearer to the exact ones than eager's."""
    exact = EXACT[name](x.double())
    nearer = (got.double() - exact).abs() <= (expected.double() - exact).abs()
    return torch.where(nearer, expected, got)


def compare(module: Expressions, names: Any, inputs: tuple[Tensor, ...], way: Any, path: Any, bound: Any) -> None:
    with torch.no_grad():
        expected = module(*inputs)
    found = way(module, inputs, path)
    wrong = []
    for name, got, wanted in zip(names, found, expected, strict=True):
        got = torch.as_tensor(got)
        if name in EXACT:
            got = nearer_than_eager(name, got, wanted, inputs[0])
        try:
            assert_alike(name, got, wanted, bound)
        except AssertionError as error:
            wrong.append(str(error))
    assert not wrong, "\n".join(wrong)


def test_pointwise_expressions_are_computed_as_they_are_written(way, tmp_path):
    compare(Expressions(POINTWISE), POINTWISE, (X, Y), way, tmp_path, few_units)


def test_exported_expressions_are_computed_as_they_are_written(tmp_path):
    compare(Expressions(EXPORTED), EXPORTED, (X, Y), through_package, tmp_path, few_units)


def test_factors_and_summands_stay_on_their_side_of_sums(way, tmp_path):
    compare(Expressions(SUMS), SUMS, (A, B, W, V), way, tmp_path, few_roundings_of_the_largest)


def test_factors_and_summands_stay_out_of_weights(way, tmp_path):
    compare(Expressions(SUMS, B, W, V), SUMS, (A,), way, tmp_path, few_roundings_of_the_largest)


@pytest.mark.parametrize("sizes", [(1e-25, 1e-22, 0.0), (1e25, 1e22, 0.0), (1e-30, 1e12, 0.0), (1.0, 1e-3, 1e6)])
def test_a_batch_norm_leaves_the_filters_alone(sizes, way, tmp_path):
    module = BatchNorms(*sizes).eval()
    with torch.no_grad():
        expected = module(IMAGE)
    found = torch.as_tensor(way(module, (IMAGE,), tmp_path))
    assert_alike("batch norm", found, expected, few_roundings_of_the_largest)


SPREADS: Mapping[str, Callable[[Tensor], Any]] = {
    "var of rows": lambda x: x.var(-1),
    "var of columns": lambda x: x.var(0, correction=0),
    "var of all": lambda x: x.var(),
    "var_mean": lambda x: torch.var_mean(x, -1),
    "std": lambda x: x.std(-1),
    "std_mean": lambda x: torch.std_mean(x, 0),
    "written out": lambda x: (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-5).sqrt(),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_spread_is_finite_where_eagers_is(dtype: torch.dtype) -> None:
    """Of deviations between 1e18 and 1e19, the sum of squares leaves f32, and the variance does not."""
    normal = torch.randn(5, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for name, function in SPREADS.items():
        torch._dynamo.reset()
        compiled = torch.compile(function, backend="effcc", dynamic=False)
        for magnitude in (1e-30, 1e-18, 1.0, 2e17, 2e18, 8e18, 3e19, 1e25):
            x = (normal * magnitude).to(dtype)
            expected, got = function(x), compiled(x)
            for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (expected, got)), strict=True):
                largest = float(a[a.isfinite()].abs().max()) if a.isfinite().any() else 0.0
                close = {"rtol": 2 * torch.finfo(dtype).eps * 16, "atol": 1e-6 * largest + 1e-42}
                torch.testing.assert_close(b, a, **close, msg=lambda said, at=(name, magnitude): f"{at}: {said}")

"""Operators taken apart as eager computes them in half types: an element's loss is rounded before the mean is taken.

PyTorch's own decompositions compute all of a loss in float32; where an element's loss leaves float16, eager's mean is
infinite and theirs is not. The norms of weights are the other way round: eager keeps them in float32.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from effcc.frontend.requirements import in_unit_interval

aten = torch.ops.aten

_NONE, _MEAN = 0, 1


def _reduced(loss: Tensor, reduction: int) -> Tensor:
    return loss if reduction == _NONE else loss.mean() if reduction == _MEAN else loss.sum()


def _rounded_first(overload: Any) -> Callable[..., Tensor]:
    """The decomposition of a loss by that of its elements."""
    names = [a.name for a in overload._schema.arguments]
    position = names.index("reduction")
    elements = decomposition_table[overload]

    @functools.wraps(elements)
    def loss(*args: Any, reduction: int = _MEAN, **kwargs: Any) -> Tensor:
        if len(args) > position:
            before, (reduction, *after) = args[:position], args[position:]
            kwargs = {**kwargs, **dict(zip(names[position + 1 :], after, strict=False))}
        else:
            before = args
        return _reduced(elements(*before, reduction=_NONE, **kwargs), reduction)

    return loss


_CELU = decomposition_table[aten.celu.default]
_LOGIT = decomposition_table[aten.logit.default]
_SELECT_SCATTER = decomposition_table[aten.select_scatter.default]
_CROSS_ENTROPY = _rounded_first(aten.binary_cross_entropy.default)
_SMOOTH_L1 = _rounded_first(aten.smooth_l1_loss.default)


def smooth_l1_loss(x: Tensor, target: Tensor, reduction: int = _MEAN, beta: float = 1.0) -> Any:
    """The loss; below 0, beta is left to eager, which refuses it."""
    return NotImplemented if beta < 0 else _SMOOTH_L1(x, target, reduction, beta)


def celu(x: Tensor, alpha: Any = 1.0) -> Any:
    """alpha * expm1(x / alpha) below 0; an alpha of 0 is left to eager, which refuses it."""
    return NotImplemented if alpha == 0 else _CELU(x, alpha)


def mse_loss_backward(grad: Tensor, x: Tensor, target: Tensor, reduction: int) -> Tensor:
    """2 * (x - target) * grad, over the number of elements for a mean; every step is rounded, as is the factor."""
    factor = 2.0 / x.numel() if reduction == _MEAN else 2.0
    return (x - target) * torch.scalar_tensor(factor, dtype=x.dtype) * grad


def binary_cross_entropy(x: Tensor, target: Tensor, weight: Tensor | None = None, reduction: int = _MEAN) -> Tensor:
    """The cross entropy of probabilities, which must be such."""
    x, target = in_unit_interval(x, "input"), in_unit_interval(target, "target")
    return _CROSS_ENTROPY(x, target, weight, reduction)


def soft_margin_loss(x: Tensor, target: Tensor, reduction: int = _MEAN) -> Tensor:
    """log(1 + exp(-target * x)), every step of which eager rounds."""
    return _reduced((-target * x).exp().log1p(), reduction)


def soft_margin_loss_backward(grad: Tensor, x: Tensor, target: Tensor, reduction: int) -> Tensor:
    """-target * z / (1 + z) * grad with z = exp(-target * x), over the number of elements for a mean.

    PyTorch's decomposition takes 1 from a sigmoid, of which nothing is left where that is near 1.
    """
    power = (-target * x).exp()
    factor = 1.0 / x.numel() if reduction == _MEAN else 1.0
    return -target * power / (power + 1.0) * factor * grad


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    """g * v / norm(v), and the norm, over all axes but one, which eager keeps in float32."""
    wide = torch.promote_types(v.dtype, torch.float32)
    others = [axis for axis in range(v.dim()) if axis != dim % v.dim()]
    norm = torch.linalg.vector_norm(v.to(wide), dim=others, keepdim=True)
    return (v.to(wide) * (g.to(wide) / norm)).to(v.dtype), norm


def _product_with_logarithm(overload: Any) -> Callable[..., Tensor]:
    """x * log(y), and 0 where x is 0: of half types, eager rounds the logarithm too."""
    decomposed = decomposition_table[overload]

    @functools.wraps(decomposed)
    def xlogy(x: Any, y: Any) -> Tensor:
        dtype = torch.result_type(x, y)
        if dtype not in (torch.float16, torch.bfloat16):
            return decomposed(x, y)
        x, y = (t.to(dtype) if isinstance(t, Tensor) else torch.scalar_tensor(t, dtype=dtype) for t in (x, y))
        found = torch.where(x == 0, torch.zeros_like(x), x * y.log())
        return torch.where(y.isnan(), y, found)

    return xlogy


def pow_of_truths(x: Tensor, exponent: Any) -> Any:
    """A bool to the power of one is a bool; capture takes it for an integer."""
    if x.dtype != torch.bool or not isinstance(exponent, bool):
        return NotImplemented
    return x.clone() if exponent else torch.ones_like(x)


def logit(x: Tensor, eps: float | None = None) -> Tensor:
    """log(x / (1 - x)); a bound outside of the dtype is left to eager, which refuses it."""
    if eps is not None and x.dtype.is_floating_point and abs(eps) > torch.finfo(x.dtype).max:
        return NotImplemented
    decomposed: Tensor = _LOGIT(x, eps)
    return decomposed


def select_scatter(x: Tensor, source: Tensor, dim: int, index: Any) -> Tensor:
    """`x` with `source` at one place of an axis, which may depend on data: then its sign is not known either."""
    if not free_unbacked_symbols(index):
        decomposed: Tensor = _SELECT_SCATTER(x, source, dim, index)
        return decomposed
    dim = dim % x.dim()
    count = x.shape[dim]
    places = torch.arange(count).view([-1 if axis == dim else 1 for axis in range(x.dim())])
    return torch.where((places == index) | (places == index + count), source.unsqueeze(dim), x)


def _with_wide_statistics(overload: Any) -> Callable[..., Any]:
    """Batch norm of a half tensor beside float32 parameters, whose statistics eager keeps in float32.

    Capture takes them for halves, and gradients would be computed of what is rounded.
    """

    def batch_norm(x: Tensor, *others: Any) -> Any:
        given = next((p for p in others if isinstance(p, Tensor)), None)
        if x.dtype not in (torch.float16, torch.bfloat16) or given is None or given.dtype == x.dtype:
            return NotImplemented
        result, *statistics = overload(x.to(given.dtype), *others)
        return (result.to(x.dtype), *statistics)

    return batch_norm


def _without_nan(choose: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The larger or smaller of two, and the other where one is NaN."""

    def extreme(x: Tensor, y: Tensor) -> Tensor:
        dtype = torch.result_type(x, y)
        x, y = x.to(dtype), y.to(dtype)
        if not dtype.is_floating_point:
            return choose(x, y)
        return torch.where(x.isnan(), y, torch.where(y.isnan(), x, choose(x, y)))

    return extreme


def angle(x: Tensor) -> Any:
    """Of real numbers: pi below 0, 0 elsewhere, and NaN where x is."""
    if x.is_complex():
        return NotImplemented
    numbers = x if x.dtype.is_floating_point else x.to(torch.get_default_dtype())
    turned = torch.where(numbers < 0, math.pi, torch.zeros_like(numbers)).to(numbers.dtype)
    return torch.where(numbers.isnan(), numbers, turned)


def signbit(x: Tensor) -> Any:
    """Whether numbers are below 0; -0 is, and a NaN by its sign."""
    if x.is_complex():
        return NotImplemented
    return torch.copysign(torch.ones_like(x), x) < 0 if x.dtype.is_floating_point else x < 0


def round_decimals(x: Tensor, *, decimals: int) -> Any:
    """round(x 10^d) / 10^d, or round(x / 10^-d) 10^-d, each step rounded; half types and a power that x's dtype lacks
    are left to eager."""
    power = 10 ** abs(decimals)
    if x.dtype not in (torch.float32, torch.float64) or power > torch.finfo(x.dtype).max:
        return NotImplemented
    factor = torch.scalar_tensor(float(power), dtype=x.dtype)
    return (x * factor).round() / factor if decimals >= 0 else (x / factor).round() * factor


def dist(x: Tensor, y: Tensor, p: float = 2) -> Any:
    """The norm of a difference, which eager rounds before it."""
    dtype = torch.result_type(x, y)
    return (x - y).norm(p) if dtype.is_floating_point else NotImplemented


def composites() -> dict[Any, Callable[..., Any]]:
    """Overload -> how it is written."""
    losses = (
        aten.mse_loss.default,
        aten.huber_loss.default,
    )
    batch_norms = (aten._native_batch_norm_legit.no_stats, aten._native_batch_norm_legit_functional.default)
    logarithms = (aten.xlogy.Tensor, aten.xlogy.Scalar_Self, aten.xlogy.Scalar_Other)
    return {
        **{overload: _rounded_first(overload) for overload in losses},
        **{overload: _product_with_logarithm(overload) for overload in logarithms},
        **{overload: _with_wide_statistics(overload) for overload in batch_norms},
        aten.angle.default: angle,
        aten.celu.default: celu,
        aten.dist.default: dist,
        aten.fmax.default: _without_nan(torch.maximum),
        aten.fmin.default: _without_nan(torch.minimum),
        aten.logit.default: logit,
        aten.round.decimals: round_decimals,
        aten.signbit.default: signbit,
        aten.select_scatter.default: select_scatter,
        aten.pow.Tensor_Scalar: pow_of_truths,
        aten.binary_cross_entropy.default: binary_cross_entropy,
        aten.mse_loss_backward.default: mse_loss_backward,
        aten.smooth_l1_loss.default: smooth_l1_loss,
        aten.soft_margin_loss.default: soft_margin_loss,
        aten.soft_margin_loss_backward.default: soft_margin_loss_backward,
        aten._weight_norm_interface.default: weight_norm,
    }

"""What operations do with channels: which they tie, which constants they pass on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effcc.compression.channels import ChannelFlow, Channels, Places, Read, Rule

NONE = float("nan")


def _where(known: Tensor, value: Tensor) -> Tensor:
    return torch.where(known, value, NONE)


def _unknown(count: int, like: Tensor) -> Tensor:
    return torch.full((count,), NONE, dtype=like.dtype, device=like.device)


# Products


def _linear(
    flow: ChannelFlow, output: Tensor, _: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Channels | None:
    return _product(flow, output, input, weight, bias, input.ndim - 1, padded=False)


def _convolution(
    flow: ChannelFlow,
    output: Tensor,
    _: Any,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Channels | None:
    padded = padding != "valid" if isinstance(padding, str) else np.any(padding)
    axis = input.ndim - weight.ndim + 1
    if groups == 1:
        return _product(flow, output, input, weight, bias, axis, bool(padded))
    if weight.shape[1] != 1:
        return None
    return _each(flow, output, input, weight, bias, axis, bool(padded))


def _product(
    flow: ChannelFlow, output: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None, axis: int, padded: bool
) -> Channels | None:
    """y_n = sum over k of w[n,k] x_k + b_n: constant where w is 0 wherever x is not constant."""
    if not flow.is_owned(weight, bias) or weight.ndim < 2:
        return None
    columns, rows = flow.places(weight, 1), flow.places(weight, 0)
    x = flow.of(input)
    if x is not None and x.axis == axis:
        flow.tie(columns, x.places)
        value = x.value.to(weight.dtype)
    else:
        if x is not None:
            flow.pin(x.places, "summed along another axis")
        flow.pin(columns, "reads what is not followed")
        value = _unknown(len(columns), weight)
    folds = (value == 0) | torch.tensor(not padded)
    flow.reads.append(Read(weight, bias, value, folds))
    known = ~value.isnan() & folds
    taps = weight.detach().flatten(2) if weight.ndim > 2 else weight.detach()[..., None]
    sums = taps.sum(2) @ torch.where(known, value, 0)
    constant = _where((taps[:, ~known] == 0).flatten(1).all(1), sums if bias is None else sums + bias)
    flow.made.append((weight, constant))
    if bias is not None:
        flow.tie(rows, flow.places(bias, 0))
    return Channels(output.ndim - input.ndim + axis, rows, constant)


def _each(
    flow: ChannelFlow, output: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None, axis: int, padded: bool
) -> Channels | None:
    """A depthwise convolution: channels stay apart, each gives as many as there are rows of its own."""
    x = flow.of(input)
    if not flow.is_owned(weight, bias) or x is None or x.axis != axis:
        return None
    rows, times = flow.places(weight, 0), len(weight) // len(x.places)
    flow.tie(rows, x.places.repeat(times))
    if bias is not None:
        flow.tie(rows, flow.places(bias, 0))
    taps, value = weight.detach().flatten(1), x.value.repeat_interleave(times).to(weight.dtype)
    known = ~value.isnan() & ((value == 0) | torch.tensor(not padded))
    sums = taps.sum(1) * torch.where(known, value, 0)
    constant = _where(known | (taps == 0).all(1), sums if bias is None else sums + bias)
    flow.made.append((weight, constant))
    return Channels(axis, rows, constant)


def _batch_norm(
    flow: ChannelFlow,
    output: Tensor,
    _: Any,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Channels | None:
    x = flow.of(input)
    if x is None or x.axis != 1 or training or running_mean is None or running_var is None:
        return None
    if not flow.is_owned(running_mean, running_var, weight, bias):
        return None
    for own in (running_mean, running_var, weight, bias):
        if own is not None:
            flow.tie(x.places, flow.places(own, 0))
    value = (x.value - running_mean) / torch.sqrt(running_var + eps)
    if weight is not None:
        value = torch.where(weight == 0, 0, value * weight)
    return Channels(1, x.places, value if bias is None else value + bias)


# Element by element


def _mapped(flow: ChannelFlow, output: Tensor, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Channels | None:
    """y = f(x), element by element; a parameter of f's own is none of these."""
    found = flow.of(x)
    if found is None or any(isinstance(a, Tensor) for a in (*args, *kwargs.values())):
        return None
    value = func(found.value.clone(), *args, **kwargs)
    return Channels(found.axis, found.places, _where(~found.value.isnan(), value))


def _dropped(
    flow: ChannelFlow, output: Tensor, _: Any, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Channels | None:
    return None if training else flow.of(x)


def _combined(flow: ChannelFlow, output: Tensor, func: Any, a: Any, b: Any, **kwargs: Any) -> Channels | None:
    """A sum, a difference, a product of two: of tensors with channels, parameters, and what spreads over channels."""
    owner = a if flow.of(a) is not None else b
    found = flow.of(owner)
    if found is None:
        return None
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        value = func(*(found.value.clone() if t is owner else t for t in (a, b)), **kwargs)
        return Channels(found.axis, found.places, _where(~found.value.isnan(), value))
    axis = found.axis - owner.ndim
    first, second = (_side(flow, t, axis, len(found.places)) for t in (a, b))
    if first is None or second is None:
        return None
    if first.places is not None and second.places is not None:
        flow.tie(first.places, second.places)
    value = func(first.value.clone(), second.value.clone(), **kwargs)
    known = ~first.value.isnan() & ~second.value.isnan()
    if func.__name__ in PRODUCTS:
        zero = (first.value == 0) | (second.value == 0)
        value, known = torch.where(zero, 0, value), known | zero
    return Channels(output.ndim + axis, found.places, _where(known, value))


@dataclass(frozen=True)
class _Side:
    """One of two operands: its places along the channels, None where it is the same along them all."""

    places: Places | None
    value: Tensor


def _side(flow: ChannelFlow, t: Tensor, axis: int, count: int) -> _Side | None:
    found = flow.of(t)
    if found is not None:
        return _Side(found.places, found.value) if (found.axis - t.ndim, len(found.places)) == (axis, count) else None
    spread = t.ndim < -axis or t.shape[axis] == 1
    if flow.is_owned(t) and not spread:
        own = t.detach().flatten() if t.numel() == count else _unknown(count, t)
        return _Side(flow.places(t, t.ndim + axis), own)
    return _Side(None, _unknown(count, t)) if spread else None


# Places


def _pooled(flow: ChannelFlow, output: Tensor, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Channels | None:
    """Of a constant, the largest value and the mean are that; not where zeros beyond the border count."""
    found = flow.of(x)
    if found is None or output.ndim != x.ndim or found.axis != x.ndim - 1 - int(func.__name__[-2]):
        return None
    value = found.value
    if func.__name__.startswith("avg"):
        padding = args[2] if len(args) > 2 else kwargs.get("padding", 0)
        if any(padding) if isinstance(padding, Sequence) else padding:
            value = _where(value == 0, value)
    return Channels(found.axis, found.places, value)


def _resized(flow: ChannelFlow, output: Tensor, _: Any, input: Tensor, *args: Any, **kwargs: Any) -> Channels | None:
    found = flow.of(input)
    return found if found is not None and found.axis == 1 else None


def _padded(
    flow: ChannelFlow,
    output: Tensor,
    _: Any,
    input: Tensor,
    pad: Sequence[int],
    mode: str = "constant",
    value: Any = None,
) -> Channels | None:
    found = flow.of(input)
    if found is None or any(pad[2 * (input.ndim - 1 - found.axis) :][:2]):
        return None
    border = found.value == (value or 0)
    return Channels(found.axis, found.places, _where(border, found.value) if mode == "constant" else found.value)


def _reduced(
    flow: ChannelFlow,
    output: Tensor,
    func: Any,
    input: Tensor,
    dim: Any = None,
    keepdim: bool = False,
    **kwargs: Any,
) -> Channels | None:
    found = flow.of(input)
    if found is None or dim is None or kwargs.keys() - {"dtype"}:
        return None
    axes = {d % input.ndim for d in ([dim] if isinstance(dim, int) else dim)}
    if found.axis in axes:
        return None
    value = _where(found.value == 0, found.value) if func.__name__ == "sum" else found.value
    return Channels(found.axis - (0 if keepdim else sum(d < found.axis for d in axes)), found.places, value)


def _joined(flow: ChannelFlow, output: Tensor, _: Any, tensors: Any, dim: int = 0) -> Channels | None:
    """Side by side: along channels their places one after the other, along another axis the same for all."""
    parts = [flow.of(t) for t in tensors]
    found = next((p for p in parts if p is not None), None)
    if found is None or any(p is not None and p.axis != found.axis for p in parts):
        return None
    if dim % output.ndim != found.axis:
        if any(p is None for p in parts):
            return None
        whole = [p for p in parts if p is not None]
        for p in whole[1:]:
            flow.tie(found.places, p.places)
        same = torch.stack([p.value for p in whole])
        return Channels(found.axis, found.places, _where((same == same[0]).all(0), same[0]))
    made = [p if p is not None else flow.stranger(t, found.axis) for p, t in zip(parts, tensors, strict=True)]
    return Channels(found.axis, np.concatenate([p.places for p in made]), torch.cat([p.value for p in made]))


def _moved(flow: ChannelFlow, output: Tensor, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Channels | None:
    """Elements are moved: so are numbers that say which channel each is of. All channels have to stay."""
    found = flow.of(x)
    if found is None or (func.__name__ in SIZED and not flow.sizes_follow):
        return None
    count = len(found.places)
    numbers = torch.arange(count).reshape(-1, *(1 for _ in x.shape[found.axis + 1 :]))
    moved = func(numbers.expand(x.shape).contiguous(), *args, **kwargs)
    for axis in range(moved.ndim):
        rows = moved.movedim(axis, 0).flatten(1)
        if rows.numel() and bool((rows == rows[:, :1]).all()) and len(rows[:, 0].unique()) == count > 1:
            of = rows[:, 0]
            return Channels(axis, found.places[of.numpy()], found.value[of])
    return None


PRODUCTS = frozenset({"mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__"})
SIZED = frozenset("view reshape expand unflatten".split())  # noqa: SIM905
"""Operations that may be told the number of channels, as a number that a program keeps."""

MAPPED = """relu relu_ relu6 leaky_relu leaky_relu_ elu selu celu gelu silu mish sigmoid tanh hardtanh hardswish
    hardsigmoid softplus softsign logsigmoid clamp clamp_min clamp_max exp abs neg __neg__ square sqrt pow __pow__
    to type float half bfloat16 double"""
COMBINED = "add add_ __add__ __radd__ __iadd__ sub sub_ __sub__ __rsub__ __isub__"
POOLED = "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d"
ADAPTIVE = "adaptive_max_pool1d adaptive_max_pool2d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d"
MOVES = """view reshape transpose permute contiguous expand flatten unflatten unsqueeze squeeze clone detach movedim
    swapaxes __getitem__"""

RULES: dict[str, Rule] = {
    "linear": _linear,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    "batch_norm": _batch_norm,
    **dict.fromkeys(MAPPED.split(), _mapped),
    **dict.fromkeys(("dropout", "dropout2d"), _dropped),
    **dict.fromkeys((*COMBINED.split(), *PRODUCTS), _combined),
    **dict.fromkeys((*POOLED.split(), *ADAPTIVE.split()), _pooled),
    "interpolate": _resized,
    "pad": _padded,
    **dict.fromkeys(("mean", "sum", "amax", "amin"), _reduced),
    **dict.fromkeys(("cat", "concat"), _joined),
    **dict.fromkeys(MOVES.split(), _moved),
}
"""By the operation's name; what any other one is given stays as it is."""

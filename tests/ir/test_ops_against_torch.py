"""The references of the op table say what PyTorch's eager kernels say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from effcc.frontend.importer import TORCH_DTYPES
from effcc.frontend.recurrent import recurrent
from effcc.frontend.requirements import require
from effcc.fuzz.steps import same_bits
from effcc.ir.dtypes import boolean
from effcc.ir.interpreter import run_graph, run_program
from effcc.ir.ops import lookup
from effcc.ir.parser import parse_graph
from effcc.steps import State, run_steps
from effcc.target import Target
from tests.ir.op_samples import Sample, all_samples
from tests.ir.test_ops import assert_close, reference

Eager = Callable[..., Any]

# Ops named as in torch, with the same operands and no attributes.
_SAME = [
    "sqrt",
    "rsqrt",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "acosh",
    "atanh",
    "erf",
    "erfc",
    "lgamma",
    "sigmoid",
    "floor",
    "ceil",
    "trunc",
    "round",
    "neg",
    "abs",
    "sign",
    "isnan",
    "isinf",
    "sub",
    "div",
    "fmod",
    "pow",
    "atan2",
    "copysign",
    "maximum",
    "minimum",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "where",
    "relu",
    "reciprocal",
    "matmul",
    "add",
    "mul",
]


def _reduction(f: Eager) -> Eager:
    def eager(x: Tensor, axes: Any, keepdim: bool) -> Tensor:
        return f(x, tuple(range(x.dim())) if axes is None else axes, keepdim=keepdim)

    return eager


def _prod(x: Tensor, axes: Any, keepdim: bool) -> Tensor:
    for axis in sorted(a % x.dim() for a in (range(x.dim()) if axes is None else axes))[::-1]:
        x = x.prod(axis, keepdim=keepdim)
    return x if x.is_floating_point() else x.long()


def _argument(f: Eager) -> Eager:
    return lambda x, axes, keepdim: f(x, None if axes is None else axes[0], keepdim=keepdim)


def _pool(x: Tensor, attrs: Mapping[str, Any]) -> Any:
    pools = {1: F.max_pool1d, 2: F.max_pool2d}
    return pools[len(attrs["kernel"])](
        x,
        attrs["kernel"],
        attrs["stride"],
        attrs["padding"],
        attrs["dilation"] or 1,
        attrs["ceil"],
        return_indices=True,
    )


def _avg_pool(x: Tensor, kernel: Any, stride: Any, padding: Any, ceil: bool, count_padding: bool, divisor: Any) -> Any:
    if len(kernel) == 2:
        return F.avg_pool2d(x, kernel, stride, padding, ceil, count_padding, divisor)
    return F.avg_pool2d(
        x.unsqueeze(-1), (*kernel, 1), (*stride, 1), (*padding, 0), ceil, count_padding, divisor
    ).squeeze(-1)


def _convolution(x: Tensor, w: Tensor, bias: Tensor | None = None, **attrs: Any) -> Tensor:
    extra = attrs["output_padding"] or (0,) * len(attrs["stride"])
    return torch.convolution(
        x, w, bias, attrs["stride"], attrs["padding"], attrs["dilation"], attrs["transposed"], extra, attrs["groups"]
    )


def _pad(x: Tensor, low: Any, high: Any, value: Any) -> Tensor:
    return F.pad(x, [p for pair in zip(low[::-1], high[::-1], strict=True) for p in pair], value=value)


def _slice(x: Tensor, axis: int, start: int, end: int | None, step: int) -> Tensor:
    return torch.ops.aten.slice.Tensor(x, axis, start, end, step)


def _index_key(x: Tensor, indices: tuple[Tensor, ...], axes: Any) -> list[Tensor | None]:
    key: list[Tensor | None] = [None] * x.dim()
    for axis, index in zip(axes, indices, strict=True):
        key[axis] = index
    return key


def _scatter(x: Tensor, index: Tensor, source: Tensor, axis: int, combine: str) -> Tensor:
    if combine == "set":
        return x.scatter(axis, index, source)
    names = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    return x.scatter_reduce(axis, index, source, names[combine])


def _grouped(x: Tensor, w: Tensor, offsets: Tensor) -> Tensor:
    o = offsets.tolist()
    parts = [x[a:b] @ m for a, b, m in zip(o[:-1], o[1:], w, strict=True)]
    return torch.cat([x[: o[0]] @ w[0] * 0, *parts, x[o[-1] :] @ w[0] * 0])


def _segments(x: Tensor, offsets: Tensor, reduce: str) -> Tensor:
    return torch.segment_reduce(x.double(), reduce, offsets=offsets.long()).to(x.dtype)


def _layer(cell: str, states: int) -> Eager:
    def eager(x: Tensor, *rest: Tensor, reverse: bool, activation: str = "") -> tuple[Tensor, ...]:
        name = f"rnn_{activation}" if activation else cell
        return tuple(recurrent(name, x, list(rest[:states]), list(rest[states:]), reverse))

    return eager


def _linear_recurrence(a: Tensor, b: Tensor, *start: Tensor, axis: int) -> Tensor:
    state, states = start[0] if start else torch.zeros_like(a.select(axis, 0)), []
    for factor, summand in zip(a.unbind(axis), b.unbind(axis), strict=True):
        state = factor * state + summand
        states.append(state)
    return torch.stack(states, axis)


OTHER_KIND = {
    torch.float32: torch.int32,
    torch.float64: torch.int64,
    torch.int32: torch.float32,
    torch.int64: torch.float64,
}
"""By dtype, the one of as many bytes whose numbers bits are read as."""
EAGER: dict[str, Eager] = {
    **{name: getattr(torch, name) for name in _SAME},
    "not": torch.bitwise_not,
    "floordiv": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "mod": torch.remainder,
    "and": torch.bitwise_and,
    "or": torch.bitwise_or,
    "xor": torch.bitwise_xor,
    "shl": torch.bitwise_left_shift,
    "shr": torch.bitwise_right_shift,
    "cast": lambda x, dtype: x.to(TORCH_DTYPES[dtype]),
    "bits": lambda x: x.view(OTHER_KIND[x.dtype]),
    "silu": F.silu,
    "gelu": F.gelu,
    "sum": _reduction(torch.sum),
    "mean": _reduction(torch.mean),
    "max": _reduction(torch.amax),
    "min": _reduction(torch.amin),
    "any": _reduction(torch.any),
    "all": _reduction(torch.all),
    "prod": _prod,
    "var": lambda x, axes, keepdim, correction: torch.var(x, axes, correction=correction, keepdim=keepdim),
    "argmax": _argument(torch.argmax),
    "argmin": _argument(torch.argmin),
    "cumsum": torch.cumsum,
    "linear_recurrence": _linear_recurrence,
    "cumprod": torch.cumprod,
    "softmax": lambda x, axis, safe: torch.softmax(x, axis),
    "log_softmax": lambda x, axis: torch.log_softmax(x, axis),
    "layer_norm": lambda x, *affine, axes, eps, safe: F.layer_norm(x, x.shape[-axes:], *affine, eps=eps),
    "rms_norm": lambda x, *affine, axes, eps: F.rms_norm(x, x.shape[-axes:], *affine, eps=eps),
    "group_norm": lambda x, *affine, groups, eps, by_channel: F.group_norm(x, groups, *affine, eps=eps),
    "batch_norm": lambda x, mean, var, *affine, eps: F.batch_norm(x, mean, var, *affine, eps=eps),
    "linear": F.linear,
    "einsum": lambda *xs, spec: torch.einsum(spec, *xs),
    "convolution": _convolution,
    "max_pool": lambda x, **attrs: _pool(x, attrs)[0],
    "argmax_pool": lambda x, **attrs: _pool(x, attrs)[1],
    "avg_pool": _avg_pool,
    "adaptive_avg_pool": lambda x, sizes: (F.adaptive_avg_pool1d if len(sizes) == 1 else F.adaptive_avg_pool2d)(
        x, sizes
    ),
    "lstm": _layer("lstm", 2),
    "gru": _layer("gru", 1),
    "rnn": _layer("rnn", 1),
    "reshape": torch.reshape,
    "transpose": lambda x, perm: x.permute(perm),
    "broadcast": lambda x, shape: x.broadcast_to(shape),
    "slice": _slice,
    "flip": lambda x, axes: x.flip(axes),
    "diagonal": lambda x, offset, axis1, axis2: torch.diagonal(x, offset, axis1, axis2),
    "as_strided": lambda x, shape, strides, offset: torch.as_strided(x, shape, strides, offset),
    "pad": _pad,
    "concat": lambda *xs, axis: torch.cat(xs, axis),
    "repeat": lambda x, repeats: x.repeat(repeats),
    "slice_scatter": lambda x, source, axis, start, end, step: torch.slice_scatter(x, source, axis, start, end, step),
    "embedding": lambda table, index: F.embedding(index, table),
    "index_select": lambda x, index, axis, checked: torch.index_select(x, axis, index),
    "gather": lambda x, index, axis: torch.gather(x, axis, index),
    "index": lambda x, *indices, axes, wraps, checked: torch.ops.aten.index(x, _index_key(x, indices, axes)),
    "scatter": _scatter,
    "index_put": lambda x, values, *indices, axes, combine, wraps, checked: torch.ops.aten.index_put(
        x, _index_key(x, indices, axes), values, combine == "add"
    ),
    "segment_reduce": _segments,
    "grouped_matmul": _grouped,
    "require": lambda x, condition, message: require(x, condition, message),
    "constant": lambda value, dtype, shape: torch.tensor(value, dtype=TORCH_DTYPES[dtype]).reshape(shape),
    "full": lambda shape, value, dtype: torch.full(shape, value, dtype=TORCH_DTYPES[dtype]),
    "iota": lambda size, start, step, dtype: (
        torch.arange(size, dtype=torch.float64).mul(step).add(start).to(TORCH_DTYPES[dtype])
    ),
}


def to_torch(array: Any) -> Tensor:
    """An array as a tensor; NumPy has no bfloat16 of its own."""
    array = np.array(array)
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_numpy(tensor: Tensor) -> Any:
    tensor = tensor.contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


# Calls that eager does not take, though the op does.
def _refused(sample: Sample) -> bool:
    dtype = sample.types[0].dtype if sample.types else None
    return (sample.op in ("min", "max", "argmin", "argmax") and dtype == boolean) or (
        sample.op == "add" and dtype == boolean
    )


@pytest.mark.parametrize("sample", [s for s in all_samples() if not _refused(s)], ids=str)
def test_the_reference_is_eager(sample: Sample) -> None:
    arrays = sample.arrays()
    attrs = lookup(sample.op).complete_attrs(sample.attrs)
    eager = EAGER[sample.op](*(to_torch(a) for a in arrays), **attrs)
    for got, expected in zip(eager if isinstance(eager, tuple) else (eager,), reference(sample, arrays), strict=True):
        assert_close(to_numpy(got), np.asarray(expected))


def test_the_last_nan_of_a_window_is_its_maximum() -> None:
    nan = float("nan")
    x = np.array([[1, nan, nan, 3, 2, nan, 1], [0, 1, 2, nan, nan, 4, 4]], np.float32)
    graph = parse_graph("""graph @g(%x: f32[2,7]) {
      %y = argmax_pool %x {kernel=[3], stride=[1], padding=[1], dilation=[1], ceil=false} : i64[2,7]
      return %y
    }""")
    _, expected = F.max_pool1d(torch.from_numpy(x), 3, 1, 1, return_indices=True)
    state = run_steps(State(graph=graph), Target.parse("avx2"))
    assert state.program is not None
    for (found,) in (run_graph(graph, [x]), run_program(state.program, [x], nests=state.nests)):
        np.testing.assert_array_equal(found, expected.numpy())


def test_a_remainder_of_zero_has_the_sign_of_what_is_divided() -> None:
    x = np.array([0.0, -0.0, 3.0, -3.0, 2.0, -2.0, np.nan, 1.0], np.float32)
    for by in (1.5, -1.5):
        graph = parse_graph(f"""graph @g(%x: f32[8]) {{
          %c = full {{shape=[], value={by}, dtype=f32}} : f32[]
          %y = mod %x, %c : f32[8]
          return %y
        }}""")
        (found,) = run_graph(graph, [x])
        assert same_bits(found, torch.remainder(torch.from_numpy(x), by).numpy()).all()

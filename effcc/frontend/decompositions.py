"""Which operators are taken apart before import, and which reach the importer whole.

The base is PyTorch's core ATen set. effcc departs from it where its own kernels start from a better form: recurrent
layers stay whole, so do attention and the softmax of masked attention, and what is pointwise, a gather or a view in
terms of simpler ops is written that way.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, decomposition_table, get_decompositions
from torch.fx.experimental import proxy_tensor

from effcc.frontend import recurrent
from effcc.frontend.borders import border_decompositions
from effcc.frontend.composites import composites
from effcc.frontend.decomposed_quantization import quantized_decompositions
from effcc.frontend.embedding_bags import embedding_bag
from effcc.frontend.foreach import foreach_decompositions
from effcc.frontend.refused import unless_refused
from effcc.frontend.requirements import one_hot
from effcc.frontend.transformer_layer import encoder_layer

aten = torch.ops.aten

# `_safe_softmax` is softmax with zeros for a row of nothing but -inf: one guard in the kernel, six ops outside it.
# Attention's gradient reads its second result, the rows' log-sum-exp, which the decomposition does not give; the
# importer takes both apart, so that their kernels can be derived. Taken apart, `index_add` and `index_copy` would
# broadcast a source of a shape that eager refuses, and count negative positions from the end (as `index_fill`, which
# comes apart into `index_copy`, does); unpooling would write what is outside one channel to another; `addcmul` and
# `addcdiv` would multiply by their factor last, where eager does so first; `std` would take the root of a variance that
# float32 does not hold. The others would round half types in between, leave out a check, or take another branch at 0.
_KEPT_WHOLE = (
    aten.bernoulli.default,
    aten.addcdiv.default,
    aten.addcmul.default,
    aten._safe_softmax.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten.index_add.default,
    aten.index_copy.default,
    aten.index_fill.int_Scalar,
    aten.index_fill.int_Tensor,
    aten.std.correction,
    aten.std_mean.correction,
    aten.max_unpool2d.default,
    aten.max_unpool3d.default,
    aten.elu.default,
    aten.lerp.Scalar,
    aten.lerp.Tensor,
    aten.masked_fill.Scalar,
    aten.masked_fill.Tensor,
)

Table = dict[Any, Callable[..., Any]]

# Core ATen keeps these; in terms of ops that stay, each is pointwise, a gather or a view.
_ALSO_DECOMPOSED = (
    aten.hardtanh.default,
    aten.leaky_relu.default,
    aten.upsample_bilinear2d.vec,
    aten.upsample_nearest1d.vec,
    aten.upsample_nearest2d.vec,
    aten.grid_sampler_2d.default,
    aten.var_mean.correction,
)


def _dropout(x: Tensor, p: float, train: bool | None) -> Any:
    """A dropout of everything draws nothing in eager; any other stays whole (a decomposition may decline)."""
    if p != 1 or not train:
        return NotImplemented
    return x * 0, torch.zeros_like(x, dtype=torch.bool)


def _channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Y[n, c g + i] = X[n, i C/g + c], new memory as eager's; PyTorch's rule gives a view of X where nothing moves."""
    return decomposition_table[aten.channel_shuffle.default](x, groups).clone()


def _var_mean(x: Tensor, dims: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    """Of complex numbers, which PyTorch computes on, as a whole: taken apart, their sums round more often."""
    if x.is_complex():
        return NotImplemented
    return decomposition_table[aten.var_mean.correction](x, dims, correction=correction, keepdim=keepdim)


def _mixed(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> bool:
    """Whether a norm is of a half type with parameters in float32."""
    return x.dtype in (torch.bfloat16, torch.float16) and torch.float32 in {
        t.dtype for t in (weight, bias) if t is not None
    }


def _layer_norm(x: Tensor, shape: Any, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
    """Of half types with parameters in float32 eager gives moments in float32, where its metadata says the half type:
    a graph that goes by the metadata would round them, and gradients read them."""
    if not _mixed(x, weight, bias):
        return NotImplemented
    y, mean, deviation = aten.native_layer_norm(x.float(), shape, weight, bias, eps)
    return y.to(x.dtype), mean, deviation


def _group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, n: Any, c: Any, area: Any, groups: int, eps: float
) -> Any:
    """As `_layer_norm`."""
    if not _mixed(x, weight, bias):
        return NotImplemented
    y, mean, deviation = aten.native_group_norm(x.float(), weight, bias, n, c, area, groups, eps)
    return y.to(x.dtype), mean, deviation


def _shrink_backward(grad: Tensor, x: Tensor, lambd: float) -> Tensor:
    """What was shrunk to 0 has no gradient."""
    return torch.where((x >= -lambd) & (x <= lambd), torch.zeros_like(grad), grad)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Y[i] = X[index[i]], X row by row; PyTorch's rule asks an index without axes for its number, which is data."""
    return x.reshape(-1)[index.reshape(-1)].reshape(index.shape)


def _detach(x: Tensor) -> Any:
    """Nothing but in a body of control flow: what it saves for its gradient must not be one of its results.

    PyTorch refuses a body whose results share memory, and saves `tanh(x).detach()` beside `tanh(x)`.
    """
    tracer = proxy_tensor._CURRENT_MAKE_FX_TRACER
    return NotImplemented if tracer is not None and tracer.is_hop_subgraph_tracer() else x


@functools.cache
def _table(known: int) -> Table:
    """The rules for what is taken apart; known: how many PyTorch has, which grow as others register theirs.

    PyTorch takes 0.1 s to list its own, and every graph asks.
    """
    # Composite operators without an entry of their own come apart by themselves while tracing.
    table: Table = {op: rule for op, rule in core_aten_decompositions().items() if op in decomposition_table}
    table.update(get_decompositions(_ALSO_DECOMPOSED))
    table[aten.native_dropout.default] = _dropout
    table[aten.channel_shuffle.default] = _channel_shuffle
    table[aten.detach.default] = _detach
    table[aten.take.default] = _take
    table[aten.hardshrink_backward.default] = table[aten.softshrink_backward.default] = _shrink_backward
    table[aten.native_layer_norm.default] = _layer_norm
    table[aten.native_group_norm.default] = _group_norm
    table[aten.var_mean.correction] = _var_mean
    table[aten._embedding_bag.default] = embedding_bag
    table[aten.one_hot.default] = one_hot
    table[aten._transformer_encoder_layer_fwd.default] = encoder_layer
    table.update(border_decompositions())
    table.update(composites())
    table.update(foreach_decompositions())
    for op in _KEPT_WHOLE:
        table.pop(op, None)
    return {op: unless_refused(op, rule) for op, rule in table.items()}


def compile_decompositions() -> Table:
    """The table for AOTAutograd: overload -> how to write it with the ops that the importer knows."""
    return {**_table(len(decomposition_table)), **quantized_decompositions()}


def export_decompositions() -> Table:
    """The table for `ExportedProgram.run_decompositions`, which also asks about composite operators."""
    table = core_aten_decompositions()
    table.update(_table(len(decomposition_table)))
    table.update(quantized_decompositions())
    table.update(recurrent.DECOMPOSITIONS)
    for op in _KEPT_WHOLE:
        table.pop(op, None)
    return table

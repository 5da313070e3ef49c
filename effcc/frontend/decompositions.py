"""Which operators are taken apart before import, and which reach the importer whole.

The base is PyTorch's core ATen set. effcc departs from it where its own kernels start from a better form: recurrent layers
stay whole, `_safe_softmax` becomes one guarded cascade, and what is pointwise, a gather or a view in terms of simpler ops is
written that way.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions

from effcc.frontend import recurrent

aten = torch.ops.aten

Table = dict[Any, Callable[..., Any]]

# Core ATen keeps these; in terms of ops that stay, each is pointwise, a gather or a view.
_ALSO_DECOMPOSED = (
    aten.elu.default,
    aten.hardtanh.default,
    aten.leaky_relu.default,
    aten.upsample_bilinear2d.vec,
    aten.upsample_nearest1d.vec,
    aten.upsample_nearest2d.vec,
    aten.grid_sampler_2d.default,
    aten.var_mean.correction,
)


def _safe_softmax(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """Softmax whose rows of nothing but -inf (every key masked) are zero instead of NaN.

    With m = max(x), taken as 0 where it is -inf, exp(x - m) of such a row is 0 and so is its sum, which is divided as 1.
    """
    x = x if dtype is None else x.to(dtype)
    largest = x.amax(dim, keepdim=True)
    largest = torch.where(largest == float("-inf"), 0.0, largest)
    weights = torch.exp(x - largest)
    total = weights.sum(dim, keepdim=True)
    return weights / torch.where(total == 0, 1.0, total)


@functools.cache
def _table() -> Table:
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    table: Table = {
        op: function
        for op, function in core_aten_decompositions().items()
        if isinstance(op, torch._ops.OpOverload)
        and op.namespace == "aten"
        and not torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), composite)
    }
    table.update(get_decompositions(_ALSO_DECOMPOSED))
    table[aten._safe_softmax.default] = _safe_softmax
    return table


def compile_decompositions() -> Table:
    """The table for AOTAutograd: overload -> how to write it with the ops that the importer knows.

    Composite operators are absent: they come apart by themselves while tracing.
    """
    return dict(_table())


def export_decompositions() -> Table:
    """The table for `ExportedProgram.run_decompositions`, which also asks about composite operators."""
    table = core_aten_decompositions()
    table.update(_table())
    table.update(recurrent.DECOMPOSITIONS)
    return table

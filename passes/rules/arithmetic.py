"""What compiled code computes for a graph, step by step: every op by its index form, each step rounded to its dtype.

The references of the op table compute in float64 and round once; a mean of squares that overflows float32 is finite
there. Whether a rule changes an infinity is seen only in the arithmetic that runs. The one liberty is that of sums,
whose order is not part of what a form says: they are accumulated wider, so that their order does not show.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from effcc.ir.dims import evaluate
from effcc.ir.expr import Reduce
from effcc.ir.graph import Graph
from effcc.ir.interpreter.evaluate import Array, Evaluator, bind_sizes
from effcc.ir.interpreter.kernels import blank, run_statement
from effcc.ir.ops import lookup
from effcc.passes.fusion.cascade import Defined, to_cascade

_COMPUTES = frozenset({"pointwise", "norm", "reduction", "contraction"})


_cascade = functools.lru_cache(maxsize=8)(to_cascade)
"""Of a graph, which is run on several inputs, one after the other."""


def computes(graph: Graph) -> bool:
    """Whether a graph has arithmetic: views and gathers move values, which a reference does as well."""
    return any(lookup(n.op).kind in _COMPUTES for n in graph.nodes)


def run_forms(graph: Graph, arrays: list[Any]) -> list[Any]:
    """The outputs of `graph`, all of whose ops have forms, none of them a scan.

    Raises InputError for an index outside its tensor.
    """
    cascade = _cascade(graph)
    buffers: dict[str, Array] = {p.name: np.asarray(a) for p, a in zip(graph.params, arrays, strict=True)}
    sizes = bind_sizes({p.name: (p.type.shape, buffers[p.name].shape) for p in graph.params}, None)
    ranges = {axis: range(evaluate(extent, sizes)) for axis, extent in cascade.extents.items()}
    steps = _Steps(buffers, ranges, sizes)
    with np.errstate(all="ignore"):
        for item in cascade.items:
            assert isinstance(item, Defined) and not item.scans
            statement = item.statement
            if statement.target not in buffers:
                shape = tuple(evaluate(d, sizes) for d in cascade.types[statement.target].shape)
                buffers[statement.target] = blank(shape, statement.dtype.numpy)
            run_statement(steps, statement)
    return [buffers[o.name] for o in graph.outputs]


class _Steps(Evaluator):
    """An evaluator whose sums and products are rounded as those of code are, but for the order of sums."""

    def _reduce_box(self, e: Reduce, dims: Any, mask: Any) -> Array:
        if e.operator != "sum" or not e.dtype.is_float or 0 in (len(self.ranges[a]) for a in e.axes):
            return super()._reduce_box(e, dims, mask)
        extents = tuple(len(self.ranges[a]) for a in e.axes)
        inner = None if mask is None else mask.reshape(mask.shape + (1,) * len(extents))
        body = self.cast(self(e.body, (*dims, *e.axes), inner), e.dtype).astype(np.longdouble)
        body = np.broadcast_to(body, body.shape[: len(dims)] + extents)
        return self.cast(body.sum(axis=tuple(range(len(dims), body.ndim))), e.dtype)

    def _contract(self, e: Reduce, dims: Any) -> None:
        """A sum of products like any other: each product is rounded."""

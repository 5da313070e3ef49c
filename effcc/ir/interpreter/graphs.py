"""Graphs run node by node, with the NumPy references of the op table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from effcc.errors import InputError, IRTypeError, UnsupportedError
from effcc.ir.dims import evaluate as evaluate_size
from effcc.ir.dims import evaluate_number
from effcc.ir.dtypes import DType
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.interpreter.evaluate import Array, bind_sizes
from effcc.ir.interpreter.kernels import as_dtype
from effcc.ir.ops import lookup

Externs = Callable[[Node, list[Array]], Sequence[Array]]
Observe = Callable[[Node, list[Array]], list[Array]]


def run_graph(
    graph: Graph,
    inputs: Sequence[Any],
    sizes: Mapping[str, int] | None = None,
    dtype: DType | None = None,
    externs: Externs | None = None,
    observe: Observe | None = None,
) -> list[Array]:
    """The outputs of `graph`, then the values of its updates.

    `inputs` are the parameters in order; encoded parameters are given decoded. `dtype=f64` widens all floating
    computation. `externs(node, arrays)` computes the nodes that have no reference (random numbers, PyTorch's own ops).
    `observe(node, results)` sees what each node computed and gives what stands for it from there on.
    Raises InputError on misfitting inputs and UnsupportedError on an extern without a callback.
    """
    if len(inputs) != len(graph.params):
        raise InputError(f"graph @{graph.name} expects {len(graph.params)} inputs, got {len(inputs)}")
    given = [as_dtype(a, p.type.dtype, dtype, p.name) for a, p in zip(inputs, graph.params, strict=True)]
    shapes = {p.name: (p.type.shape, a.shape) for p, a in zip(graph.params, given, strict=True)}
    bound = bind_sizes(shapes, sizes)
    return _Run(bound, dtype, externs, observe).graph(graph, given)


class _Run:
    def __init__(
        self, sizes: Mapping[str, int], wide: DType | None, externs: Externs | None, observe: Observe | None
    ) -> None:
        self.sizes = sizes
        self.wide = wide
        self.externs = externs
        self.observe = observe

    def graph(self, graph: Graph, inputs: Sequence[Array]) -> list[Array]:
        values: dict[Value, Array] = dict(zip(graph.params, inputs, strict=True))
        with np.errstate(all="ignore"):
            for node in graph.nodes:
                results = self.node(node, [values[o] for o in node.operands])
                if self.observe is not None:
                    results = self.observe(node, results)
                values.update(zip(node.results, results, strict=True))
        return [values[v] for v in graph.results]

    def node(self, node: Node, operands: list[Array]) -> list[Array]:
        spec = lookup(node.op)
        if spec.reference is None:
            if self.externs is None:
                raise UnsupportedError(f"op {node.op!r} has no NumPy reference; give run_graph a callback for externs")
            found: Any = self.externs(node, operands)
        else:
            attrs = {name: self.attribute(value) for name, value in spec.complete_attrs(node.attrs).items()}
            if node.regions:
                attrs["regions"] = tuple(self.region(r) for r in node.regions)
            if spec.of_bits:
                operands = [a.astype(o.type.dtype.numpy) for o, a in zip(node.operands, operands, strict=True)]
                return [self.widened(v, spec.reference(*operands, **attrs)) for v in node.results]
            found = spec.reference(*operands, **attrs)
        results = list(found) if isinstance(found, tuple | list) else [found]
        if len(results) != len(node.results):
            raise IRTypeError(f"op {node.op!r} computed {len(results)} results, its node names {len(node.results)}")
        return [self.checked(node, v, np.asarray(a)) for v, a in zip(node.results, results, strict=True)]

    def widened(self, value: Value, array: Array) -> Array:
        """What `value` is, in the dtype that it is interpreted in."""
        return array.astype(self.wide.numpy) if self.wide is not None and value.type.dtype.is_float else array

    def region(self, graph: Graph) -> Callable[..., tuple[Array, ...]]:
        return lambda *inputs: tuple(self.graph(graph, inputs))

    def attribute(self, value: Any) -> Any:
        """An attribute as references take it: size expressions as numbers, floating dtypes widened if asked."""
        if isinstance(value, tuple):
            return tuple(self.attribute(v) for v in value)
        if isinstance(value, DType):
            return self.wide if self.wide is not None and value.is_float else value
        return evaluate_number(value, self.sizes)

    def checked(self, node: Node, value: Value, array: Array) -> Array:
        """`array`, whose shape and dtype must be those of the type of `value`."""
        shape = tuple(evaluate_size(d, self.sizes) for d in value.type.shape)
        wide = self.wide is not None and value.type.dtype.is_float
        expected = self.wide.numpy if wide and self.wide is not None else value.type.dtype.numpy
        if array.shape != shape or array.dtype != expected:
            wanted, got = f"{expected}{list(shape)}", f"{array.dtype}{list(array.shape)}"
            raise IRTypeError(f"%{value.name} = {node.op}: its type says {wanted}, its reference gave {got}")
        return array

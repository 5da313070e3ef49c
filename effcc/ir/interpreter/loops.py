"""Loop nests run with NumPy: loops in Python, each tile at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from effcc.ir.dtypes import DType
from effcc.ir.expr import Expr
from effcc.ir.interpreter.evaluate import Array, Evaluator
from effcc.ir.interpreter.kernels import blank, bound_arrays, provide_outputs, write
from effcc.ir.loops import Alloc, For, If, LoopNest, Stmt, Tile


def run_loops(
    nest: LoopNest, arrays: Mapping[str, Any], sizes: Mapping[str, int] | None = None, dtype: DType | None = None
) -> dict[str, Array]:
    """The outputs of a loop nest, by name; arguments as for `run_kernel`.

    Parallel loops run backwards, so that a dependence between their iterations shows; local buffers begin as NaN.
    """
    buffers, bound = bound_arrays(nest, arrays, sizes, dtype)
    evaluator = Evaluator(buffers, {}, bound, dtype)
    provide_outputs(nest, buffers, evaluator)
    with np.errstate(all="ignore"):
        _run_block(nest.body, evaluator)
    return {output.name: buffers[output.name] for output in nest.outputs}


def _run_block(body: Sequence[Stmt], evaluator: Evaluator) -> None:
    buffers = dict(evaluator.buffers)
    evaluator = replace(evaluator, buffers=buffers)
    for statement in body:
        match statement:
            case Alloc(name, dtype, shape):
                buffers[name] = blank(shape, evaluator.numpy(dtype))
            case Tile():
                _run_tile(statement, evaluator)
            case For(axis, start, stop, step, kind, inside):
                points = range(_scalar(start, evaluator), _scalar(stop, evaluator), step)
                for point in reversed(points) if kind == "parallel" else points:
                    _run_block(inside, evaluator.at(**{axis: range(point, point + 1)}))
            case If(condition, then, orelse):
                _run_block(then if bool(evaluator(condition, ())) else orelse, evaluator)


def _run_tile(tile: Tile, evaluator: Evaluator) -> None:
    extents = [a.extent if a.limit is None else min(a.extent, _scalar(a.limit, evaluator)) for a in tile.axes]
    local = evaluator.at(**{a.name: range(max(n, 0)) for a, n in zip(tile.axes, extents, strict=True)})
    if any(n <= 0 for n in extents):
        return
    dims = tuple(a.name for a in tile.axes)
    value = local(tile.value, dims)
    index = [np.asarray(local(i, dims), np.int64) for i in tile.index]
    write(evaluator.buffers[tile.buffer], index, value, tile.combine, extents, tile.buffer)


def _scalar(e: Expr, evaluator: Evaluator) -> int:
    return int(evaluator(e, ()))

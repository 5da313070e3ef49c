"""Online reductions: a reduction evaluated tile by tile beside a running one, and rescaled when that one moves on.

    M[m]   = max(n: S[m,n])
    P[m,n] = exp(S[m,n] - M[m])
    D[m]   = sum(n: P[m,n]) rescale exp(M'[m] - M[m])

For each tile of n: the running M is taken over the tile; D is multiplied by the factor, in which `M'` is the value
before the tile and `M` the one after; then the tile's points are added, with P evaluated again from the running M. A
wrong factor gives a wrong sum here, as it would in generated code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from effcc.errors import IRTypeError
from effcc.ir.expr import Expr, Load, Reduce, loads, substitute_axes, transform
from effcc.ir.kernel import Statement
from effcc.ir.scalars import FUNCTIONS, REDUCTIONS

if TYPE_CHECKING:
    from effcc.ir.interpreter.evaluate import Array, Evaluator

TILES = 4
"""How many tiles the interpreter cuts the reduced axis into."""


def reduce_online(evaluator: Evaluator, e: Reduce, dims: Sequence[str], mask: Array | None) -> Array:
    """The value of a reduction with `rescale`, over `dims`."""
    assert e.rescale is not None
    running = running_statements(evaluator, e)
    axis = e.axes[0]
    body = _inline(evaluator, e.body, set(running))
    values = {name: _identity(evaluator, s) for name, s in running.items()}
    total: Array = np.full((1,) * len(dims), REDUCTIONS[e.operator].identity(e.dtype), evaluator.numpy(e.dtype))
    for tile in _tiles(evaluator.ranges[axis]):
        local = evaluator.at(**{axis: tile})
        before = values
        values = {name: _advance(local, s, before[name]) for name, s in running.items()}
        moved = {**values, **{f"{name}'": value for name, value in before.items()}}
        local = replace(local, buffers={**evaluator.buffers, **moved})
        factor = local.cast(local(e.rescale, dims, mask), e.dtype)
        partial = local(Reduce(e.operator, e.axes, body, e.dtype), dims, mask)
        scaled = local.cast(total * factor, e.dtype)
        total = local.cast(FUNCTIONS[REDUCTIONS[e.operator].combine].reference(scaled, partial), e.dtype)
    return total


def running_statements(evaluator: Evaluator, e: Reduce) -> dict[str, Statement]:
    """The running reductions that `e.rescale` names with a prime; IRTypeError where they do not run beside `e`."""
    assert e.rescale is not None
    found: dict[str, Statement] = {}
    for load in loads(e.rescale):
        if not load.before:
            continue
        name = load.buffer
        statement = (evaluator.definitions or {}).get(name)
        if statement is None or statement.reduction is None or statement.reduction.axes != e.axes:
            axes = ", ".join(e.axes)
            raise IRTypeError(f"rescale reads {load.written!r}, but {name!r} is no earlier reduction over ({axes})")
        found[name] = statement
    if not found:
        raise IRTypeError("rescale names no running reduction (a load such as M'[m])")
    return found


def _tiles(points: range) -> list[range]:
    step = max(1, -(-len(points) // TILES))
    return [points[i : i + step] for i in range(0, len(points), step)]


def _identity(evaluator: Evaluator, statement: Statement) -> Array:
    reduction = statement.reduction
    assert reduction is not None
    shape = evaluator.buffers[statement.target].shape
    return np.full(shape, REDUCTIONS[reduction.operator].identity(reduction.dtype), evaluator.numpy(reduction.dtype))


def _advance(local: Evaluator, statement: Statement, before: Array) -> Array:
    """The running value after the tile that `local` covers, at every point of the statement's axes."""
    reduction = statement.reduction
    assert reduction is not None
    whole = local.at(**{a: range(size) for a, size in zip(statement.axes, before.shape, strict=True)})
    combine = FUNCTIONS[REDUCTIONS[reduction.operator].combine].reference
    return local.cast(combine(before, whole(reduction, statement.axes)), reduction.dtype)


def _inline(evaluator: Evaluator, body: Expr, running: set[str]) -> Expr:
    """`body` with every intermediate that depends on a running value replaced by its definition."""
    definitions = evaluator.definitions or {}

    def depends(name: str) -> bool:
        if name in running:
            return True
        statement = definitions.get(name)
        return statement is not None and any(depends(load.buffer) for load in statement.reads if load.buffer != name)

    def expand(e: Expr) -> Expr:
        if not isinstance(e, Load) or e.buffer in running or not depends(e.buffer):
            return e
        statement = definitions[e.buffer]
        if statement.scatter is not None or statement.reduction is not None:
            raise IRTypeError(f"{e.buffer!r} depends on a running value and is no pointwise statement")
        value = transform(statement.value, expand)
        return substitute_axes(value, dict(zip(statement.axes, e.index, strict=True)))

    return transform(body, expand)

"""Importers of control flow: `torch.cond`, `while_loop`, `scan` and `map`, whose bodies capture keeps as graphs.

A body arrives as a `Graph`: `effcc.frontend.regions` imports it, and makes the bodies of one call take the same
operands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy
import torch

from effcc.errors import UnsupportedError
from effcc.frontend.importer import Importer, imports
from effcc.ir.dims import same_shape
from effcc.ir.dtypes import i64
from effcc.ir.graph import Graph, Value

higher_order = torch.ops.higher_order


@imports(higher_order.cond)
def cond(m: Importer, condition: Any, then: Graph, orelse: Graph, operands: Sequence[Value]) -> tuple[Value, ...]:
    if isinstance(condition, sympy.Expr):  # a comparison of sizes, 1 where it holds
        held = m.emit("iota", size=1, start=condition, dtype=i64)
        condition = m.emit("ne", held, m.emit("full", shape=(1,), value=0, dtype=i64))
    if not isinstance(condition, Value):
        raise UnsupportedError(f"torch.cond on a size ({condition}); compare tensors, or branch in Python")
    pairs = zip(then.outputs, orelse.outputs, strict=True)
    odd = next(((a.type, b.type) for a, b in pairs if not same_shape(a.type.shape, b.type.shape)), None)
    if odd is not None:
        raise UnsupportedError(
            f"torch.cond whose branches give tensors of different shapes, {odd[0]} and {odd[1]}; "
            "give them one, or take the call out of the model (torch.compiler.disable)"
        )
    if condition.type.rank:  # one element, as torch has checked
        condition = m.reshape(condition, ())
    return m.node("cond", condition, *operands, regions=(then, orelse)).results


@imports(higher_order.while_loop)
def while_loop(
    m: Importer, condition: Graph, body: Graph, carried: Sequence[Value], fixed: Sequence[Value]
) -> tuple[Value, ...]:
    return m.node("while", *carried, *fixed, regions=(condition, body), carried=len(carried)).results


@imports(higher_order.scan)
def scan(
    m: Importer, body: Graph, initial: Sequence[Value], scanned: Sequence[Value], fixed: Sequence[Value]
) -> tuple[Value, ...]:
    length = scanned[0].type.shape[0]
    return m.node(
        "scan", *initial, *scanned, *fixed, regions=(body,), carried=len(initial), scanned=len(scanned), length=length
    ).results


@imports(higher_order.map_impl)
def map_(m: Importer, body: Graph, scanned: Sequence[Value], fixed: Sequence[Value]) -> tuple[Value, ...]:
    return scan(m, body, (), scanned, fixed)

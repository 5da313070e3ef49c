"""Structures of control flow: branches, loops and scans whose bodies are drawn, one within the other at times.

What decides is an integer or a bool that is given, never a float: its roundings would choose. A body returns what it
computes, or what it was given: as it was, twice, or in another's place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import numpy as np

from effcc.fuzz.sketch import Sketch, Structure, floats, size, wide
from effcc.ir.dtypes import boolean, i64
from effcc.ir.graph import Graph, GraphBuilder, Value
from effcc.ir.types import TensorType

_DEEPEST = 2  # bodies within bodies
_NUMBER = TensorType(i64, ())


def branch(s: Sketch) -> None:
    """One of two drawn bodies."""
    given = _operands(s)
    holds = s.given(np.asarray(s.random.random() < 0.5))
    results = [given[0].type] * s.random.randint(1, 3)
    bodies = tuple(_body(s.random, name, given, results, 0) for name in ("then", "else"))
    s.call("cond", holds, *given, regions=bodies)


def loop(s: Sketch) -> None:
    """Some turns of a drawn body, none at times; the count stands anywhere among what is carried."""
    given = _operands(s)
    carried = list(given[: s.random.randint(1, 2)])
    fixed = list(given[len(carried) :])
    place = s.random.randint(0, len(carried))
    carried.insert(place, s.given(np.asarray(s.random.randint(0, 1))))
    fixed.append(s.given(np.asarray(s.random.choice((0, 1, 2, 3, 5)))))
    operands = (*carried, *fixed)
    test, params = _begun("test", operands)
    held = test.emit("lt", params[place], params[-1])
    body = _body(s.random, "body", operands, [v.type for v in carried], 0, counts=place)
    s.call("while", *operands, regions=(test.build((held,)), body), carried=len(carried))


def scan(s: Sketch) -> None:
    """A drawn step for each row of a tensor or two: a state goes through, or none, and rows are stacked."""
    given = _operands(s)
    row = given[0].type
    steps, reverse = s.random.choice((1, 2, 3, 6)), s.random.random() < 0.3
    state = list(given[: s.random.randint(0, 1)])
    scanned = [floats(s, steps, *row.shape, dtype=row.dtype) for _ in range(s.random.randint(1, 2))]
    fixed = list(given[len(state) :])
    rows = [Value(f"row{n}", row) for n in range(len(scanned))]
    results = [row] * (len(state) + s.random.randint(1, 2))
    body = _body(s.random, "step", (*state, *rows, *fixed), results, 0)
    s.call(
        "scan", *state, *scanned, *fixed, regions=(body,), carried=len(state), scanned=len(scanned), length=steps,
        reverse=reverse,
    )  # fmt: skip


CONTROL: tuple[Structure, ...] = (branch, loop, scan)


def _operands(s: Sketch) -> list[Value]:
    """Matrices of one shape, what is multiplied by it, and the flag and the place that bodies may go by."""
    dtype, rows, width = wide(s), size(s, 1, 2, 4, 9), size(s, 1, 3, 8, 17)
    found = [floats(s, rows, width, dtype=dtype) for _ in range(s.random.randint(2, 3))]
    found.append(floats(s, width, width, dtype=dtype, weight=s.random.random() < 0.7))
    found.append(s.given(np.asarray(s.random.random() < 0.5)))
    return found


def _begun(name: str, operands: Sequence[Value]) -> tuple[GraphBuilder, list[Value]]:
    builder = GraphBuilder(name)
    return builder, [builder.param(f"p{n}", v.type) for n, v in enumerate(operands)]


def _body(
    random: Random, name: str, operands: Sequence[Value], results: Sequence[TensorType], depth: int, counts: int = -1
) -> Graph:
    """A body that gives tensors of some types. counts: the position among them of what is counted on by one."""
    b, params = _begun(f"{name}{depth}", operands)
    shape = results[0 if counts != 0 else 1].shape
    known = [p for p in params if p.type.dtype.is_float and p.type.shape == shape]
    matrix = next((p for p in params if p.type.dtype.is_float and p.type.shape == (shape[1], shape[1])), None)
    flag = next((p for p in params if p.type.dtype == boolean), None)
    count = params[counts] if counts >= 0 else None
    makers: list[Callable[[], Value]] = [
        lambda: b.emit(random.choice(("add", "sub", "mul", "maximum")), random.choice(known), random.choice(known)),
        lambda: b.emit(random.choice(("tanh", "sin", "sigmoid", "neg", "abs")), random.choice(known)),
        lambda: b.emit("softmax", random.choice(known), axis=random.randint(0, 1)),
        lambda: b.emit("broadcast", b.emit("sum", random.choice(known), axes=(0,)), shape=shape),
        lambda: b.emit("flip", random.choice(known), axes=(random.randint(0, 1),)),
    ]
    if matrix is not None:
        makers.append(lambda: b.emit("tanh", b.emit("linear", random.choice(known), matrix)))
    if count is not None:
        makers.append(lambda: _put(b, random.choice(known), random.choice(known), count))
    if depth < _DEEPEST and flag is not None:
        makers.append(lambda: _inner(random, b, [*random.sample(known, 1), *known[-1:], *params], flag, count, depth))
    for _ in range(random.randint(0, 4)):
        known.append(random.choice(makers)())
    found = [random.choice(known if random.random() < 0.5 else known[-2:]) for _ in results]
    if count is not None:
        found[counts] = b.emit("add", count, b.emit("full", shape=(), value=1, dtype=i64))
    return b.build(tuple(found))


def _put(b: GraphBuilder, x: Value, rows: Value, count: Value) -> Value:
    """A row of x, the one that is counted at, in another's place."""
    size = b.emit("full", shape=(), value=int(x.type.shape[0]), dtype=i64)
    place = b.emit("reshape", b.emit("mod", count, size), shape=(1,))
    row = b.emit("slice", rows, axis=0, start=0, end=1, step=1)
    return b.emit("index_put", x, row, place, axes=(0,))


def _inner(
    random: Random, b: GraphBuilder, operands: Sequence[Value], flag: Value, count: Value | None, depth: int
) -> Value:
    """The first result of a branch within a body, on a flag or on what is counted."""
    holds = flag
    if count is not None and random.random() < 0.7:
        holds = b.emit("lt", count, b.emit("full", shape=(), value=random.randint(0, 3), dtype=i64))
    type = operands[0].type
    ways = tuple(_body(random, name, operands, [type, type], depth + 1) for name in ("then", "else"))
    return b.node("cond", holds, *operands, regions=ways).results[random.randint(0, 1)]

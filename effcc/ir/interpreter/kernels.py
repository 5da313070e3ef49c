"""Kernels run with NumPy, statement by statement: the meaning of a cascade."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from effcc.errors import InputError
from effcc.ir.dims import evaluate as evaluate_size
from effcc.ir.dtypes import DType
from effcc.ir.interpreter.evaluate import Array, Evaluator, bind_sizes, pieces
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.loops import LoopNest
from effcc.ir.scalars import FUNCTIONS, REDUCTIONS


def run_kernel(
    kernel: Kernel, arrays: Mapping[str, Any], sizes: Mapping[str, int] | None = None, dtype: DType | None = None
) -> dict[str, Array]:
    """The outputs of `kernel`, by name.

    `arrays` holds the parameters by name; an output among them is that output's content before the kernel runs (a
    buffer updated in place), and is not changed. `dtype=f64` widens all floating computation, the reference of tests
    and of the fuzzer. Raises InputError on missing or misfitting arrays and on loads outside a buffer.
    """
    given, bound = bound_arrays(kernel, arrays, sizes, dtype)
    ranges = {name: range(evaluate_size(extent, bound)) for name, extent in kernel.axes}
    definitions: dict[str, Statement] = {}
    evaluator = Evaluator(given, ranges, bound, dtype, definitions)
    provide_outputs(kernel, given, evaluator)
    with np.errstate(all="ignore"):
        for group in scan_groups(kernel):
            for statement in group:
                if statement.target not in given:
                    shape = tuple(len(ranges[a]) for a in statement.axes)
                    given[statement.target] = blank(shape, evaluator.numpy(statement.dtype))
                definitions.setdefault(statement.target, statement)
            for local in _scan_points(evaluator, kernel, group):
                for statement in group:
                    run_statement(local, statement)
    return {output.name: given[output.name] for output in kernel.outputs}


def bound_arrays(
    kernel: Kernel | LoopNest, arrays: Mapping[str, Any], sizes: Mapping[str, int] | None, dtype: DType | None
) -> tuple[dict[str, Array], dict[str, int]]:
    """The arrays of the parameters, and of those outputs that are given, checked and widened, and the size symbols."""
    found: dict[str, Array] = {}
    for param in kernel.params:
        if param.name not in arrays:
            got = ", ".join(arrays) or "none"
            raise InputError(f"@{kernel.name} needs the parameter {param.name!r}; got {got}")
    for param in kernel.signature:
        if param.name in arrays:
            found[param.name] = as_dtype(arrays[param.name], param.type.dtype, dtype, param.name)
    declared = {p.name: p.type.shape for p in kernel.signature}
    return found, bind_sizes({name: (declared[name], array.shape) for name, array in found.items()}, sizes)


def provide_outputs(kernel: Kernel | LoopNest, buffers: dict[str, Array], evaluator: Evaluator) -> None:
    """Give the outputs buffers of their own: a copy of what is given for one, else blank."""
    for output in kernel.outputs:
        shape = tuple(evaluate_size(d, evaluator.sizes) for d in output.type.shape)
        before = buffers.get(output.name)
        made = blank(shape, evaluator.numpy(output.type.dtype)) if before is None else before.copy()
        buffers[output.name] = made


def as_dtype(array: Any, expected: DType, wide: DType | None, name: str) -> Array:
    """`array`, which must have the expected dtype (or already the wide one), widened if asked."""
    value = np.asarray(array)
    if wide is not None and expected.is_float:
        return value.astype(wide.numpy, copy=False)
    if value.dtype != expected.numpy:
        raise InputError(f"{name!r}: expected {expected.name}, got {value.dtype}")
    return value


def run_statement(evaluator: Evaluator, statement: Statement) -> None:
    """Write the statement's points into its target."""
    target = evaluator.buffers[statement.target]
    for box in pieces(statement.axes, statement.value, evaluator.ranges):
        local = evaluator.at(**box)
        value = local(statement.value, statement.axes)
        if statement.scatter is None:
            target[tuple(slice(r.start, r.stop) for r in box.values())] = value
            continue
        index = [np.asarray(local(i, statement.axes), np.int64) for i in statement.scatter.index]
        write(target, index, value, statement.scatter.combine, tuple(len(r) for r in box.values()), statement.target)


def write(target: Array, index: Sequence[Array], value: Array, combine: str, shape: Sequence[int], name: str) -> None:
    """Store or combine `value` at `index`, for a box of `shape`, in order, where no index is -1.

    Raises InputError outside the buffer.
    """
    for position, (i, size) in enumerate(zip(index, target.shape, strict=True)):
        if i.size and (i.min() < -1 or i.max() >= size):
            bad = int(i.min()) if i.min() < -1 else int(i.max())
            raise InputError(f"store to {name!r}: index {bad} in dimension {position}, whose size is {size}")
    value = np.broadcast_to(value, shape).astype(target.dtype, copy=False)
    key = tuple(np.broadcast_to(i, shape) for i in index)
    if any((i < 0).any() for i in key):
        written = np.logical_and.reduce([i >= 0 for i in key])
        value, key = value[written], tuple(i[written] for i in key)
    if combine == "set":
        target[key] = value if index else value.reshape(-1)[-1]
    elif value.size:
        ufunc = combiner(combine)
        ufunc.at(target, key, value) if index else target.__setitem__((), ufunc.reduce([target[()], *value.ravel()]))


def combiner(combine: str) -> Any:
    """The ufunc of a combine: a reduction's name or a scalar function's (`add`, `sum`, `max`, `maximum`, ...)."""
    return FUNCTIONS[REDUCTIONS[combine].combine if combine in REDUCTIONS else combine].reference


def scan_groups(kernel: Kernel) -> list[list[Statement]]:
    """The statements in order, those that read each other's earlier points along a scan axis together."""
    groups: list[list[Statement]] = []
    position = 0
    statements = kernel.statements
    while position < len(statements):
        end = position
        defined = {s.target for s in statements[:position]}
        index = position
        while index <= end:
            wanted = {load.buffer for load in statements[index].reads} - defined
            later = [j for j in range(index, len(statements)) if statements[j].target in wanted]
            end = max([end, *later])
            index += 1
        groups.append(list(statements[position : end + 1]))
        position = end + 1
    return groups


def _scan_points(evaluator: Evaluator, kernel: Kernel, group: Sequence[Statement]) -> Iterator[Evaluator]:
    """The whole box at once; for a group that reads its own points, one step of its scan axes after the other."""
    targets = {s.target for s in group}
    recurrent = len(group) > 1 or any(load.buffer in targets for s in group for load in s.reads)
    axes = [a for a in kernel.scans if all(a in s.axes for s in group)] if recurrent else []
    if not axes:
        yield evaluator
        return
    for point in product(*(evaluator.ranges[a] for a in axes)):
        yield evaluator.at(**{a: range(p, p + 1) for a, p in zip(axes, point, strict=True)})


def blank(shape: Sequence[int], dtype: Any) -> Array:
    """Storage nobody has written yet: NaN in floating types, so that a read of it shows."""
    fill = math.nan if np.issubdtype(dtype, np.floating) or dtype.kind == "V" else 0
    return np.full(shape, fill, dtype)

"""Concatenations of many tensors: one call for each, which copies it to its place (`effcc/copy.h`)."""

from __future__ import annotations

from collections.abc import Mapping

from effcc.codegen.cpp.sizes import size_text
from effcc.ir.dims import Dim, dim, same
from effcc.ir.program import Join, Program

Box = list[tuple[Dim, Dim, Dim]]
"""Loops, outermost first: a size, and the strides of what is written and of what is read."""


def join_calls(step: Join, program: Program, pointers: Mapping[str, str]) -> list[tuple[tuple[str, ...], str]]:
    """The calls of a join, each with the buffers it touches. `pointers` names the pointer of every buffer."""
    (result,) = step.results
    layout = program.buffer(result).type.layout
    calls: list[tuple[tuple[str, ...], str]] = []
    start: Dim = 0
    for turn, name in enumerate(step.arguments):
        type = program.buffer(name).type
        place = size_text(dim(start * layout[step.axis]))
        start = dim(start + type.shape[step.axis])
        if 0 in type.shape:
            continue
        loops = _merged([*zip(type.shape, layout, type.layout, strict=True)])
        columns = ", ".join("{" + ", ".join(size_text(d) for d in column) + "}" for column in zip(*loops, strict=True))
        to = pointers[result] + (f" + {place}" if place != "0" else "")
        box = f"box<{len(loops)}>{{{columns}}}"
        calls.append(((name, result), f"copy_box({to}, {pointers[name]}, {box}, {turn}, me);"))
    return calls


def _merged(loops: Box) -> Box:
    """Neighbouring loops as one where both tensors go on as if they were."""
    merged: Box = [loops[0]]
    for size, to, source in loops[1:]:
        before, to_before, from_before = merged[-1]
        if same(to_before, dim(size * to)) and same(from_before, dim(size * source)):
            merged[-1] = (dim(before * size), to, source)
        else:
            merged.append((size, to, source))
    return merged

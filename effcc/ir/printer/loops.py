"""Loop nests as text: nested blocks, one line for each tile statement."""

from __future__ import annotations

import json
from collections.abc import Iterator

from effcc.ir.dtypes import DType, boolean, i64
from effcc.ir.loops import Alloc, For, If, LoopNest, Stmt, Tile, TileAxis
from effcc.ir.printer.expressions import show_expression, show_index
from effcc.ir.printer.kernels import show_given, show_params


def print_loops(nest: LoopNest, indent: str = "") -> str:
    """The text of a loop nest."""
    signature = f"({show_params(nest.params)}) -> ({show_params(nest.outputs)})"
    lines = [f"loops @{nest.name}{signature}{show_given(nest.given_sizes)} {{"]
    lines += [f"  note {json.dumps(note)}" for note in nest.notes]
    dtypes = {p.name: p.type.dtype for p in (*nest.params, *nest.outputs)}
    lines += _Block(frozenset(), dtypes).lines(nest.body, "  ")
    return "\n".join(indent + line for line in [*lines, "}"])


class _Block:
    """Prints the statements of one block, with the loop variables and buffers that are in scope there."""

    def __init__(self, axes: frozenset[str], dtypes: dict[str, DType]) -> None:
        self.axes = axes
        self.dtypes = dict(dtypes)

    def lines(self, body: tuple[Stmt, ...], indent: str) -> Iterator[str]:
        for statement in body:
            match statement:
                case Alloc(name, dtype, shape, space):
                    self.dtypes[name] = dtype
                    yield f"{indent}alloc {name}: {dtype.name}[{','.join(map(str, shape))}] in {space}"
                case Tile():
                    yield indent + self._tile(statement)
                case For():
                    yield from self._for(statement, indent)
                case If():
                    yield from self._if(statement, indent)

    def _for(self, loop: For, indent: str) -> Iterator[str]:
        start, stop = (show_expression(e, self.axes, i64) for e in (loop.start, loop.stop))
        keyword = "for" if loop.kind == "serial" else loop.kind
        yield f"{indent}{keyword} {loop.axis} in {start}..{stop} step {loop.step} {{"
        yield from _Block(self.axes | {loop.axis}, self.dtypes).lines(loop.body, indent + "  ")
        yield f"{indent}}}"

    def _if(self, branch: If, indent: str) -> Iterator[str]:
        yield f"{indent}if {show_expression(branch.condition, self.axes, boolean)} {{"
        yield from _Block(self.axes, self.dtypes).lines(branch.body, indent + "  ")
        if branch.orelse:
            yield f"{indent}}} else {{"
            yield from _Block(self.axes, self.dtypes).lines(branch.orelse, indent + "  ")
        yield f"{indent}}}"

    def _tile(self, tile: Tile) -> str:
        axes = ", ".join(self._axis(a) for a in tile.axes)
        inside = self.axes | {a.name for a in tile.axes}
        index = show_index(tile.index, inside)
        value = show_expression(tile.value, inside, self.dtypes.get(tile.buffer))
        sign = "=" if tile.combine == "set" else f"{tile.combine}="
        return f"tile{' ' if axes else ''}{axes}: {tile.buffer}{index} {sign} {value}"

    def _axis(self, axis: TileAxis) -> str:
        text = f"{axis.name}={axis.extent} {axis.kind}"
        return text if axis.limit is None else f"{text} limit {show_expression(axis.limit, self.axes, i64)}"

"""Schedules: the tree as it is written, with the place of every node, for errors that are found later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lark import Token, Tree

from effcc.errors import ScheduleError
from effcc.ir.kernel import Kernel
from effcc.ir.parser.limits import whole
from effcc.ir.parser.syntax import Source, Syntax, tokens, trees
from effcc.ir.parser.types import literal
from effcc.ir.schedule import PARALLEL, SERIAL, Do, Hold, Loop, Node, Pack, Path, Schedule
from effcc.ir.verifier.schedules import Machine, verify_schedule


@dataclass(frozen=True)
class WrittenSchedule:
    """A schedule as somebody wrote it: of which kernel, and where each of its nodes stands in the text."""

    kernel: str
    schedule: Schedule
    source: Source
    places: Mapping[Path, Syntax | Token]

    def check(self, kernel: Kernel, machine: Machine | None = None) -> Schedule:
        """The schedule, if it fits the kernel and the machine; else ScheduleError, with line, column and caret."""
        try:
            verify_schedule(kernel, self.schedule, machine)
        except ScheduleError as error:
            path = getattr(error, "path", ())
            with self.source.at(self.places[path]):
                raise
        return self.schedule


def read_schedule(source: Source, tree: Syntax) -> WrittenSchedule:
    """The schedule of a `schedule` tree."""
    at, warps, seconds, *rest = tree.children
    parts = [part for part in rest if isinstance(part, Tree)]
    places: dict[Path, Syntax | Token] = {(): at if isinstance(at, Token) else tree}
    notes = tuple(literal(token) for part in parts if part.data == "note" for token in tokens(part))
    packs: list[Pack] = []
    for part in (part for part in parts if part.data == "pack"):
        places[(-1 - len(packs),)] = part
        packs.append(_pack(part))
    body = [part for part in parts if part.data not in ("note", "pack")]
    schedule = Schedule(
        _nodes(body, (), places), tuple(packs), 0.0 if seconds is None else float(str(seconds)), notes,
        0 if warps is None else whole(str(warps)),
    )  # fmt: skip
    return WrittenSchedule(str(at)[1:], schedule, source, places)


def _pack(tree: Syntax) -> Pack:
    buffer, axis, width, order, group = tree.children
    names = tuple(str(t) for t in tokens(order)) if isinstance(order, Tree) else ()
    return Pack(str(buffer), str(axis), whole(str(width)), names, 1 if group is None else whole(str(group)))


def _nodes(body: list[Syntax], path: Path, places: dict[Path, Syntax | Token]) -> tuple[Node, ...]:
    return tuple(_node(part, (*path, number), places) for number, part in enumerate(body))


def _node(tree: Syntax, path: Path, places: dict[Path, Syntax | Token]) -> Node:
    if tree.data == "do":
        (places[path],) = tokens(tree)
        return Do(str(places[path]))
    inside = trees(trees(tree, "nodes")[0])
    if tree.data == "hold":
        names, space = trees(tree, "some_names")[0], tokens(tree)[0]
        places[path] = tree
        return Hold(tuple(str(t) for t in tokens(names)), str(space), _nodes(inside, path, places))
    kind = PARALLEL if tree.data == "spread" else SERIAL
    cuts = trees(tree, "cut")
    for depth, cut in enumerate(cuts):
        places[(*path, *(0,) * depth)] = cut
    node = _nodes(inside, (*path, *(0,) * (len(cuts) - 1)), places)
    for cut in reversed(cuts):
        axis, step, together, stages = cut.children
        node = (
            Loop(
                kind, str(axis), whole(str(step)), node, "" if together is None else str(together),
                1 if stages is None else whole(str(stages)),
            ),
        )  # fmt: skip
    return node[0]

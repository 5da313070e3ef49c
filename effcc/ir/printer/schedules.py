"""Schedules as text: a line for each group of loops right inside one another, each hold and each statement."""

from __future__ import annotations

import json
from collections.abc import Iterator

from effcc.ir.schedule import PARALLEL, Do, Hold, Loop, Node, Schedule


def print_schedule(name: str, schedule: Schedule, indent: str = "") -> str:
    """The text of the schedule of the kernel `name`."""
    header = f"schedule @{name}"
    if schedule.warps:
        header += f" warps {schedule.warps}"
    if schedule.seconds:
        header += f" predicted {float(schedule.seconds)!r}"
    lines = [header + " {"]
    lines += [f"  note {json.dumps(note)}" for note in schedule.notes]
    for pack in schedule.packs:
        order = f" order {', '.join(pack.order)}" if pack.order else ""
        group = f" group {pack.group}" if pack.group > 1 else ""
        lines.append(f"  pack {pack.buffer} along {pack.axis} by {pack.width}{order}{group}")
    lines += _lines(schedule.body, "  ")
    return "\n".join(indent + line for line in [*lines, "}"])


def _lines(body: tuple[Node, ...], indent: str) -> Iterator[str]:
    for node in body:
        match node:
            case Loop():
                cuts, inside = _together(node)
                yield from _block(f"{node.kind} {', '.join(cuts)}", inside, indent)
            case Hold(targets, space, inside):
                yield from _block(f"hold {', '.join(targets)} in {space}", inside, indent)
            case Do(target):
                yield f"{indent}do {target}"


def _block(head: str, inside: tuple[Node, ...], indent: str) -> Iterator[str]:
    """A block; on one line where only a statement is in it."""
    match inside:
        case (Do(target),):
            yield f"{indent}{head} {{ do {target} }}"
        case _:
            yield f"{indent}{head} {{"
            yield from _lines(inside, indent + "  ")
            yield f"{indent}}}"


def _together(loop: Loop) -> tuple[list[str], tuple[Node, ...]]:
    """The cuts of a loop and of the loops of its kind right inside it, and what stands in the innermost.

    A serial loop over tiles that are cut again has a line of its own.
    """
    match loop.body:
        case (Loop(kind) as inner,) if kind == loop.kind and (kind == PARALLEL or (_places(loop) and _places(inner))):
            cuts, inside = _together(inner)
            return [_cut(loop), *cuts], inside
    return [_cut(loop)], loop.body


def _places(loop: Loop) -> bool:
    return bool(loop.together) or loop.step == 1


def _cut(loop: Loop) -> str:
    together = f" {loop.together}" if loop.together else ""
    stages = f" stages {loop.stages}" if loop.stages > 1 else ""
    return f"{loop.axis} by {loop.step}{together}{stages}"

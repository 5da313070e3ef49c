"""The compiler's thresholds set so that graphs of some dozen elements are as what only large models are otherwise.

A pass that pays from 65,000 points on, a concatenation that is cut into groups of 32, a function that is cut after 128
calls: each has its code, and its remainders, which small graphs never reach. These thresholds say what pays, not what
is right, so whatever they are the results must be the same.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from random import Random

SET = "set "
THRESHOLDS: Mapping[str, Sequence[int]] = {
    "ir.table.movement.MOST_PIECES": (2, 3),
    "passes.columns._ROWS": (1, 2),
    "passes.constant_folding.LARGEST_EVALUATED": (1, 16),
    "passes.fusion.cascade.LARGEST_CONCAT": (1, 2, 3),
    "passes.fusion.cluster.LARGEST_KERNEL": (4, 32),
    "passes.fusion.cluster.LONG": (1, 4),
    "passes.fusion.cluster.MOST_BUFFERS": (3, 5),
    "passes.fusion.cluster.SMALL": (1, 64),
    "passes.fusion.inline.LARGEST_EXPRESSION": (1, 4, 1000),
    "passes.fusion.split.FEW": (1, 100_000),
    "passes.fusion.split.LIMIT": (1, 2),
    "passes.group_norms._LEAST_POINTS": (1,),
    "passes.halves._COLUMNS": (1, 4),
    "passes.halves._POINTS": (1,),
    "passes.inputs.ROWS": (1, 4),
    "passes.known_places.MOST_PIECES": (1, 9),
    "passes.layout.LARGEST_TABLE": (1, 4),
    "passes.parts._LONG": (16, 64),
    "passes.reroll.SHORTEST": (2, 3),
    "passes.sub_pixel._MOST": (1, 2),
    "codegen.cpp.calls_together.AT_ONCE": (2, 5),
    "codegen.cpp.lifted.MOST_NUMBERS": (1, 3),
    "codegen.cpp.outline._INLINED": (1, 2),
    "codegen.cpp.printer._STACK_LIMIT": (64, 512),
    "codegen.cpp.program.MOST_CALLS": (1, 2, 3),
    "codegen.cpp.short_loops._MANY_SUMS": (1, 2),
    "codegen.cpp.short_loops._WRITTEN_OUT": (2, 5),
}
"""By module, under `effcc`, and name."""


def draw_thresholds(random: Random) -> tuple[str, ...]:
    """About half of them, set."""
    chosen = sorted(random.sample(sorted(THRESHOLDS), len(THRESHOLDS) // random.choice((2, 2, 4, 8))))
    return tuple(f"{SET}{name}={random.choice(THRESHOLDS[name])}" for name in chosen)


@contextlib.contextmanager
def thresholds(changes: Sequence[str]) -> Iterator[None]:
    """The thresholds among these changes set in their modules; as they were afterwards."""
    held: list[tuple[object, str, int]] = []
    try:
        for change in changes:
            if change.startswith(SET):
                path, value = change.removeprefix(SET).split("=")
                home, name = f"effcc.{path}".rsplit(".", 1)
                module = importlib.import_module(home)
                held.append((module, name, getattr(module, name)))
                setattr(module, name, int(value))
        yield
    finally:
        for of, name, before in reversed(held):
            setattr(of, name, before)

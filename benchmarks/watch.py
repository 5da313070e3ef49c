"""What it costs to know whether weights changed: a call with each way to watch them beside one that does not look.

python -m benchmarks.watch
python -m benchmarks.watch --models minilm --seconds 20

The sides are copies of one model, compiled to one program, and race in turn. "looking" is the watch alone, between
calls; "first" is what preparing costs more for it; "after writes" is a call's look after all weights were written with
what they held (the digests of all of them).
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks import table
from benchmarks.models import ZOO
from benchmarks.race import race
from effcc.backend import programs_of
from effcc.runtime.watch import METHODS, Watch

WIDTH, DEPTH = 4096, 8  # 512 MB


class NoWatch(Watch):
    """Does not look."""

    def unchanged(self) -> bool:
        return True


def minilm() -> tuple[nn.Module, tuple[Any, ...]]:
    """The trained sentence encoder at 32 tokens."""
    return ZOO["minilm"].build(), ZOO["minilm"].inputs(0)


def large() -> tuple[nn.Module, tuple[Any, ...]]:
    """512 MB of weights, 32 rows of input."""
    layers = [nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(DEPTH)]
    return nn.Sequential(*layers).eval(), (torch.randn(32, WIDTH),)


MODELS: dict[str, Callable[[], tuple[nn.Module, tuple[Any, ...]]]] = {"minilm": minilm, "large": large}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="of " + ", ".join(MODELS))
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each race runs")
    options = parser.parse_args()
    rows = []
    for name in options.models.split(","):
        rows += measure(name, *MODELS[name](), options.seconds)
    columns = ["", "watched MB", "call ms", "speed vs off", "looking ms", "first ms", "after writes ms"]
    table.show(f"Watching weights, {torch.get_num_threads()} threads", columns, rows)


def measure(name: str, model: nn.Module, args: tuple[Any, ...], seconds: float) -> list[list[str]]:
    """A row for each way to watch."""
    sides: dict[str, Callable[..., Any]] = {}
    watches: dict[str, Watch] = {}
    for side in ("off", *METHODS):
        os.environ["EFFCC_WATCH"] = side if side in METHODS else "checksum"
        compiled = torch.compile(copy.deepcopy(model), backend="effcc")
        with torch.no_grad():
            compiled(*args)
        made = max((p.executable._prepared[0] for p in programs_of(compiled) if p.executable._prepared), key=_bytes)
        if side == "off":
            object.__setattr__(made.seen, "watch", NoWatch(()))
        sides[side], watches[side] = compiled, made.seen.watch
    timings = race(sides, args, baseline="off", budget_s=seconds)
    rows = []
    for side, timing in timings.items():
        watch, row = watches[side], [f"{name}, {side}"]
        if side == "off":
            rows.append([*row, "-", f"{timing.median * 1e3:.2f}", "1.00x", "-", "-", "-"])
            continue
        os.environ["EFFCC_WATCH"] = side
        ranges = watch._pieces.pairs
        looking = statistics.median(_seconds(watch.unchanged) for _ in range(20))
        first = _seconds(lambda ranges=ranges: Watch(ranges, threads=torch.get_num_threads()))  # type: ignore[misc]
        _rewrite(sides[side])
        after = _seconds(watch.unchanged)
        figures = [f"{1e3 * t:.3f}" for t in (looking, first, after)]
        rows.append([*row, f"{_bytes(made) / 1e6:.0f}", f"{timing.median * 1e3:.2f}", f"{timing.speed:.3f}x", *figures])
    return rows


def _bytes(made: Any) -> int:
    return sum(size for _, size in made.seen.watch._pieces.pairs)


def _seconds(call: Callable[[], Any]) -> float:
    before = time.perf_counter()
    assert call() is not False
    return time.perf_counter() - before


def _rewrite(compiled: Any) -> None:
    """Write every parameter with what it holds, past the version counter."""
    for p in compiled._orig_mod.parameters():
        p.data.copy_(p.data.clone())


if __name__ == "__main__":
    main()

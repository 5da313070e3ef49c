"""The ten models through effcc: do they compile whole, are they right, what runs in PyTorch, how fast beside eager.

python -m benchmarks.zoo                       # all, at the measured sizes
python -m benchmarks.zoo bert lstm --peers eager,inductor,effcc
python -m benchmarks.zoo --further             # kinds of networks beyond these
python -m benchmarks.zoo --tiny --seconds 1    # a quick look at correctness
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import statistics
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.utils import counters

from benchmarks import table
from benchmarks.further_models import FURTHER
from benchmarks.models import TINY, ZOO, Model
from benchmarks.peers import PEERS, Peer
from benchmarks.race import race
from benchmarks.subject import stats
from effcc.accuracy import Report, check
from effcc.frontend.widened import reference


@dataclasses.dataclass(frozen=True)
class Row:
    """One model through one peer. `failure` is empty where it ran; `speed` is against the first peer asked for."""

    model: str
    peer: str
    failure: str = ""
    graphs: int = 0
    graph_breaks: int = 0
    right: bool = False
    error: float = 0.0
    eager_error: float = 0.0
    first_call_s: float = 0.0
    median_s: float = 0.0
    best_s: float = 0.0
    speed: float = 0.0
    externs: dict[str, int] = dataclasses.field(default_factory=dict)


def measure(
    entry: Model, peers: list[Peer], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> list[Row]:
    """Compile one model with every peer, compare each with the reference, then race those that ran."""
    model, args = entry.build(), entry.inputs(0)
    with torch.no_grad():
        eager = model(*args)  # first: models of transformers set themselves up in a way that cannot be captured
        wide = reference(model, *args)
        rows, runs = {}, {}
        for peer in peers:
            counters.clear()
            started = time.perf_counter()
            try:
                run = peer.build(model, args)
                result = run(*args)
            except Exception as error:  # a peer's failure is a result here, and is printed
                traceback.print_exc()
                rows[peer.name] = Row(entry.name, peer.name, failure=f"{type(error).__name__}: {error}"[:200])
                continue
            first_call = time.perf_counter() - started
            report: Report = check(wide, eager, like(eager, result))
            program = stats(run) if peer.name == "effcc" else None
            runs[peer.name] = run
            rows[peer.name] = Row(
                entry.name,
                peer.name,
                graphs=counters["stats"]["unique_graphs"],
                graph_breaks=sum(counters["graph_break"].values()),
                right=report.ok,
                error=report.worst.max_error,
                eager_error=report.worst.eager_max_error,
                first_call_s=first_call,
                externs=dict(program.externs) if program else {},
            )
        timings = race(runs, args, next(iter(runs)), seconds, clock=clock) if runs else {}
    for name, timing in timings.items():
        rows[name] = dataclasses.replace(rows[name], median_s=timing.median, best_s=timing.best, speed=timing.speed)
    return list(rows.values())


def like(eager: Any, result: Any) -> Any:
    """A peer's result in eager's structure: the runtimes over ONNX give lists or mappings of arrays."""
    if isinstance(result, torch.Tensor) or (isinstance(result, tuple) and isinstance(result[0], torch.Tensor)):
        return result
    values = list(result.values()) if hasattr(result, "values") else list(result)
    found = [torch.from_numpy(value) for value in values]
    return tuple(found) if isinstance(eager, tuple) else found[0]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="of " + ", ".join((*ZOO, *FURTHER)))
    parser.add_argument("--further", action="store_true", help="all of benchmarks.further_models, if none is named")
    parser.add_argument("--peers", default="eager,effcc", help="of " + ", ".join(PEERS))
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each model's race runs")
    parser.add_argument("--tiny", action="store_true", help="the sizes that tests use")
    parser.add_argument("--batch", type=int, default=1, help="how many inputs at once; llama_decode takes only one")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="for every side")
    parser.add_argument("--processors", action="store_true", help="count the process's CPU time; for one thread")
    parser.add_argument("--json", type=Path, help="also write the figures here, after each model")
    options = parser.parse_args()
    zoo = TINY if options.tiny else {**ZOO, **FURTHER}
    if unknown := sorted({*options.models} - {*zoo}):
        parser.error(f"no model {', '.join(unknown)}; expected some of {', '.join(zoo)}")
    torch.set_num_threads(options.threads)
    peers = [PEERS[name] for name in options.peers.split(",")]
    peers = [peer for peer in peers if not table.skip_missing(peer)]
    rows: list[Row] = []
    all_of = FURTHER if options.further else TINY if options.tiny else ZOO
    for name in options.models or [n for n, model in all_of.items() if model.batched or options.batch == 1]:
        print(f"{name} ...", flush=True)
        try:
            entry = zoo[name].of_batch(options.batch)
        except ValueError as error:
            parser.error(str(error))
        rows += measure(entry, peers, options.seconds, time.process_time if options.processors else time.perf_counter)
        if options.json:
            options.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
        torch.compiler.reset()
        gc.collect()
    show(rows, options.batch)


def beside_the_best(rows: list[Row], peer: str) -> str:
    """How many times as fast as the quickest side that is not effcc a peer was: of each model, and the mean."""
    ratios = {}
    for row in rows:
        others = [r.speed for r in rows if r.model == row.model and r.speed and not r.peer.startswith("effcc")]
        if row.peer == peer and row.speed and others:
            ratios[row.model] = row.speed / max(others)
    if not ratios:
        return f"{peer} ran beside nobody"
    each = ", ".join(f"{model} {ratio:.2f}" for model, ratio in ratios.items())
    return f"{peer} beside the best: {each}; geometric mean {statistics.geometric_mean(ratios.values()):.2f}"


def show(rows: list[Row], batch: int) -> None:
    """Print the table."""
    columns = ["model", "through", "result", "graphs", "breaks", "max error", "eager's"]
    columns += ["first call s", "median ms", "best ms", "speed", "externs"]
    cells = []
    for row in rows:
        if row.failure:
            cells.append([row.model, row.peer, row.failure[:60], *["-"] * 9])
            continue
        cells.append(
            [
                row.model,
                row.peer,
                "right" if row.right else "WRONG",
                str(row.graphs),
                str(row.graph_breaks),
                f"{row.error:.2e}",
                f"{row.eager_error:.2e}",
                f"{row.first_call_s:.1f}",
                f"{row.median_s * 1e3:.2f}",
                f"{row.best_s * 1e3:.2f}",
                f"{row.speed:.2f}x",
                table.counts(row.externs) if row.peer == "effcc" else "-",
            ]
        )
    ours = sorted({row.peer for row in rows if row.peer.startswith("effcc")})
    for peer in ours:
        print(beside_the_best(rows, peer))
    table.show(f"The zoo, fp32, batch {batch}, {torch.get_num_threads()} threads", columns, cells)


if __name__ == "__main__":
    main()

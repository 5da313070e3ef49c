"""MiniLM while another process takes one of the cores: effcc and its peers in turn, median and 90th percentile.

python -m benchmarks.busy --peers effcc,onnxruntime,openvino

The other process spins on one core. A compiler that deals work out evenly then waits for the slow half of every
kernel; one whose threads spin at barriers also takes from the other process what it needs itself.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
from collections.abc import Iterator

import torch

from benchmarks import table
from benchmarks.models import ZOO
from benchmarks.peers import PEERS
from benchmarks.race import race


def _spin(core: int) -> None:
    os.sched_setaffinity(0, {core})
    while True:
        pass


@contextlib.contextmanager
def busy(cores: int) -> Iterator[None]:
    """So many cores, the first of those this process may run on, are taken by other processes."""
    context = multiprocessing.get_context("spawn")
    taken = sorted(os.sched_getaffinity(0))[:cores]
    others = [context.Process(target=_spin, args=(core,), daemon=True) for core in taken]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.terminate()
            other.join()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="effcc,onnxruntime", help="of " + ", ".join(PEERS))
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each race runs")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="for every side")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = [name for name in options.peers.split(",") if not table.skip_missing(PEERS[name])]
    model, args = ZOO["minilm"].build(), ZOO["minilm"].inputs(0)
    with torch.no_grad():
        runs = {name: PEERS[name].build(model, args) for name in names}
    race(runs, args, baseline=names[0], budget_s=1.0)
    rows = []
    for taken in (0, 1):
        with busy(taken):
            timings = race(runs, args, baseline=names[-1], budget_s=options.seconds)
        for name, timing in timings.items():
            tenths = statistics.quantiles(timing.seconds, n=10)
            shown = [f"{1e3 * s:.2f}" for s in (timing.best, timing.median, tenths[-1])]
            rows.append([name, str(taken), *shown, f"{timing.speed:.2f}x"])
    title = f"MiniLM, 32 tokens, {options.threads} threads on {len(os.sched_getaffinity(0))} cores"
    columns = ["", "cores taken", "best ms", "median ms", "p90 ms", f"speed vs {names[-1]}"]
    table.show(title, columns, rows)


if __name__ == "__main__":
    main()

"""How near models come to what the machine can do, in turn with measuring that: arithmetic and bytes a second.

python -m benchmarks.limits minilm bert gpt2 vit llama_prefill llama_decode
python -m benchmarks.limits resnet50 --target avx2

A model's arithmetic is that of its kernels (a fused multiply-add counts two), its bytes those that they read and write
at least. Its limit is the time that all cores need for the one at the peak of fused multiply-adds from registers, or
for the other at the bandwidth of reading from memory, whichever is longer. Peak and bandwidth are measured anew before
and after every round, and a round counts only where both times found the same: where a virtual machine's cores are,
side by side or apart, changes every few seconds, and with it what they read at once by a factor of almost two.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import effcc
from benchmarks import table
from benchmarks.models import ZOO
from effcc.runtime.measure import measured
from effcc.target import Target

_SAME = 1.1
"""The limits before and after a round differ by this factor at most."""


def limit(flops: float, moved: float, target: Target) -> float:
    """Seconds that `flops` operations and `moved` bytes take at a machine's rates."""
    return max(flops / target.peak_flops, moved / target.memory_bandwidth)


def rounds(
    run: Callable[[], Any], flops: float, moved: float, target: Target, count: int, seconds: float
) -> list[tuple[float, float, Target]]:
    """Of rounds the best and the median seconds of a call, and the machine as it was before and after them: `count`
    rounds, or fewer of three times as many where the machine was not the same so often."""
    found: list[tuple[float, float, Target]] = []
    after = measured(target, again=True)
    for _ in range(3 * count):
        machine = after
        taken: list[float] = []
        started = time.perf_counter()
        while len(taken) < 3 or time.perf_counter() - started < seconds:
            before = time.perf_counter()
            run()
            taken.append(time.perf_counter() - before)
        after = measured(target, again=True)
        limits = [limit(flops, moved, m) for m in (machine, after)]
        if max(limits) <= _SAME * min(limits):
            found.append((min(taken), statistics.median(taken), machine))
        if len(found) == count:
            break
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="of " + ", ".join(ZOO))
    parser.add_argument("--target", default="host", help='"host", "avx512", "avx2" or "scalar"')
    parser.add_argument("--rounds", type=int, default=5, help="how often machine and model are measured")
    parser.add_argument("--seconds", type=float, default=0.7, help="how long the model runs in a round")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    if unknown := sorted({*options.models} - {*ZOO}):
        parser.error(f"no model {', '.join(unknown)}; expected some of {', '.join(ZOO)}")
    torch.set_num_threads(options.threads)
    rows = []
    for name in options.models or ZOO:
        model, args = ZOO[name].build(), ZOO[name].inputs(0)
        with torch.no_grad():
            compiled = effcc.compile(model, target=options.target, dynamic=False)
            for _ in range(3):
                compiled(*args)
            kernels = [k for p in effcc.explain(compiled, measure=False).programs for k in p.kernels]
            flops, moved = sum(k.flops for k in kernels), sum(k.bytes for k in kernels)
            here = Target.detect().with_isa(Target.parse(options.target).isa)
            found = rounds(partial(compiled, *args), flops, moved, here, options.rounds, options.seconds)
        torch.compiler.reset()
        if not found:
            print(f"{name} is left out: in none of {3 * options.rounds} rounds was the machine the same")
            continue
        best, median = (statistics.median(limit(flops, moved, machine) / r[i] for *r, machine in found) for i in (0, 1))
        peak, bandwidth = (
            statistics.median(getattr(machine, rate) for *_, machine in found)
            for rate in ("peak_flops", "memory_bandwidth")
        )
        bound = "arithmetic" if flops / peak > moved / bandwidth else "memory"
        times = [f"{1e3 * min(r[0] for r in found):.2f}", f"{1e3 * statistics.median(r[1] for r in found):.2f}"]
        rates = [f"{peak / 1e9:.0f}", f"{bandwidth / 1e9:.1f}"]
        work = [f"{flops / 1e9:.2f}", f"{moved / 1e6:.0f}"]
        shares = [f"{best:.0%}", f"{median:.0%}", str(len(found))]
        rows.append([name, *work, *rates, bound, *times, *shares])
    columns = ["model", "GFLOP", "MB", "GFLOP/s", "GB/s", "bound by", "best ms", "median ms", "best of limit", "median"]
    table.show(f"fp32, target {options.target}, {options.threads} threads", [*columns, "rounds"], rows)


if __name__ == "__main__":
    main()

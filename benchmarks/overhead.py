"""What a call costs beside its kernels: the whole call, Dynamo's guards, effcc's own part; caches warm and cold.

    python -m benchmarks.overhead mobilenet_v2 minilm

The kernels are left out. Cold is after a sweep over memory, as kernels leave caches behind. Microseconds of the calling
thread, which other processes disturb little: the least, and the median.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch._dynamo.eval_frame import _debug_get_cache_entry_list

from benchmarks.models import ZOO
from benchmarks.table import show
from effcc.runtime.executable import Executable

SWEPT = 24 << 20  # bytes


def thread_times(run: Callable[[], object], calls: int, sweep: torch.Tensor | None = None) -> str:
    """Microseconds of some calls, each after a sweep if there is one."""
    taken = []
    for _ in range(calls):
        if sweep is not None:
            sweep.add_(1)
        before = time.thread_time()
        run()
        taken.append(1e6 * (time.thread_time() - before))
    return f"{min(taken):.0f} ({statistics.median(taken):.0f})"


def parts(name: str) -> dict[str, Callable[[], object]]:
    """A model's call, and parts of it, apart from kernels."""
    model, args = ZOO[name].build(), ZOO[name].inputs(0)
    compiled = torch.compile(model, backend="effcc", dynamic=False)
    seen: list[tuple[Executable, tuple[torch.Tensor, ...]]] = []
    call = Executable.__call__

    def watched(executable: Executable, *inputs: torch.Tensor) -> Any:
        seen.append((executable, inputs))
        return call(executable, *inputs)

    with patch.object(Executable, "__call__", watched):
        compiled(*args)
    executable, inputs = seen[-1]
    for _ in range(3):
        compiled(*args)
    found: dict[str, Callable[[], object]] = {"the call": lambda: compiled(*args)}
    entries = _debug_get_cache_entry_list(type(model).forward.__code__)
    if entries:  # a module of PyTorch's own is compiled as a wrapper's code
        names = type(model).forward.__code__.co_varnames[1:]
        given = {"self": model, **dict(zip(names, args, strict=False))}
        found["guards"] = lambda: entries[0].guard_manager.check(given)
    found[f"effcc, {len(inputs)} inputs"] = lambda: executable(*inputs)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["mobilenet_v2", "minilm"])
    parser.add_argument("--calls", type=int, default=200)
    options = parser.parse_args()
    sweep = torch.zeros(SWEPT // 4)
    rows = []
    with torch.no_grad():
        for name in options.models:
            measured = parts(name)
            with patch.object(Executable, "_run", lambda *_: None):
                for part, run in measured.items():
                    rows.append([name, part, thread_times(run, options.calls), thread_times(run, options.calls, sweep)])
            torch.compiler.reset()
    show("Beside kernels, us: least (median)", ["model", "part", "warm", "cold"], rows)


if __name__ == "__main__":
    main()

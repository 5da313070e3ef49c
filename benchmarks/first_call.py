"""Times a model's first call in a process of its own, with an empty cache and again with a full one.

    python -m benchmarks.first_call minilm mobilenet_v2 --peers effcc,inductor   # a table
    python -m benchmarks.first_call llama_8 llama_24                             # how it grows with equal layers

Every torch.compile pays for capture before a backend starts: that is measured the same way (peer "capture") and set
apart. Beside seconds stand those of processors, compilers included: on a machine that others use too they tell more.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from benchmarks.models import LLAMA_TINY, TINY, ZOO, Model, llama_prefill, token_ids
from benchmarks.table import show

CAPTURE = "capture"
DEEP = {
    model.name: model
    for model in (
        Model(
            f"llama_{layers}",
            lambda layers=layers: llama_prefill({**LLAMA_TINY, "num_hidden_layers": layers}),  # type: ignore[misc]
            token_ids(64, 16),
            f"{layers} small layers",
        )
        for layers in (8, 24)
    )
}


@dataclasses.dataclass(frozen=True)
class FirstCall:
    """Seconds from the model in memory to its first result, without a cache (cold) and in another process with what
    that left behind (warm), and processors' seconds of both."""

    cold: float
    warm: float
    cold_cpu: float
    warm_cpu: float

    def beyond(self, base: FirstCall) -> FirstCall:
        """What it takes more than `base`, which leaves no cache."""
        return FirstCall(
            self.cold - base.cold, self.warm - base.cold, self.cold_cpu - base.cold_cpu, self.warm_cpu - base.cold_cpu
        )


def measure(model: str, peer: str, tiny: bool = False, timeout_s: float = 900.0, again: bool = True) -> FirstCall:
    """Measure `peer` on `model` in two fresh processes that share one fresh cache folder; unless `again`, in one."""
    with tempfile.TemporaryDirectory(prefix="effcc-first-call-") as cache:
        environment = os.environ | {"EFFCC_CACHE_DIR": cache, "TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor"}
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.first_call", model, "--here", peer]

        def call() -> dict[str, float]:
            process = subprocess.run(
                [*command, "--tiny"] if tiny else command,
                env=environment, capture_output=True, text=True, timeout=timeout_s, check=False,
            )  # fmt: skip
            if process.returncode:
                raise RuntimeError(f"the first call of {model} through {peer} failed:\n{process.stderr[-2000:]}")
            found: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
            return found

        cold = call()
        warm = call() if again else dict.fromkeys(cold, float("nan"))
        return FirstCall(cold["first_call_s"], warm["first_call_s"], cold["cpu_s"], warm["cpu_s"])


def report(models: Sequence[str], peers: Sequence[str], tiny: bool = False) -> None:
    """Print a table of first calls: capture, and what each peer takes beyond it, cold and warm."""
    rows = []
    for name in models:
        base = measure(name, CAPTURE, tiny, again=False)
        row = [name, f"{base.cold:.1f} ({base.cold_cpu:.1f})"]
        for peer in peers:
            more = measure(name, peer, tiny).beyond(base)
            row += [f"{more.cold:.1f} ({more.cold_cpu:.1f})", f"{more.warm:.1f} ({more.warm_cpu:.1f})"]
        rows.append(row)
    columns = [f"{p}, {how}" for p in peers for how in ("cold", "warm")]
    show("First calls beyond capture, in seconds (of processors)", ["model", CAPTURE, *columns], rows)


def main() -> None:
    """Print a table, or time one first call here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", choices=[*ZOO, *DEEP], default=[*ZOO, *DEEP])
    parser.add_argument("--peers", default="effcc", help="beside each other, with commas between them")
    parser.add_argument("--here", metavar="PEER", help="one measurement in this process, as JSON; caches as they are")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(_here(options.models[0], options.here, options.tiny)))
    else:
        report(options.models, options.peers.split(","), options.tiny)


def _here(name: str, peer: str, tiny: bool) -> dict[str, float]:
    """The first call in this process."""
    import torch

    from benchmarks.peers import PEERS

    entry = {**(TINY if tiny else ZOO), **DEEP}[name]
    model, args = entry.build(), entry.inputs(0)
    with torch.no_grad():
        model(*args)
        started, used = time.perf_counter(), _cpu()
        PEERS[peer].build(model, args)(*args)
        return {"first_call_s": time.perf_counter() - started, "cpu_s": _cpu() - used}


def _cpu() -> float:
    """The processors' seconds that this process and those that it waited for have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


if __name__ == "__main__":
    main()

"""Times a model's first call in a process of its own, with an empty cache and again with a full one.

    python -m benchmarks.first_call minilm effcc     # one measurement in this process, as JSON; caches as they are

What torch.compile costs before a backend starts is measured the same way (peer "capture"), so that it can be set apart.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time

from benchmarks.models import TINY, ZOO


@dataclasses.dataclass(frozen=True)
class FirstCall:
    """Seconds from the model in memory to its first result, without a cache and with the one that left behind."""

    cold: float
    warm: float


def measure(model: str, peer: str, tiny: bool = False, timeout_s: float = 900.0) -> FirstCall:
    """Measure `peer` on `model` in two fresh processes that share one fresh cache folder."""
    with tempfile.TemporaryDirectory(prefix="effcc-first-call-") as cache:
        environment = os.environ | {"EFFCC_CACHE_DIR": cache, "TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor"}
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.first_call", model, peer]

        def seconds() -> float:
            process = subprocess.run(
                [*command, "--tiny"] if tiny else command,
                env=environment, capture_output=True, text=True, timeout=timeout_s, check=False,
            )  # fmt: skip
            if process.returncode:
                raise RuntimeError(f"the first call of {model} through {peer} failed:\n{process.stderr[-2000:]}")
            return float(json.loads(process.stdout.splitlines()[-1])["first_call_s"])

        return FirstCall(seconds(), seconds())


def main() -> None:
    """Time one first call here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=list(ZOO))
    parser.add_argument("peer")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    import torch

    from benchmarks.peers import PEERS

    entry = (TINY if options.tiny else ZOO)[options.model]
    model, args = entry.build(), entry.inputs(0)
    with torch.no_grad():
        model(*args)
        started = time.perf_counter()
        PEERS[options.peer].build(model, args)(*args)
        print(json.dumps({"first_call_s": time.perf_counter() - started}))


if __name__ == "__main__":
    main()

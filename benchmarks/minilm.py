"""MiniLM at 32 tokens beside its peers: accuracy, latency, first call, memory, overhead. One run, one table.

python -m benchmarks.minilm
python -m benchmarks.minilm --peers eager,inductor,effcc,onnxruntime,openvino --json minilm.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import table
from benchmarks.first_call import FirstCall, measure
from benchmarks.models import ZOO
from benchmarks.modules import SentenceEncoder, initialise
from benchmarks.peers import PEERS, Run
from benchmarks.race import Timing, race
from benchmarks.subject import ProgramStats, stats
from effcc.accuracy import OutputReport, check
from effcc.frontend.widened import reference


def tensors(result: Any) -> Any:
    """A peer's result as torch tensors, in the structure of the model's own single output."""
    values = list(result.values()) if isinstance(result, Mapping) else result
    first = values[0] if isinstance(values, list | tuple) else values
    return first if isinstance(first, torch.Tensor) else torch.from_numpy(first)


def accuracy(model: nn.Module, args: tuple[Any, ...], runs: Mapping[str, Run]) -> dict[str, OutputReport]:
    """Each side's error against the float64 reference, with the bound that eager's own error sets."""
    with torch.no_grad():
        wide, eager = reference(model, *args), model(*args)
        return {name: check(wide, eager, tensors(run(*args))).worst for name, run in runs.items()}


def overhead(peer: str) -> float:
    """Seconds a call of the same network with next to nothing to compute: 6 layers of width 12, one token."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=16, hidden_size=12, num_hidden_layers=6, num_attention_heads=12, intermediate_size=12
    )
    model = SentenceEncoder(initialise(BertModel(config, add_pooling_layer=False))).eval()
    args = (torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.long))
    with torch.no_grad():
        return race({peer: PEERS[peer].build(model, args)}, args, peer, budget_s=1.0)[peer].median


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="eager,inductor,effcc", help="of " + ", ".join(PEERS))
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the race runs")
    parser.add_argument("--no-first-call", action="store_true", help="leave out first calls (a minute or more)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="for every side")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = [name for name in options.peers.split(",") if not table.skip_missing(PEERS[name])]
    entry = ZOO["minilm"]
    model, args = entry.build(), entry.inputs(0)
    with torch.no_grad():
        runs = {name: PEERS[name].build(model, args) for name in names}
    errors = accuracy(model, args, runs)
    timings = race(runs, args, baseline=names[0], budget_s=options.seconds)
    program = stats(runs["effcc"]) if "effcc" in runs else None
    overheads = {name: overhead(name) for name in names if name not in ("onnxruntime", "openvino")}
    first = {} if options.no_first_call else {n: measure("minilm", n) for n in ["capture", *names] if n != "eager"}
    report(errors, timings, overheads, first, program)
    if options.json:
        figures = {
            "errors": {name: vars(error) for name, error in errors.items()},
            "median_s": {name: timing.median for name, timing in timings.items()},
            "speed": {name: timing.speed for name, timing in timings.items()},
            "overhead_s": overheads,
            "first_call_s": {name: vars(call) for name, call in first.items()},
            "program": vars(program) if program else None,
            "threads": torch.get_num_threads(),
        }
        options.json.write_text(json.dumps(figures, indent=2))


def report(
    errors: Mapping[str, OutputReport],
    timings: Mapping[str, Timing],
    overheads: Mapping[str, float],
    first: Mapping[str, FirstCall],
    program: ProgramStats | None,
) -> None:
    """Print the table."""
    capture = first["capture"].cold if "capture" in first else None
    rows = []
    for name, timing in timings.items():
        call = first.get(name)
        rows.append(
            [
                name,
                f"{errors[name].max_error:.2e}" + ("" if errors[name].ok else " WRONG"),
                f"{errors[name].rms_error:.2e}",
                f"{timing.median * 1e3:.2f}",
                f"{timing.best * 1e3:.2f}",
                f"{timing.speed:.2f}x",
                f"{overheads[name] * 1e3:.2f}" if name in overheads else "-",
                f"{call.cold:.1f}" if call else "-",
                f"{call.cold - capture:.1f}" if call and capture is not None else "-",
                f"{call.warm:.1f}" if call else "-",
            ]
        )
    title = f"MiniLM, 32 tokens, fp32, {torch.get_num_threads()} threads"
    if capture is not None:
        title += f"; capture alone, cold: {capture:.1f} s"
    columns = ["", "max error", "rms error", "median ms", "best ms", f"speed vs {next(iter(timings))}", "overhead ms",
               "first call cold s", "beyond capture s", "warm s"]  # fmt: skip
    table.show(title, columns, rows)
    if program is not None:
        print(f"arena {program.arena_bytes} bytes, live-range lower bound {program.live_bytes} "
              f"({program.arena_bytes / max(1, program.live_bytes):.2f}x); {program.kernels} kernels, "
              f"externs: {table.counts(program.externs)}")  # fmt: skip


if __name__ == "__main__":
    main()

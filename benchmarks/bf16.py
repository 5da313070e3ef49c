"""Products and a model in bf16 beside PyTorch: on a CPU that has instructions for them, and as if it had none.

    python -m benchmarks.bf16 [--threads 1] [--seconds 10] [--layers 12] [--products-only]

Each row runs in turn with its peers in one process; the best of many calls. With one thread, time is the thread's own
CPU time, which other work on the machine hardly changes; with more, it passes on the wall.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Calls = dict[str, Callable[[], Any]]
PRODUCTS = ((128, 768, 768), (128, 768, 3072), (128, 3072, 768), (512, 2048, 5632), (1, 2048, 5632))
"""Rows, depth and columns of a layer without bias."""
BATCHED = (12, 128, 64, 128)


def _torch_compile(model: Callable[..., Tensor], **options: Any) -> Callable[..., Tensor]:
    torch_compile: Any = torch.compile  # whose annotations lack isolate_recompiles
    compiled: Callable[..., Tensor] = torch_compile(model, dynamic=False, isolate_recompiles=True, **options)
    return compiled


def _sides(model: Callable[..., Any], *args: Tensor) -> Calls:
    runs = {
        "eager": model,
        "inductor": _torch_compile(model, options={"freezing": True}),
        "effcc": _torch_compile(model, backend="effcc"),
        "effcc, avx512": _torch_compile(model, backend="effcc", options={"target": "avx512"}),
    }
    return {name: lambda run=run: run(*args) for name, run in runs.items()}  # type: ignore[misc]


def product(rows: int, depth: int, columns: int) -> Calls:
    """A linear layer."""
    layer = nn.Linear(depth, columns, bias=False).eval().bfloat16()
    return _sides(layer, torch.randn(rows, depth, dtype=torch.bfloat16))


def batched(batch: int, rows: int, depth: int, columns: int) -> Calls:
    """Products of pairs of activations."""
    a, b = (torch.randn(batch, *shape, dtype=torch.bfloat16) for shape in ((rows, depth), (depth, columns)))
    return _sides(torch.bmm, a, b)


def bert(layers: int) -> Calls:
    """A BERT-base of so many layers, random weights, 128 tokens."""
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig(num_hidden_layers=layers)).eval().bfloat16()
    ids = torch.randint(0, 30_000, (1, 128))
    return _sides(lambda ids: model(ids)[0], ids)


def best_times(calls: Calls, seconds: float, clock: Callable[[], float]) -> dict[str, float]:
    """The best time of each, in turn until the time is over."""
    found = dict.fromkeys(calls, float("inf"))
    with torch.no_grad():
        for call in calls.values():
            call()
            call()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for name, call in calls.items():
                call()
                begin = clock()
                call()
                found[name] = min(found[name], clock() - begin)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--products-only", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    clock = time.thread_time if given.threads == 1 else time.perf_counter
    rows: list[tuple[str, Callable[[], Calls]]] = [
        ("x".join(map(str, shape)), lambda shape=shape: product(*shape))  # type: ignore[misc]
        for shape in PRODUCTS
    ]
    rows.append(("x".join(map(str, BATCHED)), lambda: batched(*BATCHED)))
    if not given.products_only:
        rows.append((f"BERT-base, {given.layers} layers", lambda: bert(given.layers)))
    for number, (name, make) in enumerate(rows):
        times = best_times(make(), given.seconds, clock)
        if number == 0:
            print("| ms | " + " | ".join(times) + " | eager / effcc | inductor / effcc |")
            print("|---|" + "---|" * (len(times) + 2))
        ratios = [f"{times[peer] / times['effcc']:.2f}" for peer in ("eager", "inductor")]
        print(f"| {name} | " + " | ".join([*(f"{1e3 * t:.2f}" for t in times.values()), *ratios]) + " |", flush=True)


if __name__ == "__main__":
    main()

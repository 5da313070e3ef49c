"""Ragged axes and scatters beside PyTorch's own kernels: rows of sparse matrices, bags, segments, sums into rows.

    python -m benchmarks.ragged [--threads 2] [--seconds 10]

Each row runs in turn with its peers in one process; the best of many short calls, so that other work on the machine
hardly counts.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import effcc

Calls = dict[str, Callable[[], Any]]


def _compiled(f: Callable[..., Any], *args: Tensor) -> Callable[[], Tensor]:
    torch._dynamo.reset()
    compiled = effcc.compile(f)
    torch.testing.assert_close(compiled(*args), f(*args), rtol=1e-3, atol=1e-3)
    return lambda: compiled(*args)


def sparse_product(zeros: float, size: int = 1536, columns: int = 128) -> Calls:
    """A matrix with so many zeros, compressed by rows, times a dense one."""
    a = torch.where(torch.rand(size, size) > zeros, torch.randn(size, size), 0.0)
    x, sparse = torch.randn(size, columns), a.to_sparse_csr()
    rows, at, values = (p.clone() for p in (sparse.crow_indices(), sparse.col_indices(), sparse.values()))

    def product(x: Tensor, values: Tensor, at: Tensor, rows: Tensor) -> Tensor:
        return F.embedding_bag(at, x, rows, mode="sum", per_sample_weights=values, include_last_offset=True)

    ours = _compiled(product, x, values, at, rows)
    return {"effcc": ours, "torch.sparse": lambda: sparse @ x, "dense": lambda: a @ x}


def skewed_product(columns: int = 128, rows: int = 1536, points: int = 240_000) -> Calls:
    """A matrix compressed by rows, of which the last holds half of all that is stored."""
    lengths = torch.full((rows,), points // 2 // rows)
    lengths[-1] = points // 2
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    at, values, x = torch.randint(0, rows, (int(ends[-1]),)), torch.randn(int(ends[-1])), torch.randn(rows, columns)

    def product(x: Tensor, values: Tensor, at: Tensor, ends: Tensor) -> Tensor:
        return F.embedding_bag(at, x, ends, mode="sum", per_sample_weights=values, include_last_offset=True)

    return {"effcc": _compiled(product, x, values, at, ends), "eager": lambda: product(x, values, at, ends)}


def experts(groups: int, rows: int, depth: int, columns: int) -> Calls:
    """Rows in groups of random lengths, each group times a matrix of its own, as transformers' experts call it."""
    importlib.import_module("transformers.integrations.moe")
    weight = torch.nn.Parameter(torch.randn(groups, columns, depth) / depth**0.5)
    ends = torch.bincount(torch.randint(0, groups, (rows,)), minlength=groups).cumsum(0).to(torch.int32)
    x, dense = torch.randn(rows, depth), torch.randn(columns, depth)

    class Experts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = weight

        def forward(self, x: Tensor, ends: Tensor) -> Tensor:
            found: Tensor = torch.ops.transformers.grouped_mm_fallback(x, self.weight.transpose(1, 2), ends)
            return found

    model = Experts()
    calls: Calls = {"effcc": _compiled(model, x, ends), "eager": lambda: model(x, ends)}
    return calls | {"one dense product": lambda: F.linear(x, dense)}


def bags(count: int = 512, width: int = 64) -> Calls:
    """Means of bags of 0 to 99 rows of a table."""
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), torch.randint(0, 100, (count,)).cumsum(0)])
    table, at = torch.randn(20_000, width), torch.randint(0, 20_000, (int(offsets[-1]),))

    def mean(table: Tensor, at: Tensor, offsets: Tensor) -> Tensor:
        return F.embedding_bag(at, table, offsets, mode="mean", include_last_offset=True)

    return {"effcc": _compiled(mean, table, at, offsets), "eager": lambda: mean(table, at, offsets)}


def segments(count: int = 512, width: int = 64) -> Calls:
    """Maxima of segments of 0 to 99 rows."""
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), torch.randint(1, 100, (count,)).cumsum(0)])
    x = torch.randn(int(offsets[-1]), width)

    def longest(x: Tensor, offsets: Tensor) -> Tensor:
        return torch.segment_reduce(x, "max", offsets=offsets)

    return {"effcc": _compiled(longest, x, offsets), "eager": lambda: longest(x, offsets)}


def scattered(width: int, count: int = 4096, rows: int = 2000) -> Calls:
    """The gradient of an embedding: rows added up where their indices say."""
    gradient, at = torch.randn(count, width), torch.randint(0, rows, (count,))

    def added(gradient: Tensor, at: Tensor) -> Tensor:
        return torch.ops.aten.embedding_dense_backward(gradient, at, rows, -1, False)

    return {"effcc": _compiled(added, gradient, at), "eager": lambda: added(gradient, at)}


ROWS: dict[str, Callable[[], Calls]] = {
    "sparse product, 90 % zeros": lambda: sparse_product(0.9),
    "sparse product, 95 % zeros": lambda: sparse_product(0.95),
    "sparse product, one row holds half": skewed_product,
    "8 experts, 512 x 512 x 1024": lambda: experts(8, 512, 512, 1024),
    "64 experts, 128 x 512 x 512": lambda: experts(64, 128, 512, 512),
    "bags, mean": bags,
    "segments, maximum": segments,
    "gradient of an embedding, width 64": lambda: scattered(64),
    "gradient of an embedding, width 768": lambda: scattered(768),
}


def best_of(calls: Calls, seconds: float) -> dict[str, float]:
    """The shortest time of each, in microseconds, taken in turn."""
    found = dict.fromkeys(calls, float("inf"))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, call in calls.items():
            for _ in range(3):
                begin = time.perf_counter()
                call()
                found[name] = min(found[name], (time.perf_counter() - begin) * 1e6)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    print(f"{given.threads} threads; microseconds\n\n| | effcc | PyTorch | dense product |\n|---|---:|---:|---:|")
    with torch.no_grad():
        for name, prepare in ROWS.items():
            found = best_of(prepare(), given.seconds)
            print(f"| {name} | {' | '.join(f'{t:.0f}' for t in found.values())} |{' |' * (3 - len(found))}", flush=True)


if __name__ == "__main__":
    main()

"""What run-time checks of indices and divisors cost: each kernel with and without them, in turn in one process.

    python -m benchmarks.checks [--seconds 6]

Without is a build for this benchmark only, in which indices are guarded (nothing outside a tensor is touched) but
nothing is noted where one is outside, and divisors are not looked at.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.race import race
from benchmarks.table import show
from effcc.ir.dims import Dim
from effcc.ir.expr import Expr, both, compare, integer
from effcc.ir.form import FormBuilder

_NUMBERS = count()
Case = tuple[str, Callable[..., Tensor], Sequence[Any]]


@contextmanager
def without_checks() -> Iterator[None]:
    """What is compiled inside has no run-time checks."""

    def in_range(self: FormBuilder, index: Expr, size: Dim, dimension: int, kind: str = "index") -> Expr:
        return both(compare("ge", index, integer(0)), compare("lt", index, integer(size)))

    with (
        mock.patch.object(FormBuilder, "in_range", in_range),
        mock.patch.object(FormBuilder, "divisor", lambda self, value: value),
    ):
        yield


def kernels() -> list[Case]:
    """Embeddings, gathers, scatters and divisions, at sizes from the first cache to memory."""
    random = torch.Generator().manual_seed(0)

    def places(n: int, *shape: int) -> Tensor:
        return torch.randint(0, n, shape, generator=random)

    words, small, large = torch.randn(30522, 384), torch.randn(64, 16), torch.randn(4096, 1024)
    numbers = torch.randint(-1000, 1000, (1 << 20,), generator=random)
    divisors = torch.randint(1, 50, (1 << 20,), generator=random)
    return [
        ("embedding [8,128] of [30522,384]", lambda i, x: F.embedding(i, x), (places(30522, 8, 128), words)),
        ("embedding [4096] of [64,16]", lambda i, x: F.embedding(i, x), (places(64, 4096), small)),
        ("gather [4096,1024], last axis", lambda i, x: x.gather(1, i), (places(1024, 4096, 1024), large)),
        ("gather [4096,1024], first axis", lambda i, x: x.gather(0, i), (places(4096, 4096, 1024), large)),
        ("x\\[i, j], 1 M places", lambda i, j, x: x[i, j], (places(4096, 1 << 20), places(1024, 1 << 20), large)),
        ("cross entropy [4096,1024]", lambda i, x: F.cross_entropy(x, i), (places(1024, 4096), large)),
        ("index_add [4096] rows of 1024", lambda i, x: x.index_add(0, i, x), (places(4096, 4096), large)),
        ("scatter_add [4096,1024]", lambda i, x: x.scatter_add(1, i, x), (places(1024, 4096, 1024), large)),
        ("a // b, 1 M of i64", lambda a, b: a // b, (numbers, divisors)),
        ("a % b, 1 M of i32", lambda a, b: a % b, (numbers.int(), divisors.int())),
    ]


class Encoder(nn.Module):
    """Two layers of a sentence encoder of MiniLM's sizes, with its embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(30522, 384), nn.Embedding(512, 384)
        layer = nn.TransformerEncoderLayer(384, 12, 1536, batch_first=True, activation="gelu")
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, index: Tensor) -> Tensor:
        position = torch.arange(index.shape[1])
        found: Tensor = self.layers(self.words(index) + self.places(position)).mean(1)
        return found


def compiled(function: Callable[..., Tensor], args: Sequence[Any]) -> Callable[..., Tensor]:
    """`function`, compiled now: with a code object of its own, or torch.compile would take what it has compiled."""

    def call(*given: Any) -> Tensor:
        return function(*given)

    call.__code__ = call.__code__.replace(co_name=f"call_{next(_NUMBERS)}")
    found: Callable[..., Tensor] = torch.compile(call, backend="effcc", fullgraph=True)
    found(*args)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="for each row")
    seconds = parser.parse_args().seconds
    model = Encoder().eval()
    encoder: Case = ("two layers of MiniLM, [8,32]", model, (torch.randint(0, 30522, (8, 32)),))
    rows = []
    for name, function, args in [*kernels(), encoder]:
        with torch.no_grad():
            with without_checks():
                before = compiled(function, args)
            after = compiled(function, args)
        timings = race({"without": before, "with": after}, args, "without", seconds)
        cost = f"{100 * (1 / timings['with'].speed - 1):+.1f} %"
        rows.append((name, *(f"{1e6 * timings[side].median:.0f}" for side in ("without", "with")), cost))
    show("run-time checks: microseconds a call", ("", "without", "with", "cost"), rows)


if __name__ == "__main__":
    main()

"""Slices whose bounds are sizes known at run time only: counted from the end, clamped, or padded to a multiple."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from effcc.statistics import stats


def last(x: Tensor, y: Tensor) -> Tensor:
    return x[:, -y.shape[0] :] + 1


def all_but_last(x: Tensor, y: Tensor) -> Tensor:
    return x[:, : -y.shape[0]] + 1


def more_than_there_is(x: Tensor, y: Tensor) -> Tensor:
    return x[:, : 9 * y.shape[0]] + 1


def from_before_the_start(x: Tensor, y: Tensor) -> Tensor:
    return x[:, -9 * y.shape[0] :] + 1


def from_before_the_start_of_all(x: Tensor, y: Tensor) -> Tensor:
    return x[:, -4095:] + y.sum()


def from_the_last_four(x: Tensor, y: Tensor) -> Tensor:
    return x[:, -4:] + y.sum()


def up_to_a_thousand(x: Tensor, y: Tensor) -> Tensor:
    return x[:, :1000] + y.sum()


def written_at_the_end(x: Tensor, y: Tensor) -> Tensor:
    x = x.clone()
    x[:, -y.shape[0] :] = 3
    return x


def in_chunks(x: Tensor, y: Tensor) -> Tensor:
    n = 4
    padded = F.pad(x, (0, (n - x.shape[1] % n) % n))
    chunks = padded.reshape(x.shape[0], -1, n)
    return (chunks * chunks.sum(-1, keepdim=True)).reshape(x.shape[0], -1)[:, : x.shape[1]]


@pytest.mark.parametrize(
    "function",
    [
        last,
        all_but_last,
        more_than_there_is,
        from_before_the_start,
        from_before_the_start_of_all,
        from_the_last_four,
        up_to_a_thousand,
        written_at_the_end,
        in_chunks,
    ],
)
def test_a_slice_is_eagers(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(function, backend="effcc", dynamic=True)
    generator = torch.Generator().manual_seed(0)
    for rows, columns, count in ((3, 10, 2), (5, 17, 3), (4, 16, 4)):
        x, y = torch.randn(rows, columns, generator=generator), torch.zeros(count)
        torch.testing.assert_close(compiled(x, y), function(x, y))
    assert not stats(compiled).externs


def test_a_row_that_depends_on_data_is_written_and_read_backwards() -> None:
    def function(x: Tensor, at: Tensor, row: Tensor) -> tuple[Tensor, ...]:
        n = at.item()
        written = x.clone()
        written[n] = row
        (gradient,) = torch.autograd.grad((x * 2)[n].square().sum(), x)
        return written, gradient

    torch._dynamo.reset()
    x, row = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), requires_grad=True), torch.ones(3)
    with torch._dynamo.config.patch(capture_scalar_outputs=True, trace_autograd_ops=True):
        compiled = torch.compile(function, backend="effcc", fullgraph=True)
        for n in (3, -2):
            torch.testing.assert_close(compiled(x, torch.tensor(n), row), function(x, torch.tensor(n), row))


@pytest.mark.parametrize(("size", "step"), [(4, 4), (4, 2), (2, 3), (5, 1)])
def test_windows_of_a_run_time_axis_are_kernels(size: int, step: int) -> None:
    def windows(x: Tensor) -> Tensor:
        return x.unfold(1, size, step) * 2

    torch.compiler.reset()
    compiled = torch.compile(windows, backend="effcc", dynamic=True, fullgraph=True)
    for rows, length in ((3, 13), (2, 21), (4, 8)):
        x = torch.arange(float(rows * length * 2)).view(rows, length, 2)
        assert torch.equal(compiled(x), windows(x))
    assert not stats(compiled).externs


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 0), (2, 3, 1)])
def test_pools_that_round_their_number_of_windows_up_are_kernels(kernel: int, stride: int, padding: int) -> None:
    def pooled(x: Tensor) -> tuple[Tensor, Tensor]:
        window = (kernel, stride, padding)
        return F.max_pool1d(x, *window, ceil_mode=True), F.avg_pool1d(x, *window, ceil_mode=True)

    torch.compiler.reset()
    compiled = torch.compile(pooled, backend="effcc", dynamic=True, fullgraph=True)
    for rows, length in ((3, 13), (2, 21), (4, 8), (2, 9)):
        x = torch.randn(rows, 2, length)
        for got, expected in zip(compiled(x), pooled(x), strict=True):
            torch.testing.assert_close(got, expected)
    assert not stats(compiled).externs

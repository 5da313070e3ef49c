"""Sums into rows from torch: tasks that own rows add in eager's order, and refuse what eager refuses."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import effcc
from benchmarks.op_database.outcome import effcc_externs
from effcc.errors import FaultWarning, OutOfRangeError


def rows_of(x: Tensor, at: Tensor, s: Tensor, places: Tensor) -> Tensor:
    return x.index_add(0, at, s[places])


@pytest.fixture(scope="module")
def compiled() -> Callable[..., Tensor]:
    return effcc.compile(rows_of, fullgraph=True, target="avx2")  # type: ignore[no-any-return]


def operands() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(50, 96), torch.randint(0, 50, (3000,)), torch.randn(70, 96), torch.randint(0, 70, (3000,))


def test_sums_keep_the_order_of_their_rows(compiled: Callable[..., Tensor]) -> None:
    x, at, s, places = operands()
    serial = x.clone()
    for row, place in zip(at.tolist(), places.tolist(), strict=True):
        serial[row] += s[place]
    assert torch.equal(compiled(x, at, s, places), serial)


@pytest.mark.parametrize("position", [0, 1, 2, 2999])
def test_any_task_sees_what_is_out_of_range(compiled: Callable[..., Tensor], position: int) -> None:
    for which, outside in ((1, 50), (1, -1), (3, 70)):
        given = [t.clone() for t in operands()]
        given[which][position] = outside
        with pytest.raises(OutOfRangeError, match=f"index {outside} is out of bounds"):
            compiled(*given)


def test_an_index_of_run_time_size_covers_a_part() -> None:
    """That it is no longer than the tensor is a guard of torch's, which kernels do not know."""

    def model(x: Tensor, i: Tensor, s: Tensor) -> Tensor:
        return x.scatter_add(0, i, s)

    compiled = torch.compile(model, backend="effcc", dynamic=True)
    generator = torch.Generator().manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FaultWarning)
        for rows, width in ((3, 5), (2, 40)):
            x = torch.randn(4, 40, generator=generator)
            index = torch.randint(0, 4, (rows, width), generator=generator)
            source = torch.randn(rows + 1, width + 1, generator=generator)
            torch.testing.assert_close(compiled(x, index, source), model(x, index, source))
        with pytest.raises(RuntimeError, match="no larger than self"):
            compiled(x[:, :4], index, source)


@pytest.mark.parametrize("accumulate", [False, True])
def test_one_value_under_a_mask_is_no_scatter(accumulate: bool) -> None:
    def model(x: Tensor, mask: Tensor, value: Tensor) -> Tensor:
        return torch.ops.aten.index_put(x, [mask], value, accumulate)  # type: ignore[no-any-return]

    compiled = effcc.compile(model, fullgraph=True)
    x, mask = torch.arange(20, dtype=torch.int8).view(5, 2, 2), torch.arange(10).view(5, 2) % 3 == 0
    value = torch.tensor([120], dtype=torch.int8)  # sums wrap around
    assert torch.equal(compiled(x, mask, value), model(x, mask, value))
    assert not effcc_externs(compiled)


@pytest.mark.parametrize("shape", [(0,), (2, 0)])
def test_an_empty_index_may_be_of_bytes(shape: tuple[int, ...]) -> None:
    x, index = torch.ones(5, requires_grad=True), torch.zeros(shape, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FaultWarning)
        got = torch.compile(lambda x, i: x.gather(0, i), backend="effcc", fullgraph=True)(x, index)
        assert got.shape == shape
        got.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, torch.zeros(5))


def test_an_element_is_taken_by_an_index_without_axes() -> None:
    """PyTorch's own rule would ask for the index's number while it traces."""
    x, index = torch.arange(6.0).view(2, 3), torch.tensor(4)
    got = torch.compile(torch.take, backend="effcc", fullgraph=True)(x, index)
    assert torch.equal(got, torch.tensor(4.0))

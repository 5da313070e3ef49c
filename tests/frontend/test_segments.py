"""Bags, segments and rows of sparse matrices from torch: compiled over ragged axes, as eager computes and refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import effcc
from effcc.errors import OutOfRangeError, RefusedValueError

ENDS = {"mixed": [0, 3, 3, 10, 40], "first empty": [0, 0, 0, 40], "one": [0, 40], "no segments": [0]}


def compiled(f: Callable[..., Tensor], *args: Any) -> Callable[..., Tensor]:
    """`f` after its first call, of which nothing is left to PyTorch."""
    torch._dynamo.reset()
    found = effcc.compile(f, fullgraph=True)
    found(*args)
    assert "run by PyTorch: nothing" in str(effcc.explain(found, measure=False))
    return found  # type: ignore[no-any-return]


def same(f: Callable[..., Tensor], *args: Any) -> Callable[..., Tensor]:
    with torch.no_grad():
        made = compiled(f, *args)
        torch.testing.assert_close(made(*args), f(*args), rtol=1e-4, atol=1e-5)
    return made


@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
def test_segments_of_any_lengths(ends: list[int]) -> None:
    def f(x: Tensor, offsets: Tensor) -> Tensor:
        parts = [torch.segment_reduce(x, r, offsets=offsets) for r in ("sum", "mean", "max", "min")]
        return torch.cat([p.nan_to_num() for p in parts], 1)

    torch.manual_seed(0)
    same(f, torch.randn(40, 20), torch.tensor(ends))


def test_segments_given_by_lengths() -> None:
    f = same(lambda x, n: torch.segment_reduce(x, "sum", lengths=n), torch.randn(10, 4), torch.tensor([3, 0, 7]))
    with pytest.raises(RefusedValueError, match="to sum to"):
        f(torch.randn(10, 4), torch.tensor([3, 0, 6]))


@pytest.mark.parametrize("index", [torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_bags(mode: str, index: torch.dtype) -> None:
    torch.manual_seed(0)
    table, at, offsets = torch.randn(50, 24), torch.randint(0, 50, (40,)).to(index), torch.tensor([0, 0, 9, 9, 30])
    padding = int(at[3])

    def f(table: Tensor, at: Tensor, offsets: Tensor) -> Tensor:
        whole = F.embedding_bag(at, table, offsets, mode=mode)
        return torch.cat([whole, F.embedding_bag(at, table, offsets, mode=mode, padding_idx=padding)], 1)

    same(f, table, at, offsets.to(index))
    module = torch.nn.EmbeddingBag(50, 24, mode=mode, include_last_offset=True).eval()
    same(module, at, offsets.to(index))


def test_a_sparse_matrix_times_a_dense_one() -> None:
    """Rows of a compressed matrix as weighted bags: one kernel, which gathers and multiplies on the way."""
    torch.manual_seed(0)
    dense = torch.where(torch.rand(30, 50) < 0.2, torch.randn(30, 50), 0.0)
    dense[7] = 0
    sparse = dense.to_sparse_csr()
    rows, columns, values = (p.clone() for p in (sparse.crow_indices(), sparse.col_indices(), sparse.values()))

    def f(x: Tensor, values: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
        return F.embedding_bag(columns, x, rows, mode="sum", per_sample_weights=values, include_last_offset=True)

    x = torch.randn(50, 20)
    found = same(f, x, values, columns, rows)
    with torch.no_grad():
        torch.testing.assert_close(found(x, values, columns, rows), dense @ x, rtol=1e-4, atol=1e-5)
    text = str(effcc.explain(found, measure=False))
    assert text.count("sum(j in") == 1
    assert f"f32[{len(values)},20]" not in text  # the gathered rows are nowhere in memory


def test_offsets_that_make_no_segments_raise() -> None:
    x = torch.randn(10, 4)
    f = compiled(lambda x, o: torch.segment_reduce(x, "sum", offsets=o), x, torch.tensor([0, 4, 10]))
    for wrong in ([0, 4, 11], [-1, 4, 10]):
        with pytest.raises(OutOfRangeError):
            f(x, torch.tensor(wrong))
    with pytest.raises(RefusedValueError):
        f(x, torch.tensor([0, 6, 4]))
    bag = compiled(lambda x, i, o: F.embedding_bag(i, x, o), x, torch.tensor([1, 2, 3]), torch.tensor([0, 1]))
    with pytest.raises(RefusedValueError, match=r"offsets\[0\] has to be 0"):
        bag(x, torch.tensor([1, 2, 3]), torch.tensor([1, 1]))


def test_half_types_add_up_in_f32() -> None:
    torch.manual_seed(0)
    x, offsets = torch.randn(300, 8).bfloat16(), torch.tensor([0, 299, 300])
    f = compiled(lambda x, o: torch.segment_reduce(x, "sum", offsets=o), x, offsets)
    exact = torch.stack([x[:299].double().sum(0), x[299:].double().sum(0)])
    torch.testing.assert_close(f(x, offsets), exact.bfloat16())


def test_where_a_row_is_read_is_computed_on_the_way() -> None:
    x, at, offsets = torch.randn(50, 20), torch.randint(-50, 50, (40,)), torch.tensor([0, 30, 40])
    f = same(lambda x, at, o: torch.segment_reduce(x[at] * 2.0, "sum", offsets=o), x, at, offsets)
    assert "1 kernels" in str(effcc.explain(f, measure=False))


class Experts(torch.nn.Module):
    """Rows sorted by their experts, each expert with a weight of its own, stored as given or the other way round."""

    def __init__(self, turned: bool) -> None:
        super().__init__()
        self.turned = turned
        self.weight = torch.nn.Parameter(torch.randn(4, 48, 32) if turned else torch.randn(4, 32, 48))

    def forward(self, x: Tensor, ends: Tensor) -> Tensor:
        weight = self.weight.transpose(1, 2) if self.turned else self.weight
        return F.grouped_mm(F.gelu(x), weight, offs=ends) * 2


@pytest.mark.parametrize("turned", [False, True])
def test_rows_of_experts_times_their_own_weights(turned: bool) -> None:
    torch.manual_seed(0)
    experts = Experts(turned).bfloat16().eval()
    x = torch.randn(37, 32).bfloat16()
    with torch.no_grad():
        found = compiled(experts, x, torch.tensor([5, 5, 20, 37], dtype=torch.int32))
        for ends in ([5, 5, 20, 37], [0, 0, 0, 37], [37, 37, 37, 37]):
            offs = torch.tensor(ends, dtype=torch.int32)
            torch.testing.assert_close(found(x, offs), experts(x, offs), rtol=2e-2, atol=2e-2)
        assert not found(x, torch.tensor([0, 3, 9, 20], dtype=torch.int32))[20:].any()
        with pytest.raises(OutOfRangeError):
            found(x, torch.tensor([5, 5, 20, 38], dtype=torch.int32))
        with pytest.raises(RefusedValueError):
            found(x, torch.tensor([5, 3, 20, 37], dtype=torch.int32))


def test_experts_of_transformers_are_one_kernel_each_product() -> None:
    pytest.importorskip("transformers.integrations.moe")
    torch.manual_seed(0)
    x, w, offs = torch.randn(30, 16), torch.randn(3, 16, 20), torch.tensor([7, 7, 30], dtype=torch.int32)
    f = same(lambda x, w, offs: torch.ops.transformers.grouped_mm_fallback(x, w, offs), x, w, offs)
    assert "in spans" in str(effcc.explain(f, measure=False))

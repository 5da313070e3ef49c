"""Half types: an op computes in f32 inside and rounds once; between ops everything is rounded, in fused kernels too.

So infinities and NaN stand exactly where eager has them. What eager sums element by element in the half type, or from
values that it has rounded, is left out: the result depends on the order there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

HALVES = [torch.float16, torch.bfloat16]
ZEROS = torch.zeros(6, 40, dtype=torch.long)

INSIDE: Mapping[str, Callable[[Tensor], Tensor]] = {
    "norm": lambda x: x.norm(),
    "norm_of_rows": lambda x: torch.linalg.vector_norm(x, dim=1),
    "norm_3": lambda x: x.norm(3, dim=1),
    "norm_half": lambda x: x.abs().norm(0.5, dim=1),
    "norm_minus_1": lambda x: torch.linalg.vector_norm(x, -1, dim=1),
    "norm_largest": lambda x: x.norm(torch.inf, dim=0),
    "normalize": F.normalize,
    "matrix_norm": torch.linalg.matrix_norm,
    "sum": lambda x: x.sum(1),
    "mean": lambda x: x.mean(0),
    "var": lambda x: x.var(1),
    "std": lambda x: x.std(0),
    "softmax": lambda x: x.softmax(1),
    "logsumexp": lambda x: x.logsumexp(1),
    "rms_norm": lambda x: F.rms_norm(x, (40,)),
    "group_norm": lambda x: F.group_norm(x.reshape(6, 8, 5), 4),
    "cumsum": lambda x: x.cumsum(1),
    "linear": lambda x: F.linear(x, x, x[0, :6]),
    "avg_pool": lambda x: F.avg_pool1d(x[None], 4),
    "cosine": lambda x: F.cosine_similarity(x, x.flip(0)),
    "pairwise": lambda x: F.pairwise_distance(x, x.flip(0)),
    "weight_norm": lambda x: torch._weight_norm(x, x[:, :1], 0),
    "index_add": lambda x: x.index_add(0, torch.tensor([0, 0, 0, 1, 1, 1]), -x),
    "scatter_add": lambda x: x.scatter_add(1, ZEROS, x),
    "mse": lambda x: F.mse_loss(x, x.flip(0)),
    "smooth_l1": lambda x: F.smooth_l1_loss(x, x.flip(0)),
    "huber": lambda x: F.huber_loss(x, x.flip(0), delta=0.3),
}
BETWEEN: Mapping[str, Callable[[Tensor], Tensor]] = {
    "overflows": lambda x: (x * 60000) * 0.001,
    "square_overflows": lambda x: (x * x) * 1e-3,
    "vanishes": lambda x: (x * 1e-5) * 1e5,
    "rounded": lambda x: (x + 2048) - 2048,
    "thirds": lambda x: (x / 3) / 5,
    "mean_square": lambda x: (x * x).mean(1) * 1e-3,
    "scaled_sum": lambda x: x.sum(1) * 0.001,
    "scaled_product": lambda x: F.linear(x, x) * 0.001,
    "rms_by_hand": lambda x: x * torch.rsqrt((x * x).mean(1, keepdim=True) + 1e-6),
    "cast_and_back": lambda x: (x.float() * 1e5).to(x.dtype).float().to(x.dtype),
    "roots": lambda x: x**0.5,
    "roots_below": lambda x: x**-0.5,
    "silu_by_hand": lambda x: x / (1 + torch.exp(-x)),
}


def numbers(dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(3)
    rows = torch.randn(6, 40)
    largest = 60000.0 if dtype == torch.float16 else 1e17
    special = torch.randn(6, 40)
    special[0, 3], special[1, 5], special[2, 1], special[3, 2] = torch.inf, -torch.inf, torch.nan, -0.0
    kinds = [rows, rows.abs().clamp(0.5) * largest, rows * 3000, rows * 1e-4, rows * 1e-7, rows + 1000, special]
    return [x.clamp(-6e4, 6e4).to(dtype) if dtype == torch.float16 else x.to(dtype) for x in kinds]


@pytest.mark.parametrize("dtype", HALVES)
def test_infinities_and_nan_stand_where_eager_has_them(dtype: torch.dtype) -> None:
    cases = {**INSIDE, **BETWEEN}

    def computed(x: Tensor) -> dict[str, Tensor]:
        return {name: f(x) for name, f in cases.items()}

    torch._dynamo.reset()
    compiled = torch.compile(computed, backend="effcc")
    for x in numbers(dtype):
        expected = computed(x)
        for name, found in compiled(x).items():
            assert found.dtype == expected[name].dtype, name
            tolerance = 4 * torch.finfo(dtype).eps
            largest = expected[name].nan_to_num(0, 0, 0).abs().max().item()
            torch.testing.assert_close(
                found, expected[name], rtol=tolerance, atol=tolerance * largest, equal_nan=True,
                msg=lambda m, name=name, x=x: f"{name} of {x.flatten()[:3]}: {m}",
            )  # fmt: skip


@pytest.mark.parametrize("dtype", HALVES)
def test_statistics_beside_float32_parameters_are_float32(dtype: torch.dtype) -> None:
    """Batch norm under autocast: gradients of statistics rounded to halves would be off by a thousandth."""
    torch.manual_seed(0)
    x, scale, shift = (torch.randn(4, 8, 6, 6) + 1).to(dtype), torch.rand(8), torch.randn(8)

    def gradients(norm: Callable[..., Tensor], wide: bool = False) -> tuple[Tensor, ...]:
        leaves = [t.detach().double() if wide else t.detach().clone() for t in (x, scale, shift)]
        leaves = [t.requires_grad_() for t in leaves]
        return torch.autograd.grad((norm(*leaves) * leaves[0]).sum(), leaves)

    def norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, scale, shift, training=True)

    torch._dynamo.reset()
    found, exact = gradients(torch.compile(norm, backend="effcc"))[1], gradients(norm, wide=True)[1]
    assert found.dtype == torch.float32
    eager = (gradients(norm)[1] - exact).abs().max()
    assert (found - exact).abs().max() <= 2 * eager + 1e-6 * exact.abs().max()

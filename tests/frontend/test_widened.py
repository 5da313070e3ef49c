"""The float64 reference follows the model's mathematics, and eager where mathematics jumps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from effcc.accuracy import check
from effcc.frontend.widened import reference, run_widened


def seeded(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def test_results_are_float64_and_nearer_the_truth_than_eager() -> None:
    model, x = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.LayerNorm(64)), seeded(8, 64)
    wide = reference(model, x)
    truth = model.double()(x.double())
    assert wide.dtype == torch.float64
    assert (wide - truth).abs().max() < 1e-12


def test_explicit_down_casts_are_widened() -> None:
    def model(x: Tensor) -> Tensor:
        return (x.bfloat16().float() * torch.full((), 3.0, dtype=torch.float16)).to(torch.float32)

    x = seeded(16)
    assert torch.equal(reference(model, x), x.double() * 3)


def test_constants_in_the_graph_are_widened() -> None:
    def model(x: Tensor) -> Tensor:
        return x + torch.tensor([0.1, 0.2, 0.3])

    x = seeded(3)
    assert torch.equal(reference(model, x), x.double() + torch.tensor([0.1, 0.2, 0.3]).double())


def test_a_discontinuous_op_sees_what_eager_sees() -> None:
    x = torch.tensor([1e8])

    def model(x: Tensor) -> tuple[Tensor, Tensor]:
        y = x + 1.0  # rounds back to 1e8 in float32, does not in float64
        return y > 1e8, torch.round(y)

    above, rounded = reference(model, x)
    assert not above.item()
    assert rounded.item() == 1e8


def test_values_of_a_pooling_stay_wide_while_its_indices_are_eagers() -> None:
    x = seeded(1, 1, 4, 4)

    def values(x: Tensor) -> Tensor:
        return nn.functional.max_pool2d(x / 3, 2)

    def values_and_indices(x: Tensor) -> tuple[Tensor, Tensor]:
        return nn.functional.max_pool2d(x / 3, 2, return_indices=True)

    assert torch.equal(reference(values, x), nn.functional.max_pool2d(x.double() / 3, 2))
    assert torch.equal(reference(values_and_indices, x)[1], values_and_indices(x)[1])


def test_indices_of_a_recorded_pooling_that_nothing_reads_are_none() -> None:
    x = seeded(1, 1, 4, 4)
    recorded = make_fx(lambda x: (nn.functional.max_pool2d(x / 3, 2),))(x)
    (result,) = run_widened(recorded, (x,))
    assert torch.equal(result, nn.functional.max_pool2d(x.double() / 3, 2))


def test_random_numbers_are_eagers() -> None:
    def model(x: Tensor) -> Tensor:
        return x * torch.rand(16)

    x = seeded(16)
    torch.manual_seed(0)
    eager = model(x)
    torch.manual_seed(0)
    assert check(reference(model, x), eager, eager).ok


def test_nothing_is_mutated() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            return x * self.count

    model = Counter()
    assert reference(model, torch.ones(1)).item() == 1.0
    assert model.count.item() == 0.0


def test_fused_attention_without_dropout_is_widened() -> None:
    q, k, v = seeded(3, 1, 2, 9, 8)

    def model(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v)

    truth = model(q.double(), k.double(), v.double())
    assert (reference(model, q, k, v) - truth).abs().max() < 1e-12


def test_views_need_not_fit_the_strides_that_decompositions_give() -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.linear = nn.BatchNorm1d(4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.norm(x.transpose(1, 2)).transpose(1, 2))

    model, x = Normalised().eval(), seeded(2, 3, 4)
    with torch.no_grad():
        expected = model(x)
    torch.testing.assert_close(reference(model, x), expected.double(), rtol=1e-5, atol=1e-6)

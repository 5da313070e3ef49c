"""What import does beside single calls: sizes, dtypes, strides, weights, updates, constants, externs, scans."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effcc.ir.dims import symbol
from tests.frontend.import_checks import assert_same, function, trace


def gaussian(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def check(model: Any, *args: Any, tolerance: float = 1e-5, **options: Any) -> Any:
    """Trace, compare with eager, and return the imported graph."""
    traced = trace(model, *args, **options)
    assert_same(traced.interpreted(), traced.eager(), tolerance)
    return traced.imported


class Encoder(nn.Module):
    """A small block with products, attention, a norm and a residual."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.project, self.norm = nn.Linear(width, 3 * width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.project(self.norm(x)).view(batch, length, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + y.transpose(1, 2).reshape(batch, length, width)


def test_sizes_stay_symbolic() -> None:
    imported = check(Encoder().eval(), gaussian(2, 5, 8), dynamic=True)
    (x,) = [p for p in imported.graph.params if p.name == "x"]
    assert all(not isinstance(n, int) for n in x.type.shape[:2])
    assert imported.graph.outputs[0].type.shape == x.type.shape
    assert set(imported.hints.values()) == {2, 5}
    for name in imported.graph.size_symbols():
        assert imported.graph.ranges[name][0] >= 0


def test_arithmetic_on_sizes() -> None:
    def f(x: Tensor) -> Any:
        n = x.shape[0]
        padded = F.pad(x, (0, 0, 0, (-n) % 4))
        return padded.view(-1, 4, x.shape[1]).sum(1), x[: n // 2] * n, torch.arange(n), x.mean(0), n + 1

    check(function(f), gaussian(7, 3), dynamic=True)


def test_a_size_that_stands_in_no_shape_gets_a_parameter() -> None:
    def f(x: Tensor, n: int) -> Tensor:
        return x * n + torch.full((n,), 2.0).sum()

    torch._dynamo.reset()
    imported = check(function(f), gaussian(3), 5, dynamic=True)
    (name,) = imported.lone_sizes
    (param,) = [p for p in imported.graph.params if p.type.shape == (symbol(name),)]
    assert param.type.strides == (0,)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_floating_dtypes(dtype: torch.dtype) -> None:
    model = Encoder().eval().to(dtype)
    check(model, gaussian(2, 5, 8, dtype=dtype), tolerance=1e-6 if dtype == torch.float64 else 3e-2)


def test_a_half_tensor_meets_a_number_in_single_precision() -> None:
    """0.1 is not a bfloat16: eager multiplies by the float32 0.1 and rounds once, and so does the graph."""
    x = gaussian(1000, dtype=torch.bfloat16)
    traced = trace(function(lambda x: x * 0.1), x)
    assert torch.equal(traced.interpreted()[0], traced.eager()[0])


def test_outputs_keep_their_strides() -> None:
    imported = check(function(lambda x: ((x + 1).t(), x * 2)), gaussian(2, 3))
    assert [o.type.strides for o in imported.graph.outputs] == [(1, 3), None]


def test_inputs_tell_their_strides() -> None:
    imported = check(function(lambda x: x + 1), gaussian(3, 2).t())
    assert imported.graph.params[0].type.strides == (1, 2)


def test_parameters_and_buffers_are_weights() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval()
    imported = check(model, gaussian(2, 3))
    assert {p.name for p in imported.graph.params} - imported.graph.weights == {"args_0"}
    assert {"p0.weight", "p0.bias", "p1.running_mean"} <= imported.graph.weights


def test_a_buffer_that_is_written_is_an_update() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(3))
            self.total: Tensor

        def forward(self, x: Tensor) -> Tensor:
            self.total.add_(x)
            return self.total * 2

    imported = check(Counter(), gaussian(3))
    ((target, value),) = imported.graph.updates
    assert target.name == "total" and value.type == target.type


def test_batch_norm_in_training_updates_its_statistics() -> None:
    imported = check(nn.BatchNorm2d(3).train(), gaussian(2, 3, 4, 4))
    assert {p.name for p, _ in imported.graph.updates} == {"running_mean", "running_var", "num_batches_tracked"}


def test_constants_are_literals_where_they_are_small() -> None:
    small, large = torch.tensor([1.0, -2.0, 3.0]), gaussian(100)
    imported = check(function(lambda x: (x * small.sum(), x.sum() + large)), gaussian(3))
    assert len(imported.graph.params) <= 3


def test_random_numbers_are_drawn_by_pytorch_in_eagers_order() -> None:
    traced = trace(function(lambda x: (torch.rand_like(x) * 0, F.dropout(x, 0.5) + torch.rand(3))), gaussian(3))
    torch.manual_seed(3)
    expected = traced.eager()
    torch.manual_seed(3)
    assert_same(traced.interpreted(), expected)
    externs = [n for n in traced.imported.graph.nodes if n.op == "extern"]
    assert len(externs) == 3
    assert {n.attrs["reason"] for n in externs} == {"random"}


def test_an_op_without_a_form_is_a_call_to_pytorch() -> None:
    traced = trace(function(lambda x: torch.sort(x * 2, dim=-1)), gaussian(2, 5))
    assert_same(traced.interpreted(), traced.eager())
    (extern,) = [n for n in traced.imported.graph.nodes if n.op == "extern"]
    assert (extern.attrs["target"], extern.attrs["reason"]) == ("aten::sort.default", "no-op")


def test_a_check_that_gives_nothing_still_runs() -> None:
    """`inv` reports a singular matrix by a call of its own, ordered by a token."""
    traced = trace(function(torch.linalg.inv), gaussian(3, 3))
    token, *results = traced.interpreted()
    assert token is None
    assert_same(results, traced.eager()[1:])
    assert "effect" in {n.attrs.get("reason") for n in traced.imported.graph.nodes}


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: x.to(torch.complex32).abs(), "gives a tensor with dtype torch.complex32; leave it out"),
        (lambda x: torch.bincount(x.abs().long()), "gives sizes that depend on data"),
    ],
)
def test_what_cannot_be_compiled_is_refused_with_its_line(f: Any, message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        trace(function(f), gaussian(8))
    assert "test_import_graphs.py:" in str(caught.value)


@pytest.mark.parametrize("norm_first", [False, True])
def test_an_encoder_layer_comes_apart(norm_first: bool) -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first).eval()
    assert "extern" not in [n.op for n in check(model, gaussian(2, 5, 8)).graph.nodes]


@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_layers_are_scans(make: Any, bidirectional: bool) -> None:
    model = make(4, 3, num_layers=2, bidirectional=bidirectional, batch_first=True).eval()
    imported = check(model, gaussian(2, 5, 4))
    cells = [n.op for n in imported.graph.nodes if n.op in ("lstm", "gru", "rnn")]
    assert len(cells) == (4 if bidirectional else 2)


def test_the_forward_half_of_a_training_step() -> None:
    check(Encoder(), gaussian(2, 5, 8).requires_grad_(), gradients=True)


def test_nodes_say_where_they_come_from() -> None:
    traced = trace(Encoder().eval(), gaussian(2, 5, 8))
    locations = [n.location for n in traced.imported.graph.nodes]
    assert any(loc.startswith("test_import_graphs.py:") and "self.project" in loc for loc in locations)

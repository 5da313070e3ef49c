"""Recurrent layers stay whole, and mean what PyTorch's do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from effcc.frontend import capture, export, recurrent

LAYERS: dict[str, Callable[[], nn.RNNBase]] = {
    "lstm": lambda: nn.LSTM(6, 5, 2),
    "lstm, batch first, both directions": lambda: nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True),
    "lstm, projected": lambda: nn.LSTM(6, 5, proj_size=3),
    "lstm, no biases": lambda: nn.LSTM(6, 5, bias=False),
    "gru, both directions": lambda: nn.GRU(6, 5, 2, bidirectional=True),
    "rnn": lambda: nn.RNN(6, 5),
    "rnn with relu": lambda: nn.RNN(6, 5, nonlinearity="relu"),
}


def compiled(model: nn.Module, graphs: list[fx.GraphModule]) -> Callable[..., Any]:
    """`model` under torch.compile, its captured graphs run as they are and kept in `graphs`."""

    def keep(graph_module: fx.GraphModule, inputs: Sequence[Any], signature: capture.Signature) -> fx.GraphModule:
        graphs.append(graph_module)
        return graph_module

    return capture.compile_apart(model, keep)


def targets(graph_module: fx.GraphModule) -> list[str]:
    return [str(node.target) for node in graph_module.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_one_operator_a_direction_and_equals_eager(name: str) -> None:
    torch.manual_seed(0)
    layer, x = LAYERS[name]().eval(), torch.randn(4, 3, 6)
    graphs: list[fx.GraphModule] = []
    with torch.no_grad():
        y, final = compiled(layer, graphs)(x)
        expected, expected_final = layer(x)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(final, expected_final)
    assert y.stride() == expected.stride()
    (graph,) = graphs
    directions = layer.num_layers * (2 if layer.bidirectional else 1)
    assert targets(graph).count("effcc.recurrent.default") == directions


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_equal_eagers(name: str) -> None:
    torch.manual_seed(0)
    layer, x = LAYERS[name](), torch.randn(4, 3, 6)
    weights = list(layer.parameters())
    expected = torch.autograd.grad(layer(x)[0].sin().sum(), weights)
    got = torch.autograd.grad(compiled(layer, [])(x)[0].sin().sum(), weights)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", LAYERS)
def test_export_gives_the_same_operator(name: str) -> None:
    torch.manual_seed(0)
    layer, x = LAYERS[name]().eval(), torch.randn(4, 3, 6)
    captured = export.capture(layer, (x,))
    assert "effcc.recurrent.default" in targets(captured.graph_module)
    torch.testing.assert_close(captured(x)[0], layer(x)[0].detach())


def test_dropout_between_layers_stays_between_them() -> None:
    layer, x = nn.LSTM(6, 5, 3, dropout=0.5), torch.randn(4, 3, 6)
    graphs: list[fx.GraphModule] = []
    with torch.no_grad():
        compiled(layer, graphs)(x)
    assert targets(graphs[0]).count("effcc.recurrent.default") == 3
    assert sum("dropout" in target or "rand" in target or "bernoulli" in target for target in targets(graphs[0])) == 2


def test_packed_sequences_keep_pytorchs_operator() -> None:
    graph = fx.Graph()
    data, sizes, hx, weight = (graph.placeholder(name) for name in ("data", "sizes", "hx", "weight"))
    packed = graph.call_function(torch.gru, (data, sizes, hx, [weight], True, 1, 0.0, False, False))
    graph.output(packed)
    module = recurrent.keep_recurrent_layers(fx.GraphModule(nn.Module(), graph))
    assert packed.target is torch.gru and module.graph is not None


def test_states_that_the_caller_gives_are_used() -> None:
    layer = nn.GRU(6, 5).eval()
    x, h = torch.randn(4, 3, 6), torch.randn(1, 3, 5)
    with torch.no_grad():
        got: tuple[Tensor, Tensor] = compiled(layer, [])(x, h)
        torch.testing.assert_close(got, layer(x, h))

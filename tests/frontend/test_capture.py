"""What torch.compile hands us: one functional graph, its inputs and results described."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from effcc.frontend import capture


class Recorder:
    """A backend that keeps what it was given and runs the graphs as they are."""

    def __init__(self) -> None:
        self.calls: list[tuple[fx.GraphModule, Sequence[Any], capture.Signature]] = []

    def compile_fx(self, graph_module: fx.GraphModule, inputs: Sequence[Any], signature: capture.Signature) -> Any:
        self.calls.append((graph_module, inputs, signature))
        return graph_module

    def compile(self, model: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        return capture.compile_apart(model, self.compile_fx, **options)

    @property
    def signature(self) -> capture.Signature:
        return self.calls[-1][2]

    def targets(self, call: int = -1) -> list[str]:
        return [str(node.target) for node in self.calls[call][0].graph.nodes if node.op == "call_function"]


class Counter(nn.Module):
    """Counts its calls in a buffer and scales by the count."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 4)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)
        return self.out(x) * self.count


def test_parameters_and_buffers_are_static_and_named_as_the_user_names_them() -> None:
    recorder, model = Recorder(), Counter()
    with torch.no_grad():
        recorder.compile(model)(torch.ones(2, 4))
    signature = recorder.signature
    static = {signature.input_names[i] for i in signature.static_inputs}
    assert static == {"out.weight", "out.bias", "count"}
    assert set(signature.input_names) - static == {"x"}


def test_mutations_stay_in_the_graph_and_are_listed() -> None:
    recorder, model = Recorder(), Counter()
    compiled = recorder.compile(model)
    with torch.no_grad():
        compiled(torch.ones(2, 4))
        result = compiled(torch.ones(2, 4))
        assert model.count.item() == 2
        torch.testing.assert_close(result, model.out(torch.ones(2, 4)) * 2)
    assert recorder.targets().count("aten.copy_.default") == 1
    assert [recorder.signature.input_names[i] for i in recorder.signature.mutated_inputs] == ["count"]


def test_no_other_op_mutates() -> None:
    def model(x: Tensor) -> Tensor:
        y = x.clone()
        y[0].add_(1).mul_(2)
        y.index_add_(0, torch.tensor([1]), x[:1])
        return y

    recorder = Recorder()
    recorder.compile(model)(torch.ones(2, 4))
    schemas = [
        n.target._schema for n in recorder.calls[0][0].graph.nodes if isinstance(n.target, torch._ops.OpOverload)
    ]
    assert schemas and not any(schema.is_mutable for schema in schemas)


@pytest.mark.parametrize(
    "model",
    [
        lambda x: x.transpose(0, 2) + 1,
        lambda x: nn.functional.scaled_dot_product_attention(x[None], x[None], x[None]),
        lambda x: nn.functional.conv2d(x[None].to(memory_format=torch.channels_last), torch.ones(4, 2, 3, 3)),
        lambda x: x.permute(1, 0, 2).contiguous().permute(1, 0, 2).exp(),
    ],
)
def test_output_strides_are_eagers(model: Callable[[Tensor], Tensor]) -> None:
    recorder, x = Recorder(), torch.randn(2, 8, 16)
    recorder.compile(model)(x)
    assert recorder.signature.output_strides == (model(x).stride(),)


def test_sizes_stay_symbolic_where_they_change() -> None:
    recorder = Recorder()
    compiled = recorder.compile(lambda x: x.softmax(-1) @ x.T, dynamic=True)
    for rows in (3, 5, 8):
        compiled(torch.randn(rows, 4))
    assert len(recorder.calls) == 1
    assert any(isinstance(value, torch.SymInt) for value in recorder.calls[0][1])


def test_a_model_that_learns_is_captured_in_two_halves() -> None:
    recorder, model = Recorder(), nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1))
    x, weights = torch.randn(3, 4), list(model.parameters())
    expected = torch.autograd.grad(model(x).sum(), weights)
    got = torch.autograd.grad(recorder.compile(model)(x).sum(), weights)
    torch.testing.assert_close(got, expected)
    assert [signature.role for _, _, signature in recorder.calls] == ["forward", "backward"]
    forward, backward = recorder.calls[0][2], recorder.calls[1][2]
    assert {forward.input_names[i] for i in forward.static_inputs} == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert {backward.input_names[i] for i in backward.static_inputs} <= {"0.weight", "2.weight"}


def test_attention_stays_whole_forward_and_backward() -> None:
    recorder, x = Recorder(), torch.randn(1, 2, 8, 4, requires_grad=True)
    attention = nn.functional.scaled_dot_product_attention
    (expected,) = torch.autograd.grad(attention(x, x, x, is_causal=True).sin().sum(), x)
    (got,) = torch.autograd.grad(recorder.compile(lambda x: attention(x, x, x, is_causal=True))(x).sin().sum(), x)
    torch.testing.assert_close(got, expected)
    forward = {str(node.target) for node in recorder.calls[0][0].graph.nodes}
    assert "aten._scaled_dot_product_flash_attention_for_cpu.default" in forward


def test_equal_inputs_passed_twice_keep_their_names_apart() -> None:
    recorder, x, y = Recorder(), torch.ones(3), torch.ones(3)
    recorder.compile(lambda first, second: first + 2 * second)(x, y)
    assert set(recorder.signature.input_names) == {"first", "second"}

"""Programs that PT2E quantized: their operators are computed natively, and their int8 weights stay int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import effcc
from effcc.backend import programs_of
from effcc.frontend.decomposed_quantization import load_operators
from effcc.frontend.export import capture, load_exported

load_operators()
ops: Any = torch.ops.quantized_decomposed


@pytest.fixture(autouse=True)
def afresh() -> None:
    """Models of one class share their code, of which Dynamo compiles eight forms and no more."""
    torch._dynamo.reset()


class Static(nn.Module):
    """A layer as PT2E's quantizers make it of `nn.Linear`: static activations, a scale for each output channel."""

    def __init__(self, zero: int = 0, scale_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.values = nn.Buffer(torch.randint(-127, 128, (24, 16), dtype=torch.int8))
        self.scale = nn.Buffer(torch.rand(24, dtype=scale_dtype) * 0.01 + 0.001)
        self.zero = nn.Buffer(torch.full((24,), zero, dtype=torch.int64))
        self.bias = nn.Buffer(torch.randn(24))

    def weight(self) -> Tensor:
        made: Tensor = ops.dequantize_per_channel(self.values, self.scale, self.zero, 0, -128, 127, torch.int8)
        return made

    def inputs(self, x: Tensor) -> Tensor:
        q = ops.quantize_per_tensor(x, 0.0173, 121, 0, 255, torch.uint8)
        made: Tensor = ops.dequantize_per_tensor(q, 0.0173, 121, 0, 255, torch.uint8)
        return made

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(nn.functional.linear(self.inputs(x), self.weight(), self.bias))


class Dynamic(Static):
    """The same with the scale and zero point of the inputs chosen at each call."""

    def inputs(self, x: Tensor) -> Tensor:
        scale, zero = ops.choose_qparams.tensor(x, 0, 255, 0.000244140625, torch.uint8)
        q = ops.quantize_per_tensor.tensor(x, scale, zero, 0, 255, torch.uint8)
        made: Tensor = ops.dequantize_per_tensor.tensor(q, scale, zero, 0, 255, torch.uint8)
        return made


class Symmetric(Static):
    """The same without zero points, in int8."""

    def inputs(self, x: Tensor) -> Tensor:
        scale, zero = ops.choose_qparams_symmetric.tensor(x, -127, 127, 0.000244140625, torch.int8)
        q = ops.quantize_per_tensor.tensor(x, scale, zero, -127, 127, torch.int8)
        made: Tensor = ops.dequantize_per_tensor.tensor(q, scale, zero, -127, 127, torch.int8)
        return made


class ByToken(Static):
    """The same with a scale and zero point for each row of the inputs."""

    def inputs(self, x: Tensor) -> Tensor:
        scale, zero = ops.choose_qparams_per_token_asymmetric(x, torch.int8)
        q = ops.quantize_per_token(x, scale, zero, -128, 127, torch.int8)
        made: Tensor = ops.dequantize_per_token(q, scale, zero, -128, 127, torch.int8, torch.float32)
        return made


every_kind = pytest.mark.parametrize("kind", [Static, Dynamic, Symmetric, ByToken])


@every_kind
def test_a_package_needs_no_pytorch_and_computes_the_same(kind: type[Static], tmp_path: Path) -> None:
    model, x = kind().eval(), torch.randn(5, 16)
    program = torch.export.export(model, (x,))
    torch.export.save(program, tmp_path / "model.pt2")
    made = effcc.load(effcc.export(load_exported(tmp_path / "model.pt2").module(), (x,), tmp_path / "model.effcc"))
    for spread in (0.1, 1.0, 30.0):
        inputs = torch.randn(5, 16) * spread
        torch.testing.assert_close(made(inputs), model(inputs), rtol=1e-5, atol=1e-5 * spread)


@every_kind
def test_compiled_programs_run_without_pytorchs_kernels(kind: type[Static]) -> None:
    model, x = kind().eval(), torch.randn(5, 16)
    with torch.no_grad():
        compiled = torch.compile(model, backend="effcc")
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)
    assert not effcc.stats(compiled).externs


@pytest.mark.parametrize("kind", [Static, Dynamic])
def test_activations_are_the_very_integers_of_eager(kind: type[Static]) -> None:
    model = kind().eval()
    x = torch.cat([torch.linspace(-3, 3, 4001), torch.arange(-200, 200) * (0.0173 / 2)])[:, None].repeat(1, 16)
    with torch.no_grad():
        found = torch.compile(model.inputs, backend="effcc", fullgraph=True)(x)
        assert torch.equal(found, model.inputs(x))


def _decodes(model: nn.Module) -> int:
    captured = capture(model, (torch.randn(5, 16),))
    return len(captured.graph_module.graph.find_nodes(op="call_function", target=torch.ops.effcc.decode.default))


def test_an_int8_weight_stays_int8() -> None:
    assert _decodes(Static()) == 1


@pytest.mark.parametrize("model", [Static(zero=3), Static(scale_dtype=torch.float64)], ids=["zero point", "f64 scale"])
def test_what_no_encoding_is_exactly_is_computed_by_operators(model: Static, tmp_path: Path) -> None:
    assert _decodes(model) == 0
    x = torch.randn(5, 16)
    made = effcc.load(effcc.export(model.eval(), (x,), tmp_path / "model.effcc"))
    torch.testing.assert_close(made(x), model(x), rtol=1e-5, atol=1e-5)


def _products(compiled: Any) -> list[str]:
    (program,) = programs_of(compiled)
    assert program.state.graph is not None
    return [str(n.result.type.dtype) for n in program.state.graph.nodes if n.op == "linear"]


@every_kind
def test_compiled_modules_multiply_integers_whatever_zero_points_their_weights_have(kind: type[Static]) -> None:
    model = kind().eval()
    compiled: Any = torch.compile(model, backend="effcc", dynamic=False)
    with torch.no_grad():
        for zero in (0, 3, -128, 127, 300, -5000, 2**40):
            model.zero.fill_(zero)
            model.zero[3] = -zero
            x = torch.randn(5, 16)
            wide = model.scale.double()[:, None] * (model.values.double() - model.zero.double()[:, None])
            expected = torch.relu(model.inputs(x).double() @ wide.T + model.bias)
            largest = (model.inputs(x).abs().double() @ wide.abs().T).max().item() + 1
            torch.testing.assert_close(compiled(x).double(), expected, rtol=0, atol=4e-7 * largest)
    assert _products(compiled) == ["i32"]


class Convolution(nn.Module):
    """A convolution as PT2E's quantizers make it of `nn.Conv2d`."""

    def __init__(self, taps: int, groups: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.taps, self.groups = taps, groups
        self.values = nn.Buffer(torch.randint(-127, 128, (12, 8 // groups, taps, taps), dtype=torch.int8))
        self.scale = nn.Buffer(torch.rand(12) * 0.01 + 0.001)
        self.zero = nn.Buffer(torch.zeros(12, dtype=torch.int64))
        self.bias = nn.Buffer(torch.randn(12))

    def inputs(self, x: Tensor) -> Tensor:
        q = ops.quantize_per_tensor(x, 0.0173, 121, 0, 255, torch.uint8)
        made: Tensor = ops.dequantize_per_tensor(q, 0.0173, 121, 0, 255, torch.uint8)
        return made

    def multiplied(self, x: Tensor, weight: Tensor) -> Tensor:
        return nn.functional.conv2d(
            x, weight, self.bias.to(x.dtype), self.taps - 1 or 1, self.taps // 2, 1, self.groups
        )

    def forward(self, x: Tensor) -> Tensor:
        weight = ops.dequantize_per_channel(self.values, self.scale, self.zero, 0, -128, 127, torch.int8)
        return torch.relu(self.multiplied(self.inputs(x), weight))


@pytest.mark.parametrize(("taps", "groups", "product"), [(1, 1, ["i32"]), (3, 1, ["i32", "f32"]), (3, 4, ["f32"])])
def test_compiled_convolutions_multiply_integers_whatever_zero_points_their_weights_have(
    taps: int, groups: int, product: list[str]
) -> None:
    """Those of all channels, beside sums of windows; at borders, too, where inputs' zero point stands for 0."""
    model = Convolution(taps, groups).eval()
    compiled: Any = torch.compile(model, backend="effcc", dynamic=False)
    with torch.no_grad():
        for zero in (0, 3, -128, 127, 300, -5000, 2**40):
            model.zero.fill_(zero)
            model.zero[3] = -zero
            x = torch.randn(2, 8, 7, 9)
            steps, wide = model.scale.double()[:, None], model.values.double().flatten(1) - model.zero.double()[:, None]
            weight = (steps * wide).reshape(model.values.shape)
            expected = torch.relu(model.multiplied(model.inputs(x).double(), weight))
            largest = model.multiplied(model.inputs(x).abs().double(), weight.abs()).max().item() + 1
            torch.testing.assert_close(compiled(x).double(), expected, rtol=0, atol=4e-7 * largest)
    (program,) = programs_of(compiled)
    assert program.state.graph is not None
    found = [str(n.result.type.dtype) for n in program.state.graph.nodes if n.op == "convolution"]
    assert found == product


def test_one_row_is_multiplied_by_the_weight_as_floats() -> None:
    model, x = Static(zero=3).eval(), torch.randn(1, 16)
    compiled: Any = torch.compile(model, backend="effcc", dynamic=False)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)
    assert _products(compiled) == ["f32"]


def test_the_users_program_stays_as_it_was() -> None:
    program = torch.export.export(Static(), (torch.randn(5, 16),))
    before = str(program.graph)
    from effcc.frontend.export import from_exported

    captured = from_exported(program)
    assert str(program.graph) == before
    x = torch.randn(5, 16)
    assert np.allclose(captured(x), program.module()(x), rtol=1e-5, atol=1e-5)

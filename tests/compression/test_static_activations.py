"""Activations whose range calibration found: exact integers in eager, near the layers they were, the same compiled."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from effcc.compression.activations import Activations, Codes, by_step, codes_of
from effcc.compression.integers import IntegerConv2d, IntegerLinear
from effcc.compression.modules import EncodedConv2d
from effcc.compression.quantize import quantize
from effcc.compression.ranges import Observed, codes_for
from effcc.compression.save import load_into, save
from effcc.errors import CheckpointError, EncodingError, InputError
from tests.compression.test_activations import each_machine, runs

NOTATIONS = ["int8", "int8(zero=true)", 'int8(range="mse")', 'int8(zero=true,range="percentile")']


def convolutions() -> nn.Sequential:
    """One of each kind: grouped, depthwise, strided, dilated, padded otherwise, pointwise; and what follows them."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU6(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.Hardswish(),
        nn.Conv2d(16, 24, (1, 5), padding="same", groups=4),
        nn.GELU(),
        nn.Conv2d(24, 40, 1),
        nn.ReLU(),
        nn.Conv2d(40, 8, 3, padding=2, dilation=2, padding_mode="reflect"),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 10),
    ).eval()


def pictures(count: int) -> Tensor:
    return torch.randn(count, 3, 19, 21, generator=torch.Generator().manual_seed(count))


def in_integers(module: Any, x: Tensor) -> Tensor:
    """What a quantized layer computes, with sums in f64, which holds them all."""
    whole = by_step(module._padded(x) if isinstance(module, nn.Conv2d) else x, module.input_step, module.activations)
    values, scale = whole.double() - module.activations.zero, module.weight_values.double()
    if isinstance(module, nn.Linear):
        sums = values @ scale.T
        return sums * (module.input_step * module.weight_scale) + module.bias
    padding = module.padding if module.padding_mode == "zeros" else 0
    sums = nn.functional.conv2d(values, scale, None, module.stride, padding, module.dilation, module.groups)
    bias = 0 if module.bias is None else module.bias.reshape(-1, 1, 1)
    return sums * (module.input_step * module.weight_scale).reshape(-1, 1, 1) + bias


@pytest.mark.parametrize("notation", NOTATIONS)
def test_layers_are_exact_in_integers_and_near_what_they_were(notation: str) -> None:
    plain = convolutions()
    layers = quantize(copy.deepcopy(plain), activations=notation, data=[pictures(2), pictures(3)])
    integer = [m for m in layers if isinstance(m, IntegerConv2d | IntegerLinear)]
    assert len(integer) == 6
    assert {m.activations.unsigned for m in integer} == ({True} if "zero" in notation else {False, True})
    x = pictures(2)
    with torch.no_grad():
        far = (layers(x) - plain(x)).norm() / plain(x).norm()
        assert 0 < far < 0.05
        for layer in layers:
            if isinstance(layer, IntegerConv2d | IntegerLinear):
                torch.testing.assert_close(layer(x).double(), in_integers(layer, x), rtol=1e-5, atol=1e-5)
            x = layer(x)


def test_layers_are_the_same_compiled() -> None:
    layers = quantize(convolutions(), activations="int8", data=pictures(2))
    x = pictures(3)
    compiled = torch.compile(layers, backend="effcc")
    with torch.no_grad():
        # Layers after the first quantize what may differ by a rounding: by a step, then.
        torch.testing.assert_close(compiled(x), layers(x), rtol=0, atol=2e-2)


class Several(nn.Module):
    """Layers of all kinds, each given the first channels of one input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.ModuleList([
            nn.Conv2d(8, 20, 3, padding=1),
            nn.Conv2d(32, 40, 3, stride=2, padding=1, bias=False),
            nn.Conv2d(20, 33, 1),
            nn.Conv2d(24, 24, 3, padding=1, groups=24),
            nn.Conv2d(24, 48, 5, padding=(2, 0), stride=(1, 3), groups=3),
            nn.Conv2d(3, 8, 7, stride=2, padding=3),
            nn.Conv2d(8, 8, 3, padding=2, dilation=2),
        ])  # fmt: skip

    def forward(self, x: Tensor) -> list[Tensor]:
        return [layer(x[:, : layer.in_channels]) for layer in self.layers]


@each_machine
@pytest.mark.parametrize("notation", ["int8", pytest.param("int8(zero=true)", marks=pytest.mark.slow)])
def test_sums_are_those_of_the_integers(machine: str, notation: str) -> None:
    x = torch.randn(2, 32, 13, 11)
    module = quantize(Several().eval(), activations=notation, data=x)
    compiled = torch.compile(module, backend="effcc", options={"target": runs(machine)})
    with torch.no_grad():
        for got, want in zip(compiled(x), module(x), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def test_reduced_weights_are_so_whatever_their_bytes_hold() -> None:
    x = torch.randn(1, 8, 5, 5)
    layer: Any = quantize(nn.Conv2d(8, 12, 3, padding=1), "int8(reduce_range=true)", activations="int8", data=x)
    assert layer.weight_values.abs().max() == 63
    before = layer(x)
    layer.weight_values.masked_fill_(layer.weight_values == 63, 127)  # as a damaged file might
    with torch.no_grad():
        torch.testing.assert_close(layer(x), before)
        torch.testing.assert_close(torch.compile(layer, backend="effcc")(x), before, rtol=1e-6, atol=1e-6)


def test_what_calibration_chooses() -> None:
    some = torch.linspace(0, 1, 20001)
    far = torch.cat([some, torch.tensor([10.0])])
    assert codes_for(Observed(0, 1, some), Activations()) == (Codes("tensor", True), torch.tensor(1 / 254))
    assert codes_for(Observed(-2, 1, some), Activations())[0] == Codes("tensor")
    codes, step = codes_for(Observed(-1, 3, some), Activations(zero=True))
    assert codes == Codes("tensor", True, 64)
    assert step == 4 / 254
    assert codes_for(Observed(0, 10, far), Activations(range="percentile"))[1] < 1.01 / 254
    normal = torch.randn(1 << 16, generator=torch.Generator().manual_seed(0))
    whole = Observed(float(normal.min()), float(normal.max()), normal)
    off = [
        float(((by_step(normal, step, codes).float() * step) - normal).norm())
        for codes, step in (codes_for(whole, Activations(range=r)) for r in ("minmax", "mse"))
    ]
    assert off[1] < off[0]
    assert codes_for(Observed(0, 0, torch.zeros(4)), Activations())[1] > 0


def test_inputs_that_smoothing_changes_are_seen_changed() -> None:
    torch.manual_seed(2)
    plain, x = nn.Linear(16, 8), torch.randn(64, 16) * torch.logspace(0, 3, 16)
    smooth = quantize(copy.deepcopy(plain), activations="int8", method="smoothquant", data=x)
    assert smooth.input_step * 127 == pytest.approx(float((x * smooth.input_scale).abs().max()))


def test_what_makes_inputs_even_moves_into_the_norm_before() -> None:
    plain = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 8)).eval()
    plain[0].weight.data[[3, 9]] = 40
    x = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    beside, folded = (
        quantize(copy.deepcopy(plain), activations="int8", method="smoothquant", data=x, fold=fold)
        for fold in (False, True)
    )
    nearest = quantize(copy.deepcopy(plain), activations="int8", data=x)
    assert [layer.input_scale is None for layer in (beside[1], beside[3], folded[1], folded[3])] == [0, 0, 1, 1]
    want = plain(x)
    errors = [(layers(x) - want).norm() for layers in (nearest, beside, folded)]
    assert errors[2] < errors[0] / 2 and errors[2] < 1.2 * errors[1]


def test_what_cannot_be_calibrated_is_refused_and_the_model_stays() -> None:
    model = convolutions()
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({}, InputError, "needs calibration data"),
        ({"data": []}, InputError, "at least one call"),
        ({"data": torch.full((1, 3, 19, 21), float("nan"))}, InputError, "infinities or NaN"),
        ({"data": torch.randn(1, 4, 19, 21)}, InputError, "does not take call 0"),
        ({"data": pictures(1), "scheme": "int4"}, EncodingError, "stored as int8"),
        ({"data": pictures(1), "activations": 'int8(per="token")', "where": lambda n, m: isinstance(m, nn.Conv2d)},
         EncodingError, "not in Conv2d"),
    ]  # fmt: skip
    for given, error, said in cases:
        with pytest.raises(error, match=said):
            quantize(model, **{"activations": "int8", **given})
        assert all(type(m).__module__.startswith("torch.") for m in model)
    unused = nn.ModuleDict({"used": nn.Linear(3, 2), "unused": nn.Linear(3, 2)})
    unused.forward = lambda x: unused["used"](x)  # type: ignore[method-assign]
    with pytest.raises(InputError, match="unused never ran"):
        quantize(unused, activations="int8", data=torch.ones(1, 3))
    far = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 2))
    nn.init.constant_(far[0].weight, 10.0)
    with pytest.raises(InputError, match="infinities or NaN reach 1"):
        quantize(far, activations="int8", data=torch.full((1, 1), 3e38))
    with pytest.raises(EncodingError, match=r"nn.Linear and nn.Conv2d, not in Conv1d"):
        quantize(nn.Sequential(nn.Conv1d(3, 3, 3)), activations="int8", data=torch.randn(1, 3, 9), where=lambda n, m: n)


def test_a_saved_model_is_loaded_exported_and_copied(tmp_path: Path) -> None:
    layers, x = quantize(convolutions(), activations="int8", data=pictures(2)), pictures(2)
    with torch.no_grad():
        want = layers(x)
        path = save(layers, tmp_path / "layers.safetensors")
        assert torch.equal(load_into(convolutions(), path)(x), want)
        assert torch.equal(load_into(quantize(convolutions()), path)(x), want)
        assert torch.equal(copy.deepcopy(layers)(x), want)
        assert torch.equal(torch.export.export(layers, (x,)).module()(x), want)
        assert torch.equal(torch.compile(layers, backend="aot_eager")(x), want)
    weights = quantize(convolutions(), where=lambda n, m: isinstance(m, nn.Conv2d | nn.Linear))
    back = load_into(layers, save(weights, tmp_path / "weights.safetensors"))
    assert type(back[0]) is EncodedConv2d
    assert "input_step" not in dict(back.named_buffers())


def test_a_file_without_the_step_is_refused(tmp_path: Path) -> None:
    layer = quantize(nn.Linear(3, 2), activations="int8", data=torch.ones(1, 3))
    layer.input_step = torch.tensor(float("nan"))
    with pytest.raises(CheckpointError, match="expected a positive step"):
        load_into(nn.Linear(3, 2), save(layer, tmp_path / "layer.safetensors"))


@pytest.mark.parametrize(
    "codes",
    [
        Codes("token"),
        Codes("tensor"),
        Codes("tensor", True),
        Codes("tensor", True, 255),
        Codes("tensor", True, 127, bits=7),
    ],
)
def test_what_is_written_of_codes_is_read(codes: Codes) -> None:
    assert codes_of(str(codes)) == codes

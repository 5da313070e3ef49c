"""Layers whose activations are bytes too: the same integers in eager, exported and compiled, for every machine."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import effcc
from effcc.compression.activations import Codes, by_token
from effcc.compression.integers import GroupedLinear, IntegerLinear
from effcc.compression.modules import EncodedLinear
from effcc.compression.quantize import quantize
from effcc.compression.save import load_into, save
from effcc.compression.sparsify import sparsify
from effcc.errors import EncodingError
from tests.compression.on_machines import model, runs

TOKENS = 'int8(per="token")'
MACHINES = ["avx2", "host"]
OTHERS = ["scalar", "avx2_vnni", "avx512", "avx512_vnni"]
each_machine = pytest.mark.parametrize(
    "machine", [*MACHINES, *(pytest.param(m, marks=pytest.mark.slow) for m in OTHERS)]
)


def drawn(*shape: int) -> Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8)


class Products(nn.Module):
    """Products of bytes as people write them, with weights and without, whose sums need all 32 bits and wrap around."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.register_buffer("w", drawn(40, 133))
        self.register_buffer("rows", drawn(31, 9))
        self.register_buffer("lowest", torch.full((2, (1 << 17) + 5), -128, dtype=torch.int8))
        self.register_buffer("unsigned", torch.randint(0, 256, (24, 133), dtype=torch.uint8))

    def forward(self, x: Tensor, lowest: Tensor) -> list[Tensor]:
        return [
            torch._int_mm(x, self.w.t()),
            torch._int_mm(x[:, :31], self.rows),
            torch.nn.functional.linear(x.reshape(3, 5, 133).int(), self.w.int(), torch.arange(40, dtype=torch.int32)),
            (x.int() + 128).to(torch.uint8).int() @ self.w.int().t(),
            x.int() @ self.unsigned.int().t(),
            x.int() @ x.int().t(),
            torch._int_mm(lowest, self.lowest.t()),
        ]


@each_machine
def test_sums_of_bytes_are_those_of_the_integers(machine: str) -> None:
    module = Products().eval()
    x, lowest = drawn(15, 133), torch.full((3, (1 << 17) + 5), -128, dtype=torch.int8)
    compiled = torch.compile(module, backend="effcc", fullgraph=True, options={"target": runs(machine)})
    with torch.no_grad():
        for got, want in zip(compiled(x, lowest), module(x, lowest), strict=True):
            assert torch.equal(got, want)
    assert "aten::" not in str(effcc.explain(module, measure=False))


@each_machine
def test_a_layer_of_bytes_is_the_same_compiled(machine: str) -> None:
    layers = quantize(model(), activations=TOKENS)
    x = torch.randn(2, 5, 37)
    x[0, 0] = 0
    compiled = torch.compile(layers, backend="effcc", options={"target": runs(machine)})
    with torch.no_grad():
        # The second layer quantizes what may differ by a rounding: by a step, then.
        torch.testing.assert_close(compiled(x), layers(x), rtol=0, atol=1e-2)


@pytest.mark.parametrize("notation", ['int7(per="token")', "int7(zero=true)"])
def test_seven_bits_are_summed_by_fours_where_bytes_are_not(notation: str) -> None:
    plain, x = nn.Sequential(nn.Conv2d(8, 20, 3, padding=1), nn.Linear(9, 70)).eval(), torch.randn(2, 8, 7, 9)
    layers = quantize(copy.deepcopy(plain), activations=notation, data=x)
    compiled = torch.compile(layers, backend="effcc", options={"target": runs("avx2")})
    with torch.no_grad():
        want = layers(x)
        torch.testing.assert_close(compiled(x), want, rtol=0, atol=1e-2)
        assert 0 < (want - plain(x)).norm() / plain(x).norm() < 0.03
    assert ": u7[" in str(effcc.explain(compiled, measure=False))


GROUPED = ["int4(group=16)", 'int4(group=16,minimum=true,scale="f16")', "int5(group=8,zero=true)"]


@pytest.mark.parametrize("scheme", GROUPED)
@pytest.mark.parametrize("machine", ["avx2", "host", pytest.param("avx512", marks=pytest.mark.slow)])
def test_a_layer_of_groups_is_the_same_compiled(machine: str, scheme: str) -> None:
    plain = nn.Sequential(nn.Linear(96, 80), nn.GELU(), nn.Linear(80, 20, bias=False)).eval()
    layers = quantize(plain, scheme, activations=TOKENS, where=lambda name, m: name == "0")
    assert isinstance(layers[0], GroupedLinear)
    x = torch.randn(3, 17, 96)
    x[0, 0] = 0
    compiled = torch.compile(layers, backend="effcc", options={"target": runs(machine)})
    with torch.no_grad():
        want = layers(x)
        # Quantizing rounds half-way numbers either way, and a step is 1/127 of a row's largest magnitude.
        torch.testing.assert_close(compiled(x), want, rtol=0, atol=1e-4)
        torch.testing.assert_close(layers[0](x), F.linear(x, layers[0].weight, layers[0].bias), rtol=0, atol=0.05)
    assert "aten::" not in str(effcc.explain(compiled, measure=False))


def test_groups_are_summed_in_integers_where_that_is_quicker() -> None:
    layer, x = quantize(nn.Linear(256, 64), "int4(group=32)", activations=TOKENS), torch.randn(64, 256)
    compiled = torch.compile(layer, backend="effcc", options={"target": runs("avx2")})
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layer(x), rtol=0, atol=1e-5)
    assert "summed in integers, a group at a time, 64 rows" in str(effcc.explain(compiled, measure=False))


def test_layers_of_groups_are_saved_and_loaded(tmp_path: Path) -> None:
    layers, x = quantize(model(), "int4(group=8)", activations=TOKENS), torch.randn(5, 37)
    save(layers, tmp_path / "layers.safetensors")
    again = load_into(model(), tmp_path / "layers.safetensors")
    with torch.no_grad():
        assert torch.equal(again(x), layers(x))
    assert isinstance(again[0], GroupedLinear)  # type: ignore[index]


def test_inputs_of_layers_that_are_stored_already_are_quantized() -> None:
    stored, x = quantize(model(), "int4(group=8)"), torch.randn(5, 37)
    both = quantize(model(), "int4(group=8)", activations=TOKENS)
    again = effcc.quantize_activations(effcc.quantize_activations(stored, 'int7(per="token")'))
    with torch.no_grad():
        assert torch.equal(again(x), both(x))


def test_a_model_without_stored_integers_is_refused_and_unchanged() -> None:
    plain = model()
    with pytest.raises(EncodingError, match="no layer's weight is stored as integers"):
        effcc.quantize_activations(plain)
    with pytest.raises(EncodingError, match="0: its weight is dense"):
        effcc.quantize_activations(plain, where=lambda name, m: name == "0")
    assert type(plain[0]) is nn.Linear  # type: ignore[index]
    mixed = quantize(model(), {"0": "int4", "2": "nf4"})
    assert isinstance(effcc.quantize_activations(mixed)[0], GroupedLinear)  # type: ignore[index]
    assert type(mixed[2]) is EncodedLinear  # type: ignore[index]


@pytest.mark.parametrize("scheme", ["nf4", 'fp8("e4m3")'])
def test_weights_that_are_no_integers_are_refused(scheme: str) -> None:
    with pytest.raises(EncodingError, match="as integers of any kind; this one is stored as"):
        quantize(model(), scheme, activations=TOKENS)


def test_a_layer_of_one_input_multiplies() -> None:
    """`torch._int_mm` gives what lies in memory there."""
    layer, x = quantize(nn.Linear(1, 6), activations=TOKENS), torch.randn(4, 1)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-6)


def test_a_layer_of_bytes_is_near_the_layer_it_was() -> None:
    plain, x = model(), torch.randn(64, 37)
    layers = quantize(copy.deepcopy(plain), activations=TOKENS)
    assert isinstance(layers[0], IntegerLinear)  # type: ignore[index]
    with torch.no_grad():
        far = (layers(x) - plain(x)).norm() / plain(x).norm()
    assert 0 < far < 0.02


def test_rows_are_quantized_within_half_a_step() -> None:
    x = torch.randn(50, 33) * torch.logspace(-30, 30, 50)[:, None]
    for bits, largest in ((8, 127), (7, 63)):
        whole, scale = by_token(x, Codes("token", bits=bits))
        assert whole.abs().amax() == largest
        assert ((whole.double() * scale.double() - x.double()).abs() <= scale.double() * (0.5 + 1e-4)).all()


def test_other_backends_and_export_run_it() -> None:
    layers, x = quantize(model(), activations=TOKENS), torch.randn(5, 37)
    with torch.no_grad():
        want = layers(x)
        assert torch.equal(torch.compile(layers, backend="aot_eager")(x), want)
        assert torch.equal(torch.export.export(layers, (x,)).module()(x), want)
        assert torch.equal(copy.deepcopy(layers)(x), want)


@pytest.mark.parametrize(
    "notation",
    [
        "int4",
        "block(4,1)",
        "int8 + int8",
        'int8(per="channel")',
        'int8(per="token",zero=true)',
        'int8(range="all")',
        "int6",
    ],
)
def test_schemes_that_activations_do_not_have_are_refused(notation: str) -> None:
    layers = model()
    with pytest.raises(EncodingError, match="activations: expected int8"):
        quantize(layers, activations=notation)
    assert type(layers[0]) is nn.Linear  # type: ignore[index]


def test_weights_that_are_no_bytes_are_refused_and_the_model_stays() -> None:
    sparse = sparsify(model(), "block(4,1)", density=0.5)
    with pytest.raises(EncodingError, match="stored as block"):
        quantize(sparse, activations=TOKENS)
    convolution = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(3, 4))
    with pytest.raises(EncodingError, match="not in Conv2d"):
        quantize(convolution, activations=TOKENS, where=lambda name, m: not isinstance(m, nn.Sequential))
    assert type(convolution[1]) is nn.Linear


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    layers, x = quantize(model(), activations=TOKENS), torch.randn(5, 37)
    loaded = load_into(model(), save(layers, tmp_path / "layers.safetensors"))
    with torch.no_grad():
        assert torch.equal(loaded(x), layers(x))
    plain = quantize(model())
    assert type(load_into(loaded, save(plain, tmp_path / "plain.safetensors"))[0]) is EncodedLinear

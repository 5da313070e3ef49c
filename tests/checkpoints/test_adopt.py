"""`adopt`: weights of torchao, bitsandbytes and torch.ao decode to what the library's own dequantization gives."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import effcc
from effcc.compression.modules import EncodedConv2d, EncodedLinear
from effcc.errors import CheckpointError, InputError


def layers(dtype: torch.dtype = torch.float32, width: int = 128) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, 96), nn.ReLU(), nn.Linear(96, 64, bias=False)).to(dtype).eval()


def torchao(name: str, **how: Any) -> Callable[[nn.Module], nn.Module]:
    """What quantizes a model with a configuration of torchao's; dtypes and granularities by their names."""

    def quantize(model: nn.Module) -> nn.Module:
        made = pytest.importorskip("torchao.quantization")
        given = {k: v(made) if callable(v) else v for k, v in how.items()}
        made.quantize_(model, getattr(made, name)(**given))
        return model

    return quantize


TORCHAO = {
    "int8": torchao("Int8WeightOnlyConfig"),
    "int8 of a tensor": torchao("Int8WeightOnlyConfig", granularity=lambda q: q.PerTensor()),
    "int4 in groups": torchao("IntxWeightOnlyConfig", weight_dtype=torch.int4, granularity=lambda q: q.PerGroup(32)),
    "int3 from zero points": torchao(
        "IntxWeightOnlyConfig", weight_dtype=torch.int3, granularity=lambda q: q.PerGroup(16),
        mapping_type=lambda q: q.MappingType.ASYMMETRIC,
    ),
    "fp8": torchao("Float8WeightOnlyConfig"),
    "fp8 of five bits": torchao("Float8WeightOnlyConfig", weight_dtype=torch.float8_e5m2),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("quantize", TORCHAO.values(), ids=TORCHAO)
def test_torchaos_weights_keep_their_bits(quantize: Callable[[nn.Module], nn.Module], dtype: torch.dtype) -> None:
    model: Any = quantize(layers(dtype))
    wanted = [model[i].weight.dequantize() for i in (0, 2)]
    assert effcc.adopt(model) is model
    for layer, weight in zip((model[0], model[2]), wanted, strict=True):
        assert type(layer) is EncodedLinear
        assert torch.equal(layer.weight, weight)
        assert layer.encoding in repr(layer)


def bitsandbytes(kind: str, dtype: torch.dtype, **how: Any) -> nn.Sequential:
    """Two layers of bitsandbytes', quantized from random ones."""
    bnb = pytest.importorskip("bitsandbytes")
    dense, made = layers(dtype), layers(dtype)
    for place in (0, 2):
        old = made[place]
        made[place] = getattr(bnb.nn, kind)(old.in_features, old.out_features, bias=old.bias is not None, **how)
    made.to(dtype).load_state_dict(dense.state_dict())
    return made.to("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_bitsandbytes_4_bits_keep_their_bits(kind: str, nested: bool, dtype: torch.dtype) -> None:
    model: Any = bitsandbytes("Linear4bit", dtype, quant_type=kind, compress_statistics=nested)
    import bitsandbytes as bnb

    first = model[0].weight
    wanted = bnb.functional.dequantize_4bit(first.data, first.quant_state)
    model = effcc.adopt(model[:1])
    assert torch.equal(model[0].weight, wanted)
    assert not hasattr(model[0], "quant_state")


def test_bitsandbytes_8_bits_are_off_by_one_rounding() -> None:
    model: Any = bitsandbytes("Linear8bitLt", torch.float32, has_fp16_weights=False)
    wanted = torch.ops.bitsandbytes.int8_vectorwise_dequant(model[0].weight.CB, model[0].weight.SCB)
    with pytest.raises(CheckpointError, match=r"0: bitsandbytes changes what it is given .*weights_only=True"):
        effcc.adopt(model)
    effcc.adopt(model, weights_only=True)
    torch.testing.assert_close(model[0].weight, wanted, rtol=2.0**-22, atol=0)


def packed(kind: type[Any], shape: list[int], per: str, zero: int, **how: Any) -> Any:
    """A module of torch.ao's with a weight drawn at random."""
    torch.manual_seed(0)
    made, dense = kind(*how.pop("sizes"), **how), torch.randn(shape)
    if per == "tensor":
        weight = torch.quantize_per_tensor(dense, 0.0217, zero, torch.qint8)
    else:
        scale = torch.rand(shape[0]) * 0.02 + 0.01
        weight = torch.quantize_per_channel(dense, scale, torch.full((shape[0],), zero), 0, torch.qint8)
    made.set_weight_bias(weight, torch.randn(shape[0]))
    return made.eval()


@pytest.mark.parametrize("zero", [0, -7])
@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_pytorchs_own_weights_keep_their_bits(per: str, zero: int) -> None:
    quantized = torch.ao.nn.quantized
    made: Any = nn.Sequential(
        quantized.Quantize(0.05, 64, torch.quint8),
        packed(quantized.Conv2d, [6, 2, 3, 3], per, zero, sizes=(4, 6, 3), groups=2, padding=1, padding_mode="reflect"),
        nn.ReLU(),
        packed(quantized.Linear, [5, 8], per, zero, sizes=(8, 5)),
        quantized.DeQuantize(),
        packed(quantized.dynamic.Linear, [3, 5], per, zero, sizes=(5, 3)),
    )  # fmt: skip
    weights, biases = zip(*((made[i].weight().dequantize(), made[i].bias()) for i in (1, 3, 5)), strict=True)
    with pytest.raises(CheckpointError, match=r"1: torch.ao changes what it is given .*weights_only=True"):
        effcc.adopt(made)
    with pytest.raises(CheckpointError, match=r"5: torch.ao changes what it is given \(a scale and a zero point"):
        effcc.adopt(made[5:])
    x = torch.randn(2, 4, 6, 8)
    effcc.adopt(made, weights_only=True)
    assert [type(made[i]) for i in (1, 3, 5)] == [EncodedConv2d, EncodedLinear, EncodedLinear]
    wanted = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
    wanted = torch.nn.functional.conv2d(wanted, weights[0], biases[0], groups=2).relu()
    for i, weight in zip((1, 3, 5), weights, strict=True):
        assert torch.equal(made[i].weight, weight)
    for weight, bias in zip(weights[1:], biases[1:], strict=True):
        wanted = torch.nn.functional.linear(wanted, weight, bias)
    torch.testing.assert_close(made(x), wanted)


def test_tensors_quantized_outside_of_modules_are_refused() -> None:
    quantized = torch.ao.nn.quantized
    made = nn.Sequential(packed(quantized.Linear, [5, 8], "tensor", 0, sizes=(8, 5)), quantized.DeQuantize())
    with pytest.raises(CheckpointError, match="Sequential quantizes tensors outside of modules"):
        effcc.adopt(made, weights_only=True)
    halves = quantized.dynamic.Linear(8, 5, dtype=torch.float16)
    with pytest.raises(CheckpointError, match=r"its weight is of torch.float16; known is torch.qint8"):
        effcc.adopt(halves, weights_only=True)


def test_adopted_models_compile() -> None:
    model = effcc.adopt(TORCHAO["int4 in groups"](layers()))
    x = torch.randn(5, 128)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, backend="effcc")(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_model_is_as_it_was_where_one_layer_cannot_be_taken() -> None:
    model = TORCHAO["int8"](layers())
    last = torchao("Int8DynamicActivationInt8WeightConfig")(layers())[2]
    both: Any = nn.Sequential(model[0], last)
    before = copy.copy(both[0].weight)
    with pytest.raises(CheckpointError, match=r"1: torchao changes what it is given \(act_quant_kwargs="):
        effcc.adopt(both)
    assert type(both[0]) is nn.Linear
    assert type(both[0].weight) is type(before)
    effcc.adopt(both, weights_only=True)
    assert type(both[1]) is EncodedLinear


def test_other_libraries_are_refused_by_name() -> None:
    unknown = torch.ao.nn.quantized.Embedding(8, 8)
    with pytest.raises(CheckpointError, match=r"1: it is a torch.ao.nn.quantized.modules.embedding_ops.Embedding"):
        effcc.adopt(nn.Sequential(nn.Linear(8, 8), unknown))
    with pytest.raises(CheckpointError, match=r"no weight that torchao, bitsandbytes or torch\.ao quantized"):
        effcc.adopt(layers())
    with pytest.raises(InputError, match=r"expected an nn\.Module, got int"):
        effcc.adopt(3)  # type: ignore[type-var]


def test_blocks_across_rows_are_refused() -> None:
    model: Any = bitsandbytes("Linear4bit", torch.float32, quant_type="nf4")
    with pytest.raises(CheckpointError, match=r"2: blocks of 64 elements cross rows of 96"):
        effcc.adopt(model)

"""Outlier columns apart from activations in bytes, as LLM.int8() has them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import effcc
from effcc.compression.activations import by_token
from effcc.compression.integers import OutlierLinear
from effcc.compression.quantize import quantize
from effcc.compression.save import load_into, save
from effcc.errors import EncodingError
from tests.compression.on_machines import model, runs

TOKENS = 'int8(per="token")'
MACHINES = ["avx2", "host"]
SCHEME = "outliers(3) + int8"


def inputs() -> Tensor:
    x = torch.randn(9, 37, generator=torch.Generator().manual_seed(3))
    x[:, [5, 11, 30]] *= 200
    return x


def test_columns_with_large_inputs_are_apart_and_spoil_no_scale() -> None:
    plain, x = nn.Linear(37, 20), inputs()
    alone = quantize(copy.deepcopy(plain), activations=TOKENS)
    apart: Any = quantize(copy.deepcopy(plain), SCHEME, activations=TOKENS, data=x)
    assert type(apart) is OutlierLinear and apart.weight_outliers_columns.tolist() == [[5, 11, 30]]
    assert not apart.weight_int8_values[:, [5, 11, 30]].any()
    errors = [(layer(x) - plain(x)).norm() for layer in (alone, apart)]
    assert errors[1] < errors[0] / 20


def test_what_it_computes_is_integers_and_a_thin_product() -> None:
    layer: Any = quantize(nn.Linear(37, 20), SCHEME, activations=TOKENS, data=inputs())
    x = inputs()
    others = x.index_fill(1, torch.tensor([5, 11, 30]), 0)
    whole, step = by_token(others)
    sums = whole.long() @ layer.weight_int8_values.long().t()
    thin = x[:, [5, 11, 30]].double() @ layer.weight.double()[:, [5, 11, 30]].t()
    want = sums.double() * step * layer.weight_int8_scale.double() + thin + layer.bias
    torch.testing.assert_close(layer(x).double(), want, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("machine", MACHINES)
def test_compiled_as_a_contraction_of_integers(machine: str) -> None:
    layers, x = quantize(model(), SCHEME, activations=TOKENS, data=inputs()), inputs()
    compiled = torch.compile(layers, backend="effcc", options={"target": runs(machine)})
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layers(x), rtol=1e-4, atol=1e-3)


def test_saved_and_loaded(tmp_path: Path) -> None:
    layers, x = quantize(model(), SCHEME, activations=TOKENS), inputs()
    save(layers, tmp_path / "layers.safetensors")
    again = load_into(model(), tmp_path / "layers.safetensors")
    assert type(again[0]) is OutlierLinear and torch.equal(again(x), layers(x))
    assert type(effcc.quantize_activations(quantize(model(), SCHEME))[0]) is OutlierLinear


def test_by_one_scale_for_all_calls_it_is_refused() -> None:
    with pytest.raises(EncodingError, match=r"by token also as .*this one is stored as outliers"):
        quantize(model(), SCHEME, activations="int8", data=inputs())

"""`explain` tells how each layer is stored, compiled or not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import effcc
from effcc.errors import InputError


def test_each_layer_has_a_line() -> None:
    model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64), nn.Linear(64, 8))
    effcc.quantize(model, {"0": "int4(group=32)", "2": "int8"}, method="gptq", data=torch.randn(32, 64))
    told = effcc.explain(model)
    first, second, third = told.layers
    assert (first.encoding, first.bytes, first.dense_bytes) == ("int4(group=32)", 64 * 256 // 2 + 4 * 512, 64 * 256 * 4)
    assert 0 < second.error < first.error < 0.2  # type: ignore[operator]
    assert (third.encoding, third.bytes, third.error, third.note) == ("dense", 64 * 8 * 4, None, "not chosen")
    lines = str(told).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["0", "2", "3"]
    assert "int4(group=32)" in lines[1] and f"{first.bytes:,}" in lines[1]
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="effcc")
    with torch.no_grad():
        compiled(torch.randn(3, 64))
    told = effcc.explain(compiled, measure=False)
    assert told.layers[0] == first
    assert len(told.programs) == 1


def test_a_model_without_stored_weights_is_compiled_first() -> None:
    with pytest.raises(InputError, match="has compiled nothing"):
        effcc.explain(nn.Linear(3, 2))


def test_a_sum_has_a_line_with_the_time_of_its_parts() -> None:
    model = effcc.factorize(nn.Sequential(nn.Linear(64, 64)), "low_rank(4) + int4(group=32)")
    (told,) = effcc.explain(model).layers
    assert (told.encoding, told.bytes) == ("low_rank(4) + int4(group=32)", 2 * 4 * 64 * 4 + 64 * 64 // 2 + 4 * 128)
    assert all(seconds > 0 for seconds in told.seconds)

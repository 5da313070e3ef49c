"""Weights as sums of a matrix of low rank and one of few bits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import effcc
from effcc.accuracy import check
from effcc.errors import EffccError, EncodingError, UnknownNameError


def data(columns: int = 48) -> Tensor:
    g = torch.Generator().manual_seed(1)
    mixing = torch.randn(columns, columns, generator=g) * torch.logspace(0, -1.5, columns)[:, None]
    return torch.randn(512, columns, generator=g) @ mixing


def layer() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(48, 40), nn.GELU(), nn.Linear(40, 16, bias=False))


def first(_: str, module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and module.in_features == 48


def test_without_data_the_matrix_of_low_rank_is_the_nearest() -> None:
    dense = layer()
    made = effcc.factorize(copy.deepcopy(dense), "low_rank(5)", where=first)[0]
    rest = torch.linalg.svdvals(dense[0].weight.detach())[5:].norm()
    torch.testing.assert_close((made.weight - dense[0].weight).norm(), rest, rtol=1e-4, atol=0)
    assert isinstance(made, nn.Linear) and made.encoding == "low_rank(5)"


@pytest.mark.parametrize("x", [None, data()], ids=["without data", "with data"])
def test_alternating_beats_one_after_the_other_and_either_alone(x: Tensor | None) -> None:
    dense, scheme = layer(), "int3(group=16)"
    alone = effcc.quantize(copy.deepcopy(dense), scheme, where=first, data=x)[0].weight_error
    once, turns = (
        effcc.factorize(copy.deepcopy(dense), f"low_rank(6) + {scheme}", method=m, where=first, data=x)[0].weight_error
        for m in ("svd", "lq-lora")
    )
    assert turns < once
    assert turns < 0.9 * alone  # type: ignore[operator]


def test_sums_are_computed_saved_and_trained(tmp_path: Path) -> None:
    encoded = effcc.factorize(layer(), {"0": "low_rank(4) + int4(group=16)", "2": "low_rank(3)"}, data=data())
    x = data()[:7]
    torch._dynamo.reset()
    compiled = torch.compile(encoded, backend="effcc")
    with torch.no_grad():
        plain = layer()
        for n in (0, 2):
            plain[n].weight = nn.Parameter(encoded[n].weight)
            plain[n].bias = copy.deepcopy(encoded[n].bias)
        report = check(plain.double()(x.double()), encoded(x), compiled(x))
    assert report.ok, str(report.worst)
    loaded = effcc.load_into(layer(), effcc.save(encoded, tmp_path / "sums"))
    assert torch.equal(loaded(x), encoded(x)) and repr(loaded) == repr(encoded)
    assert torch.equal(effcc.load_into(loaded, tmp_path / "sums")(x), encoded(x))
    encoded(x).sum().backward()
    trained = {n for n, p in encoded.named_parameters() if p.grad is not None}
    assert trained == {"0.bias", *(f"{n}.weight_low_rank_{side}_values" for n in "02" for side in ("left", "right"))}


@pytest.mark.parametrize(
    ("encode", "kind", "message"),
    [
        (lambda m: effcc.factorize(m, "int4"), EncodingError, r"takes low_rank\(r\)"),
        (lambda m: effcc.factorize(m, "low_rank(0)"), EncodingError, r"low_rank\(0\).*positive integer"),
        (lambda m: effcc.factorize(m, "low_rank(2) + block(4,1)"), EncodingError, "stands a scheme of values"),
        (lambda m: effcc.factorize(m, "low_rank(17)"), EncodingError, r"2: .*\[16, 40\].* at most 16"),
        (lambda m: effcc.factorize(effcc.quantize(m), "low_rank(2)"), EncodingError, "only dense nn.Linear"),
        (lambda m: effcc.factorize(m, method="lqlora"), UnknownNameError, "did you mean 'lq-lora'"),
    ],
)
def test_what_does_not_fit_is_refused(
    encode: Callable[[nn.Module], nn.Module], kind: type[EffccError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        encode(layer())

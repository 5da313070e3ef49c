"""Models whose weights are sums and products of encodings: compiled, trained and saved as any."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from effcc.compression.quantize import quantize
from effcc.errors import EncodingError

SUMS = ("outliers(2) + int8", "low_rank(3) + int4", "csr(share=0.1) + monarch(2)")


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 36), nn.GELU(), nn.Linear(36, 20)).eval()


@pytest.mark.parametrize("scheme", SUMS)
def test_compiled_models_compute_with_the_decoded_sum(scheme: str) -> None:
    encoded, x = quantize(model(), scheme), torch.randn(7, 24)
    assert torch.equal(copy.deepcopy(encoded)(x), encoded(x))
    torch._dynamo.reset()
    with torch.no_grad():
        got = torch.compile(encoded, backend="effcc")(x)
    torch.testing.assert_close(got, encoded(x), rtol=1e-4, atol=1e-5)


def test_a_low_rank_of_bfloat16_is_decoded_from_its_factors() -> None:
    """The factors' product is prepared: no step of a call packs or widens for it."""
    torch.manual_seed(0)
    encoded = quantize(nn.Linear(512, 512), "low_rank(8) + int4(group=32)").to(torch.bfloat16).eval()
    x = torch.randn(1, 512).bfloat16()
    torch._dynamo.reset()
    with torch.no_grad():
        for target in ("host", "avx2"):
            got = torch.compile(encoded, backend="effcc", options={"target": target})(x)
            expected = copy.deepcopy(encoded).double()(x.double())
            assert (got.double() - expected).abs().max() < 0.02 * expected.abs().max(), target


@pytest.mark.parametrize("scheme", ["low_rank(3)", "csr(share=0.2) + low_rank(2)", "monarch(2) + int4"])
def test_gradients_pass_to_what_is_stored_in_full(scheme: str) -> None:
    layer = quantize(nn.Linear(24, 8), scheme)
    trained = dict(layer.named_parameters())
    assert {n for n in trained if n != "bias"}
    reference = layer.weight.detach().requires_grad_()
    upstream = torch.randn(8, 24)
    (layer.weight * upstream).sum().backward()
    for name, parameter in trained.items():
        if name == "bias":
            continue
        step, before = 1e-2 * torch.randn_like(parameter), parameter.detach().clone()
        expected = (parameter.grad * step).sum()  # type: ignore[operator]
        with torch.no_grad():
            parameter.copy_(before + step)
            ahead = (layer.weight * upstream).sum()
            parameter.copy_(before - step)
            change = (ahead - (layer.weight * upstream).sum()) / 2
            parameter.copy_(before)
        torch.testing.assert_close(change, expected, rtol=1e-2, atol=1e-3, msg=name)
    torch.testing.assert_close(layer.weight, reference)


def test_what_rounds_element_by_element_refuses_sums() -> None:
    with pytest.raises(EncodingError, match="encoded in turn: use nearest"):
        quantize(model(), "low_rank(2) + int4", method="gptq", data=torch.randn(4, 24))
    with pytest.raises(EncodingError, match="give the dense weight"):
        quantize(quantize(model()), "low_rank(2) + int4")

"""transformers' models keep their keys and values as codes: eager and compiled alike, in generation and beam search."""

from __future__ import annotations

import copy
import importlib
import sys

import pytest
import torch

import effcc
from effcc.errors import EncodingError, InputError, UnsupportedError

transformers = pytest.importorskip("transformers")
PROMPT = torch.arange(6)[None].expand(2, -1).contiguous()


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, pad_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval().requires_grad_(False)


def logits(run, cache: object) -> torch.Tensor:  # type: ignore[no-untyped-def]
    found = [run(PROMPT, past_key_values=cache, use_cache=True).logits[:, -1]]
    for _ in range(2):
        found.append(run(found[0].argmax(-1)[:, None], past_key_values=cache, use_cache=True).logits[:, -1])
    return torch.stack(found)


def test_compiled_models_compute_what_eager_ones_do(model: torch.nn.Module) -> None:
    def cache() -> effcc.StoredCache:
        return effcc.StoredCache(model.config, 32, keys="int8", values="int4(group=8)").initialize(2)

    first, second = cache(), cache()
    compiled = torch.compile(model, backend="effcc", dynamic=False)
    torch.testing.assert_close(logits(compiled, second), logits(model, first), rtol=1e-4, atol=1e-4)
    assert second.get_seq_length() == 8 and first.bytes == second.bytes == 2 * 2 * 32 * (16 + 4 + 8 + 8)


def test_what_is_not_encoded_is_as_in_a_static_cache(model: torch.nn.Module) -> None:
    static = logits(model, transformers.StaticCache(model.config, 32))
    assert torch.equal(logits(model, effcc.StoredCache(model.config, 32, keys=None, values=None)), static)
    near = effcc.StoredCache(model.config, 32)
    assert 0 < (logits(model, near) - static).abs().max() < 0.01 * static.abs().max()
    near.reset()
    assert near.get_seq_length() == 0
    again = logits(model, copy.deepcopy(near))
    assert torch.equal(again, logits(model, near))


def test_generation_and_beams_find_what_they_find_with_floats(model: torch.nn.Module) -> None:
    def found(cache: object, beams: int) -> torch.Tensor:
        mask = torch.ones_like(PROMPT)
        return model.generate(
            PROMPT, attention_mask=mask, past_key_values=cache, max_new_tokens=6, do_sample=False, num_beams=beams
        )

    for beams in (1, 3):
        wanted = found(None, beams)
        assert torch.equal(found(effcc.StoredCache(model.config, 32, keys=None, values=None), beams), wanted)
        assert torch.equal(found(effcc.StoredCache(model.config, 32), beams), wanted)


def test_schemes_are_for_layers_by_their_number() -> None:
    config = transformers.LlamaConfig(num_hidden_layers=3, hidden_size=64, num_attention_heads=4)
    cache = effcc.StoredCache(config, 8, keys={"0": None, "*": "int8"}, values="int4")
    assert [str(layer.schemes[0]) for layer in cache.layers] == ["None", "int8", "int8"]
    assert {str(layer.schemes[1]) for layer in cache.layers} == {"int4"}


def test_what_does_not_fit_the_model_is_refused() -> None:
    config = transformers.LlamaConfig(num_hidden_layers=2, hidden_size=64, num_attention_heads=4)
    with pytest.raises(EncodingError, match="groups of 32 do not fill rows of 16; 8, 16 would"):
        effcc.StoredCache(config, 8, values="int4(group=32)")
    with pytest.raises(EncodingError, match="no layer is left for the pattern '7'"):
        effcc.StoredCache(config, 8, keys={"7": None, "*": "int8"})
    with pytest.raises(InputError, match="max_cache_len=0"):
        effcc.StoredCache(config, 0)
    mixed = transformers.LlamaConfig(num_hidden_layers=1, hidden_size=64, num_attention_heads=4)
    mixed.layer_types = ["linear_attention"]
    with pytest.raises(UnsupportedError, match="linear_attention"):
        effcc.StoredCache(mixed, 8)


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers.cache_utils", None)
    monkeypatch.delitem(sys.modules, "effcc.caches.cache", raising=False)
    with pytest.raises(UnsupportedError, match=r"pip install 'effcc\[models\]'"):
        importlib.import_module("effcc.caches.cache")

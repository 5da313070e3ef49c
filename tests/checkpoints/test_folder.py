"""Checkpoints of GPTQ, AWQ and compressed-tensors: written as those libraries document it, read as the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("transformers")

import effcc
from effcc.checkpoints.packed_layers import awq, compressed, gptq, words_apart
from effcc.checkpoints.weights import assemble
from effcc.errors import CheckpointError
from tests.checkpoints.gguf_models import random_model

Array = Any
N, K, GROUP = 64, 96, 32


def packed(codes: Array, bits: int) -> Array:
    """Codes side by side in 32-bit words of the last axis, bit by bit."""
    flat = (codes[..., None] >> np.arange(bits)) & 1
    stream = flat.reshape(*codes.shape[:-1], -1).astype(np.uint8)
    return np.packbits(stream, axis=-1, bitorder="little").view(np.int32)


def drawn(bits: int) -> tuple[Array, Array, Array]:
    """Codes [N, K], zero points [N, G] and scales [N, G] in f16."""
    rng = np.random.default_rng(bits)
    codes, zeros = (rng.integers(1, 1 << bits, s, dtype=np.int32) for s in ((N, K), (N, K // GROUP)))
    return codes, zeros, rng.uniform(0.001, 0.01, zeros.shape).astype(np.float16)


def values(codes: Array, zeros: Array, scales: Array) -> Array:
    wide = [np.repeat(a, GROUP, axis=1) for a in (zeros, scales.astype(np.float32))]
    return (codes - wide[0]).astype(np.float32) * wide[1]


def decoded(layer: Any) -> Array:
    stored = assemble(layer.encoding, layer.shape, layer.parts, order=layer.order)
    return stored.storage.decode(stored.arrays)


def gptq_tensors(bits: int, less: int) -> tuple[dict[str, Array], Array]:
    codes, zeros, scales = drawn(bits)
    given = {
        "qweight": packed(codes, bits).T.copy(),
        "qzeros": packed((zeros - less).T, bits),
        "scales": scales.T.copy(),
        "g_idx": (np.arange(K) // GROUP).astype(np.int32),
    }
    return given, values(codes, zeros, scales)


@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq(bits: int, version: str) -> None:
    given, wanted = gptq_tensors(bits, 1 if version == "gptq" else 0)
    layer = gptq(given, {"bits": bits, "group_size": GROUP, "checkpoint_format": version})
    assert np.array_equal(decoded(layer), wanted)


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_gptq_in_act_order(bits: int) -> None:
    given, _ = gptq_tensors(bits, 1)
    codes, zeros, scales = drawn(bits)
    given["g_idx"] = g_idx = np.random.default_rng(0).permutation(given["g_idx"])
    layer = gptq(given, {"bits": bits, "group_size": GROUP, "desc_act": True})
    assert np.array_equal(decoded(layer), (codes - zeros[:, g_idx]) * scales.astype(np.float32)[:, g_idx])


def test_awq() -> None:
    codes, zeros, scales = drawn(4)
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def words(a: Array) -> Array:
        return packed(a.reshape(len(a), -1, 8)[..., order].reshape(len(a), -1), 4)

    given = {"qweight": words(codes.T), "qzeros": words(zeros.T), "scales": scales.T.copy()}
    layer = awq(given, {"bits": 4, "group_size": GROUP, "version": "gemm"})
    assert np.array_equal(decoded(layer), values(codes, zeros, scales))


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_compressed_tensors(bits: int) -> None:
    codes, zeros, scales = drawn(bits)
    given = {
        "weight_packed": packed(codes, bits),
        "weight_shape": np.array([N, K]),
        "weight_scale": scales,
        "weight_zero_point": packed(zeros.T, bits).T.copy(),
    }
    how = {"num_bits": bits, "type": "int", "strategy": "group", "group_size": GROUP}
    assert np.array_equal(decoded(compressed(given, how)), values(codes, zeros, scales))


def test_words_are_those_of_the_library() -> None:
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers", exc_type=ImportError)
    codes = torch.randint(-4, 4, (5, 40), dtype=torch.int8)
    found = words_apart(helpers.pack_to_int32(codes, 3).numpy(), 3, 40)
    assert np.array_equal(found.astype(np.int8) - 4, codes.numpy())


def folder(path: Path, **change: Any) -> tuple[Any, Path]:
    """A tiny Llama whose gate and up projections GPTQ stored, and the model with those numbers."""
    model: Any = random_model(
        "llama", vocab_size=48, hidden_size=K, intermediate_size=N, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=4, pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    tensors = {k: v.clone() for k, v in model.state_dict().items()}
    for layer in ("gate_proj", "up_proj"):
        given, wanted = gptq_tensors(4, 1)
        given |= change
        del tensors[f"model.layers.0.mlp.{layer}.weight"]
        tensors |= {
            f"model.layers.0.mlp.{layer}.{k}": torch.from_numpy(a.copy()) for k, a in given.items() if a is not None
        }
        model.model.layers[0].mlp.get_submodule(layer).weight.data.copy_(torch.from_numpy(wanted))
    save_file(tensors, path / "model.safetensors")
    settings = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": False}
    (path / "config.json").write_text(json.dumps(model.config.to_dict() | {"quantization_config": settings}))
    return model, path


def test_a_folders_model_computes_with_the_same_numbers(tmp_path: Path) -> None:
    wanted, path = folder(tmp_path)
    found: Any = effcc.from_checkpoint(path)
    assert found.model.layers[0].mlp.up_proj.encoding == 'int4(group=32,zero=true,scale="f16")'
    ids = torch.tensor([[3, 17, 4]])
    with torch.no_grad():
        torch.testing.assert_close(found(ids).logits, wanted(ids).logits, rtol=1e-5, atol=1e-6)


def test_a_model_in_act_order_compiles(tmp_path: Path) -> None:
    found: Any = effcc.from_checkpoint(folder(tmp_path, g_idx=(np.arange(K) % 3).astype(np.int32))[1])
    layer = found.model.layers[0].mlp.up_proj
    assert layer.encoding == 'reorder . int4(group=32,zero=true,scale="f16")'
    for rows in (1, 5):
        x = torch.randn(rows, K)
        with torch.no_grad():
            got = torch.compile(layer, backend="effcc")(x)
            torch.testing.assert_close(got, x @ layer.weight.T, rtol=1e-4, atol=1e-5)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "groups of other sizes": ({"g_idx": (np.arange(K) // 31).astype(np.int32)}, "gate_proj: g_idx puts other than 32"),
    "groups beyond the last": ({"g_idx": (np.arange(K) // GROUP + 1).astype(np.int32)}, "gate_proj: g_idx puts other"),
    "groups before the first": ({"g_idx": (np.arange(K) // GROUP - 1).astype(np.int32)}, "gate_proj: g_idx puts other"),
    "g_idx cut short": ({"g_idx": (np.arange(GROUP) // GROUP).astype(np.int32)}, "gate_proj: "),
    "scales that miss": ({"scales": None}, "gate_proj: expected 'scales' beside"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_known_is_refused_by_name(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        effcc.from_checkpoint(folder(tmp_path, **change)[1])


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected a folder with config\.json"):
        effcc.from_checkpoint(tmp_path)
    path = folder(tmp_path)[1]
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        effcc.from_checkpoint(path)

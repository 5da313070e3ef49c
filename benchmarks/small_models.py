"""Small networks of every kind that `transformers` has, from configurations: weights are random, nothing is downloaded.

    >>> model, inputs = SMALL_MODELS["llama"].build(), SMALL_MODELS["llama"].inputs(1)
    >>> model(**inputs).logits.shape
    torch.Size([3, 17, 99])

`inputs(0)` is one sample, `inputs(1)` a batch of three in another, odd size, the first of them padded where there is a
mask.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import Tensor, nn

Inputs = Callable[[int], dict[str, Tensor]]

BATCH = (1, 3)
LENGTH = (12, 17)


@dataclasses.dataclass(frozen=True)
class SmallModel:
    """`model` is a class of transformers, `sizes` what its configuration is called with, `kind` what it is for."""

    kind: str
    model: str
    sizes: Mapping[str, Any]
    inputs: Inputs

    def build(self) -> nn.Module:
        """The same module every time, in eval mode."""
        import transformers

        kind = getattr(transformers, self.model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            found: nn.Module = kind(kind.config_class(**self.sizes)).eval()
        return found


def _generator(variant: int, salt: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(10 * salt + variant)


def ids(variant: int, length: tuple[int, int] = LENGTH) -> Tensor:
    return torch.randint(3, 90, (BATCH[variant], length[variant]), generator=_generator(variant))


def normal(*shape: tuple[int, ...], salt: int = 0) -> Callable[[int], Tensor]:
    """Normal numbers of one shape for each variant, without the batch."""
    return lambda variant: torch.randn(BATCH[variant], *shape[variant], generator=_generator(variant, salt))


def tokens(variant: int) -> dict[str, Tensor]:
    """Ids; in the batch of three the last four of the first sequence are padding."""
    found = {"input_ids": ids(variant)}
    if variant == 1:
        mask = torch.ones_like(found["input_ids"])
        mask[0, -4:] = 0
        found["attention_mask"] = mask
    return found


def plain_tokens(variant: int) -> dict[str, Tensor]:
    return {"input_ids": ids(variant)}


def token_pairs(variant: int) -> dict[str, Tensor]:
    """What an encoder and a decoder take."""
    return tokens(variant) | {"decoder_input_ids": ids(variant, (5, 7))}


def pixels(first: tuple[int, int], second: tuple[int, int]) -> Inputs:
    draw = normal((3, *first), (3, *second))
    return lambda variant: {"pixel_values": draw(variant)}


def numbers(name: str, first: tuple[int, ...], second: tuple[int, ...]) -> Inputs:
    draw = normal(first, second)
    return lambda variant: {name: draw(variant)}


def speech_and_tokens(variant: int) -> dict[str, Tensor]:
    return {"input_features": normal((16, 100), (16, 100))(variant), "decoder_input_ids": ids(variant, (5, 7))}


def image_and_tokens(variant: int) -> dict[str, Tensor]:
    """Two pairs at least: a single score in eager is right by luck, or not."""
    drawn = tokens(variant) | pixels((32, 32), (32, 32))(variant)
    return {name: torch.cat((t, t.flip(-1))) for name, t in drawn.items()}


def series(variant: int) -> dict[str, Tensor]:
    return {
        "past_values": normal((15,), (15,))(variant),
        "past_time_features": normal((15, 1), (15, 1), salt=1)(variant),
        "past_observed_mask": torch.ones(BATCH[variant], 15),
        "future_values": normal((4,), (4,), salt=2)(variant),
        "future_time_features": normal((4, 1), (4, 1), salt=3)(variant),
    }


def trajectory(variant: int) -> dict[str, Tensor]:
    steps, batch = (6, 9)[variant], BATCH[variant]
    sizes = {"states": 5, "actions": 3, "rewards": 1, "returns_to_go": 1}
    found = {n: normal((steps, s), (steps, s), salt=k)(variant) for k, (n, s) in enumerate(sizes.items())}
    found["timesteps"] = torch.arange(steps).repeat(batch, 1)
    return found | {"attention_mask": torch.ones(batch, steps)}


TEXT = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GROUPED = TEXT | SPECIAL | {"num_key_value_heads": 2}
EXPERTS = GROUPED | {"num_experts_per_tok": 2}
GPT = {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
TWO_SIDES = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in
             {"layers": 2, "attention_heads": 4, "ffn_dim": 64}.items()}  # fmt: skip
TRANSLATION = TWO_SIDES | {"vocab_size": 99, "d_model": 32, "max_position_embeddings": 64}
T5 = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
RECURRENT = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2}
PATCHES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
FOUR_STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
WAVES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": [16, 16, 16],
    "conv_stride": [5, 2, 2],
    "conv_kernel": [10, 3, 3],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
WINDOWS = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
CLIP_TEXT = {k: v for k, v in TEXT.items() if k != "max_position_embeddings"} | {"max_position_embeddings": 32}
SPEECH = TWO_SIDES | {
    "vocab_size": 99, "d_model": 32, "num_mel_bins": 16, "max_source_positions": 50, "max_target_positions": 32,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
WAVE = numbers("input_values", (800,), (911,))

SMALL_MODELS: dict[str, SmallModel] = {}


def _add(kind: str, name: str, model: str, sizes: Mapping[str, Any], inputs: Inputs) -> None:
    SMALL_MODELS[name] = SmallModel(kind, model, sizes, inputs)


for _name in ("Bert", "Roberta", "RoFormer", "MPNet", "XLMRoberta", "Splinter", "LayoutLM", "IBert", "MegatronBert"):
    _add("encoder", _name.lower(), f"{_name}Model", TEXT, tokens)
_DISTIL = {"vocab_size": 99, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
_DISENTANGLED = TEXT | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
_XLNET = {"vocab_size": 99, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}
_FUNNEL = {"vocab_size": 99, "block_sizes": [1, 1], "num_decoder_layers": 1, "d_model": 32, "n_head": 4, "d_head": 8,
           "d_inner": 64}  # fmt: skip
_add("encoder", "albert", "AlbertModel", TEXT | {"embedding_size": 16}, tokens)
_add("encoder", "electra", "ElectraModel", TEXT | {"embedding_size": 16}, tokens)
_add("encoder", "distilbert", "DistilBertModel", _DISTIL, tokens)
_add("encoder", "deberta", "DebertaModel", _DISENTANGLED, tokens)
_add("encoder", "deberta-v2", "DebertaV2Model", _DISENTANGLED | {"position_buckets": 8}, tokens)
_add("encoder", "xlnet", "XLNetModel", _XLNET, tokens)
_add("encoder", "funnel", "FunnelModel", _FUNNEL, tokens)
_add("encoder", "longformer", "LongformerModel", TEXT | {"attention_window": 8}, tokens)
_add("encoder", "bigbird", "BigBirdModel", TEXT | {"attention_type": "original_full"}, tokens)
_add(
    "encoder",
    "convbert",
    "ConvBertModel",
    TEXT | {"embedding_size": 32, "head_ratio": 2, "conv_kernel_size": 3},
    tokens,
)
_add("encoder", "fnet", "FNetModel", {k: TEXT[k] for k in TEXT if k != "num_attention_heads"}, plain_tokens)
_add("encoder", "modernbert", "ModernBertModel", TEXT | SPECIAL | {"cls_token_id": 1, "sep_token_id": 2}, tokens)

for _name in ("Llama", "Mistral", "Qwen2", "StableLm", "Phi", "Phi3", "Cohere", "Olmo2", "SmolLM3", "Granite"):
    _add("decoder", _name.lower(), f"{_name}ForCausalLM", GROUPED, tokens)
for _name in ("Gemma", "Gemma2", "Qwen3"):
    _add("decoder", _name.lower(), f"{_name}ForCausalLM", GROUPED | {"head_dim": 8}, tokens)
_OPT = TEXT | {"ffn_dim": 64, "word_embed_proj_dim": 32}
_NEO = {"vocab_size": 99, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 64,
        "attention_types": [[["global", "local"], 1]], "window_size": 6}  # fmt: skip
_add("decoder", "gpt2", "GPT2LMHeadModel", GPT, tokens)
_add("decoder", "gptj", "GPTJForCausalLM", GPT | {"rotary_dim": 4}, tokens)
_add("decoder", "gpt-neo", "GPTNeoForCausalLM", _NEO, tokens)
_add("decoder", "gpt-neox", "GPTNeoXForCausalLM", TEXT, tokens)
_add("decoder", "opt", "OPTForCausalLM", {k: v for k, v in _OPT.items() if k != "intermediate_size"}, tokens)
_add("decoder", "bloom", "BloomForCausalLM", {"vocab_size": 99, "hidden_size": 32, "n_layer": 2, "n_head": 4}, tokens)
_add("decoder", "falcon", "FalconForCausalLM", RECURRENT | {"num_attention_heads": 4}, tokens)
_add("decoder", "mpt", "MptForCausalLM",
     {"vocab_size": 99, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}, tokens)  # fmt: skip
_MAMBA = RECURRENT | {"state_size": 8, "time_step_rank": 4}
_MAMBA2 = RECURRENT | {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8, "expand": 2}
_GRIFFIN = GROUPED | {"lru_width": 32, "attention_window_size": 16, "block_types": ["recurrent", "attention"]}
_QWEN_MOE = {"num_experts": 4, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}
_add("state space", "mamba", "MambaForCausalLM", _MAMBA, plain_tokens)
_add("state space", "mamba2", "Mamba2ForCausalLM", _MAMBA2, plain_tokens)
_add("state space", "falcon-mamba", "FalconMambaForCausalLM", _MAMBA, plain_tokens)
_add("state space", "rwkv", "RwkvForCausalLM", RECURRENT | {"context_length": 64}, plain_tokens)
_add("state space", "recurrent-gemma", "RecurrentGemmaForCausalLM", _GRIFFIN, plain_tokens)
_add("state space", "lfm2", "Lfm2ForCausalLM", GROUPED | {"layer_types": ["conv", "full_attention"]}, tokens)
_add("experts", "mixtral", "MixtralForCausalLM", EXPERTS | {"num_local_experts": 4}, tokens)
_add("experts", "qwen2-moe", "Qwen2MoeForCausalLM", EXPERTS | _QWEN_MOE, tokens)
_add("experts", "olmoe", "OlmoeForCausalLM", EXPERTS | {"num_experts": 4}, tokens)

for _name in ("Bart", "MBart", "Pegasus", "Blenderbot"):
    _add("translation", _name.lower(), f"{_name}Model", TRANSLATION, token_pairs)
_MARIAN = {"pad_token_id": 0, "decoder_start_token_id": 0, "eos_token_id": 1}
_add("translation", "marian", "MarianModel", TRANSLATION | _MARIAN, token_pairs)
_add("translation", "t5", "T5Model", T5, token_pairs)
_add("translation", "umt5", "UMT5Model", T5, token_pairs)
_add("speech", "whisper", "WhisperModel", SPEECH, speech_and_tokens)
for _name in ("Wav2Vec2", "Hubert", "WavLM", "UniSpeech"):
    _add("speech", _name.lower(), f"{_name}Model", WAVES, WAVE)
_add("speech", "wav2vec2-conformer", "Wav2Vec2ConformerModel", WAVES | {"conv_depthwise_kernel_size": 5}, WAVE)

for _name in ("ViT", "DeiT", "Beit", "ViTMSN"):
    _add("vision", _name.lower(), f"{_name}Model", PATCHES, pixels((32, 32), (32, 32)))
_add("vision", "dinov2", "Dinov2Model", PATCHES, pixels((32, 32), (40, 24)))
_add("vision", "swin", "SwinModel", WINDOWS, pixels((32, 32), (40, 36)))
_add("vision", "swinv2", "Swinv2Model", WINDOWS, pixels((32, 32), (40, 36)))
_add("vision", "convnext", "ConvNextModel", FOUR_STAGES, pixels((64, 64), (50, 70)))
_add("vision", "convnextv2", "ConvNextV2Model", FOUR_STAGES, pixels((64, 64), (50, 70)))
_RESNET = {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [2, 2]}
_SEGFORMER = FOUR_STAGES | {"num_attention_heads": [1, 2, 3, 4], "decoder_hidden_size": 16}
_MOBILEVIT = {"image_size": 64, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 64]}
_add("vision", "resnet", "ResNetModel", _RESNET, pixels((32, 32), (37, 51)))
_add("vision", "regnet", "RegNetModel", _RESNET | {"groups_width": 8}, pixels((32, 32), (37, 51)))
_add("vision", "bit", "BitModel", _RESNET | {"num_groups": 4}, pixels((32, 32), (37, 51)))
_add("vision", "mobilenet-v1", "MobileNetV1Model", {"depth_multiplier": 0.25}, pixels((32, 32), (37, 51)))
_add("vision", "mobilenet-v2", "MobileNetV2Model", {"depth_multiplier": 0.25}, pixels((32, 32), (37, 51)))
_add("vision", "efficientnet", "EfficientNetModel",
     {"width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320}, pixels((32, 32), (37, 51)))  # fmt: skip
_add("vision", "mobilevit", "MobileViTModel", _MOBILEVIT | {"num_attention_heads": 4}, pixels((64, 64), (96, 64)))
_add("vision", "segformer", "SegformerForSemanticSegmentation", _SEGFORMER, pixels((64, 64), (96, 64)))
_add("vision", "poolformer", "PoolFormerModel", FOUR_STAGES, pixels((64, 64), (80, 48)))
_add("vision", "yolos", "YolosForObjectDetection",
     PATCHES | {"image_size": [32, 32], "num_detection_tokens": 5}, pixels((32, 32), (40, 24)))  # fmt: skip
_add("vision and text", "clip", "CLIPModel",
     {"text_config": CLIP_TEXT, "vision_config": PATCHES, "projection_dim": 16}, image_and_tokens)  # fmt: skip
_add("vision and text", "siglip", "SiglipModel",
     {"text_config": CLIP_TEXT | {"projection_size": 32}, "vision_config": PATCHES}, image_and_tokens)  # fmt: skip

_SERIES = TWO_SIDES | {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "prediction_length": 4, "context_length": 12,
                       "d_model": 16, "lags_sequence": [1, 2, 3], "num_time_features": 1}  # fmt: skip
_PATCH_SERIES = {"num_input_channels": 2, "context_length": 32, "patch_length": 8, "patch_stride": 8, "d_model": 16}
_CONTROL = {"state_dim": 5, "act_dim": 3, "hidden_size": 32, "n_layer": 2, "n_head": 4, "max_ep_len": 50}
_PERCEIVER = {"num_latents": 8, "d_latents": 32, "d_model": 24, "num_self_attends_per_block": 2,
              "num_self_attention_heads": 4, "num_cross_attention_heads": 4}  # fmt: skip
_add("series", "time-series", "TimeSeriesTransformerModel", _SERIES, series)
_add("series", "patchtst", "PatchTSTModel",
     _PATCH_SERIES | {"num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32},
     numbers("past_values", (32, 2), (32, 2)))  # fmt: skip
_add("series", "patchtsmixer", "PatchTSMixerModel", _PATCH_SERIES | {"num_layers": 2},
     numbers("past_values", (32, 2), (32, 2)))  # fmt: skip
_add("control", "decision-transformer", "DecisionTransformerModel", _CONTROL, trajectory)
_add("any", "perceiver", "PerceiverModel", _PERCEIVER, numbers("inputs", (12, 24), (17, 24)))

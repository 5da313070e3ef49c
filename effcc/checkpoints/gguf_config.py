"""The transformers configuration that a GGUF file's metadata describes.

transformers knows which entry of which architecture is which field. Its reader makes an array of each token, so it is
given a file that holds the same entries without the vocabulary. What an entry says that neither it nor this file
knows is refused: a position encoding scaled in an unknown way would be a model that answers, and answers wrong.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from effcc.checkpoints.gguf_file import GgufFile
from effcc.errors import CheckpointError

WITHOUT_EFFECT = ("vocab_size", "tensor_data_layout", "context_length")
"""Entries that say nothing about what is computed."""

SIZES = (
    "embedding_length", "attention.head_count", "feed_forward_length", "attention.head_count_kv",
    "attention.key_length", "attention.value_length", "rope.dimension_count", "vocab_size",
)  # fmt: skip


def config_of(file: GgufFile) -> Any:
    """The configuration of the model that `file` holds.

    Raises CheckpointError for an architecture that transformers does not build from GGUF files, and for entries of the
    architecture whose meaning is not known, or is another than the configuration's.
    """
    from transformers import AutoConfig

    _check_sizes(file)
    with tempfile.TemporaryDirectory() as folder:
        _write_entries(file, Path(folder) / "entries.gguf")
        try:
            config = AutoConfig.from_pretrained(folder, gguf_file="entries.gguf")
        except (ValueError, KeyError) as error:
            raise CheckpointError(f"{file.path}: transformers builds no {file.architecture}: {error}") from error
    _complete(file, config)
    _check_entries(file, config)
    return config


def _check_sizes(file: GgufFile) -> None:
    """That sizes are those of some tensor: a model of damaged ones would take hours to build, or all memory."""
    largest = max((max(t.shape) for t in file.tensors.values()), default=0)
    most = {"block_count": len(file.tensors)} | dict.fromkeys(SIZES, largest)
    for name, bound in most.items():
        key = f"{file.architecture}.{name}"
        for size in np.ravel(file.metadata.get(key, 1)):
            if not 0 <= size <= bound or (size == 0 and name in ("block_count", *SIZES[:2])):
                raise CheckpointError(
                    f"{file.path}: entry {key} is {size}; by the file's tensors it is at most {bound}"
                )


def _write_entries(file: GgufFile, path: Path) -> None:
    """The file without vocabulary and weights; tensors, which transformers knows models by, keep their names."""
    from gguf import GGUFValueType, GGUFWriter

    kinds = {bool: GGUFValueType.BOOL, str: GGUFValueType.STRING, float: GGUFValueType.FLOAT64}
    architecture = file.architecture
    writer = GGUFWriter(path, architecture)
    entries = {k: v for k, v in file.metadata.items() if not k.startswith("tokenizer.") or k.endswith("_token_id")}
    if "tokenizer.ggml.tokens" in file.metadata:
        entries.setdefault(f"{architecture}.vocab_size", file.metadata["tokenizer.ggml.tokens"])
    for key, value in entries.items():
        if key == "general.architecture" or key == "general.alignment":
            continue
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            whole = GGUFValueType.INT64 if isinstance(value, int) and value < 0 else GGUFValueType.UINT64
            writer.add_key_value(key, value, kinds.get(type(value), whole))
    for name in file.tensors:
        writer.add_tensor(name, np.zeros(1, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _complete(file: GgufFile, config: Any) -> None:
    """What transformers' reader leaves out: the vocabulary, heads' width, biases, and how positions turn queries."""

    def entry(name: str, default: Any) -> Any:
        return file.metadata.get(f"{file.architecture}.{name}", default)

    config.name_or_path = file.path
    config.vocab_size = entry("vocab_size", file.metadata.get("tokenizer.ggml.tokens", config.vocab_size))
    if hasattr(config, "head_dim"):
        config.head_dim = entry("attention.key_length", config.hidden_size // config.num_attention_heads)
    if "blk.0.attn_q.bias" in file.tensors and hasattr(config, "attention_bias"):
        config.attention_bias = True
    turned = getattr(config, "rope_parameters", None) or {}
    if "rope_theta" in turned:
        turned = {**turned, "rope_theta": entry("rope.freq_base", turned["rope_theta"])}
        factor = entry("rope.scaling.factor", 1.0)
        if entry("rope.scaling.type", "none") == "linear" and factor != 1.0:
            turned |= {"rope_type": "linear", "factor": factor}
        config.rope_parameters = turned


def _check_entries(file: GgufFile, config: Any) -> None:
    """That each entry of the architecture is one that transformers took, or says what the configuration says."""
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

    taken: Any = GGUF_CONFIG_MAPPING.get(config.model_type.removesuffix("_text"), {})
    prefix = f"{file.architecture}."
    stated = _stated(config)
    for key, value in file.metadata.items():
        name = key.removeprefix(prefix)
        if not key.startswith(prefix) or name in WITHOUT_EFFECT or taken.get(name) is not None:
            continue
        if name not in stated:
            raise CheckpointError(f"{file.path}: entry {key} = {value!r} has a meaning that effcc does not know")
        if not _equal(stated[name], value):
            raise CheckpointError(f"{file.path}: entry {key} is {value!r}; transformers makes it {stated[name]!r}")


def _stated(config: Any) -> dict[str, Any]:
    """Entries that transformers' reader passes over, as its configuration would have them."""
    heads = getattr(config, "num_attention_heads", None)
    width = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else None)
    positions = getattr(config, "rope_parameters", None) or {}
    positions = positions.get("full_attention", positions)
    turned = positions.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", 1.0))
    return {
        "attention.key_length": width,
        "attention.value_length": width,
        "attention.sliding_window": getattr(config, "sliding_window", None),
        "attn_logit_softcapping": getattr(config, "attn_logit_softcapping", None),
        "final_logit_softcapping": getattr(config, "final_logit_softcapping", None),
        "attention.head_count_kv": getattr(config, "num_key_value_heads", heads),
        "feed_forward_length": getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        "rope.dimension_count": int(width * turned) if width else None,
        "rope.freq_base": positions.get("rope_theta"),
        "rope.scaling.type": positions.get("rope_type", "default").replace("default", "none"),
        "rope.scaling.factor": positions.get("factor", 1.0),
        "use_parallel_residual": getattr(config, "use_parallel_residual", None),
        "attention.causal": True,
    }


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=1e-6)
    return bool(a == b)

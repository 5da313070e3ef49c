"""`from_checkpoint`: the transformers model of a folder, its layers as GPTQ, AWQ, compressed-tensors or bitsandbytes
stored them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from effcc.checkpoints.gguf_model import WeightsOnMeta
from effcc.checkpoints.packed_layers import Layer, awq, bitsandbytes4, compressed, gptq
from effcc.checkpoints.weights import assemble, tensors_of
from effcc.compression.install import install
from effcc.errors import CheckpointError, EncodingError, UnsupportedError
from effcc.frontend.decode import to_numpy

Tensors = Mapping[str, Tensor]
METHODS = ("gptq", "awq", "compressed-tensors", "bitsandbytes")


def from_checkpoint(folder: str | os.PathLike[str], *, weights_only: bool = False) -> nn.Module:
    """The transformers model of a folder (`config.json`, `*.safetensors`), in evaluation mode, in f32.

    Linear layers stay as `quantization_config` says that they are stored: GPTQ (with act-order or without), AWQ (gemm),
    compressed-tensors (pack-quantized, int- and float-quantized; scales by tensor, channel or group), bitsandbytes in
    4 bits. The integers, scales and zero points are the file's.

    weights_only: also take checkpoints whose layers quantize their inputs, and compute with inputs as they are.

    Raises CheckpointError, naming the layer, where something is missing, damaged or not known; UnsupportedError where
    transformers is missing.

        >>> model = from_checkpoint("Llama-3.2-1B-Instruct-AWQ")      # doctest: +SKIP
        >>> from_checkpoint("missing")
        Traceback (most recent call last):
            ...
        effcc.errors.CheckpointError: missing: expected a folder with config.json and *.safetensors
    """
    try:
        from transformers import AutoConfig, AutoModelForCausalLM
    except ModuleNotFoundError as error:
        raise UnsupportedError(f"checkpoints need the package {error.name}: pip install 'effcc[models]'") from error
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise CheckpointError(f"{path}: expected a folder with config.json and *.safetensors")
    config = AutoConfig.from_pretrained(path)
    settings = dict(getattr(config, "quantization_config", None) or {})
    if settings.get("quant_method") not in METHODS:
        raise CheckpointError(f"{path}: quant_method is {settings.get('quant_method')!r}; known are {METHODS}")
    del config.quantization_config
    tensors = _read(path)
    with WeightsOnMeta():
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    _fill(model, tensors, settings, path, weights_only)
    made: nn.Module = model.eval()
    return made


def _read(path: Path) -> dict[str, Tensor]:
    """All tensors of the folder."""
    found: dict[str, Tensor] = {}
    for file in sorted(path.glob("*.safetensors")):
        try:
            found |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: cannot be read ({error})") from None
    if not found:
        raise CheckpointError(f"{path}: holds no *.safetensors")
    return found


def _fill(model: Any, tensors: dict[str, Tensor], settings: Mapping[str, Any], path: Path, weights_only: bool) -> None:
    left = dict(tensors)
    for name, module in list(model.named_modules()):
        own = {k.removeprefix(f"{name}."): k for k in left if k.startswith(f"{name}.")}
        if type(module) is not nn.Linear or set(own) <= {"weight", "bias"}:
            continue
        given = {short: left.pop(k) for short, k in own.items() if short != "bias"}
        try:
            layer = _layer(given, settings, module, weights_only)
            stored = assemble(layer.encoding, layer.shape, layer.parts, order=layer.order)
            if layer.shape != tuple(module.weight.shape):
                raise CheckpointError(f"it is {list(layer.shape)}; by config.json {list(module.weight.shape)}")
        except KeyError as error:
            raise CheckpointError(f"{path}: {name}: expected {error} beside {sorted(given)}") from None
        except (CheckpointError, EncodingError, ValueError) as error:
            raise CheckpointError(f"{path}: {name}: {error}") from None
        install(module, stored.storage, tensors_of(stored))
    parameters = dict(model.named_parameters())
    for key, value in left.items():
        if key not in parameters or parameters[key].shape != value.shape:
            raise CheckpointError(f"{path}: tensor {key} {list(value.shape)} is no weight of {type(model).__name__}")
        owner, _, leaf = key.rpartition(".")
        setattr(model.get_submodule(owner), leaf, nn.Parameter(value.to(torch.float32)))
    if model.config.tie_word_embeddings and model.get_output_embeddings().weight.is_meta:
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
    empty = [n for n, p in model.named_parameters() if p.is_meta]
    if empty:
        raise CheckpointError(f"{path}: the model needs weights that the files lack: {', '.join(empty)}")


def _layer(given: Tensors, settings: Mapping[str, Any], module: Any, weights_only: bool) -> Layer:
    arrays = {name: to_numpy(tensor.view(torch.uint8) if tensor.dtype == torch.float8_e4m3fn else tensor)
              for name, tensor in given.items()}  # fmt: skip
    match settings["quant_method"]:
        case "gptq":
            return gptq(arrays, settings)
        case "awq":
            return awq(arrays, settings)
        case "bitsandbytes":
            return bitsandbytes4(_without_prefixes(arrays), module.weight.shape)
    groups = list(settings.get("config_groups", {}).values())
    if len(groups) != 1:
        raise CheckpointError(f"there are {len(groups)} config_groups; known is one for all layers")
    if groups[0].get("input_activations") is not None and not weights_only:
        raise CheckpointError("its inputs are quantized, too; weights_only=True takes the weights alone")
    return compressed(arrays, groups[0]["weights"])


def _without_prefixes(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """`weight.absmax` is `absmax`, and `weight.quant_state.bitsandbytes__nf4` is `quant_state`."""
    short = {name.removeprefix("weight."): a for name, a in arrays.items()}
    return {("quant_state" if name.startswith("quant_state.") else name): a for name, a in short.items()}

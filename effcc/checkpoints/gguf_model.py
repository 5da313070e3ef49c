"""`from_gguf`: the transformers model of a GGUF file, with its weights stored as the file stores them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from effcc.checkpoints.gguf_config import config_of
from effcc.checkpoints.gguf_file import GgufFile, GgufTensor, read_gguf
from effcc.checkpoints.gguf_weights import decoded_tensor, stored_tensor
from effcc.checkpoints.weights import tensors_of
from effcc.compression.install import install
from effcc.compression.modules import ENCODED, EncodedModule
from effcc.errors import CheckpointError, UnsupportedError

Array = Any
FREQUENCIES = "rope_freqs.weight"
"""What llama.cpp divides the frequencies of positions by, where a model's context was extended (Llama 3)."""


def from_gguf(path: str | os.PathLike[str]) -> nn.Module:
    """The transformers model that a GGUF file holds, in evaluation mode, in f32.

    Weights of linear layers and embeddings stay as they are stored (`weight` decodes them, to the very numbers that
    gguf's own `dequantize` gives); norms and biases become f32 parameters, as does what no linear layer or embedding
    holds. Types: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS. The tokenizer is
    `transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)`.

    Raises CheckpointError where the file is damaged, or holds an architecture, an entry, a tensor or a type that is not
    known; UnsupportedError where the packages of the extra `gguf` are missing.

        >>> model = from_gguf("SmolLM2-135M-Instruct.Q4_1.gguf")      # doctest: +SKIP
        >>> model = torch.compile(model, backend="effcc")             # doctest: +SKIP
        >>> from_gguf("missing.gguf")                                 # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        effcc.errors.CheckpointError: missing.gguf: ...
    """
    try:
        import gguf  # noqa: F401
        from transformers import AutoModelForCausalLM
    except ModuleNotFoundError as error:
        raise UnsupportedError(f"GGUF files need the package {error.name}: pip install 'effcc[gguf]'") from error
    file = read_gguf(path)
    config = config_of(file)
    try:
        with WeightsOnMeta():
            model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (ValueError, AssertionError) as error:
        raise CheckpointError(f"{file.path}: transformers builds no {file.architecture} of it: {error}") from error
    _Filling.of(file, model).run()
    return model.eval()


class WeightsOnMeta(TorchFunctionMode):
    """Parameters are created without memory; what a constructor computes (frequencies of positions) is computed."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


@dataclass
class _Filling:
    """Gives a model that was built without weights those of a file."""

    file: GgufFile
    model: Any
    processor: Any
    names: Mapping[str, str]
    stacked: dict[str, torch.Tensor] = field(default_factory=dict)
    """What transformers puts together from several tensors (experts), by the parameter's name."""

    @staticmethod
    def of(file: GgufFile, model: Any) -> _Filling:
        from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

        processor = TENSOR_PROCESSORS.get(file.architecture, TensorProcessor)(config=model.config.to_dict())
        return _Filling(file, model, processor, _parameter_names(file, model, processor))

    def run(self) -> None:
        tied = self._tied()
        for tensor in self.file.tensors.values():
            if tensor.name == FREQUENCIES:
                self._divide_frequencies(tensor)
            else:
                self._fill(tensor, tied)
        for name, value in self.stacked.items():
            self._assign(name, value)
        for embedding, output in tied.items():
            if not isinstance(embedding, EncodedModule):
                output.weight = embedding.weight
        empty = [n for n, p in (*self.model.named_parameters(), *self.model.named_buffers()) if p.is_meta]
        if empty:
            raise CheckpointError(f"{self.file.path}: the model needs weights that the file lacks: {', '.join(empty)}")

    def _tied(self) -> dict[nn.Module, nn.Module]:
        """The output layer, by the embedding whose table it shares."""
        inputs, outputs = self.model.get_input_embeddings(), self.model.get_output_embeddings()
        return {inputs: outputs} if self.model.config.tie_word_embeddings and outputs is not None else {}

    def _fill(self, tensor: GgufTensor, tied: Mapping[nn.Module, nn.Module]) -> None:
        """The parameter that a tensor is: its blocks, where the module can hold them."""
        name = self.names.get(tensor.name)
        module = self._holder(name) if name else None
        order = self._row_order(tensor) if module is not None and tensor.type != "F32" else None
        if module is None or order is None:
            self._assign_float(tensor)
        else:
            if tuple(module.weight.shape) != tensor.shape:
                self._refuse_shape(tensor, module.weight)
            stored = stored_tensor(tensor, order)
            components = tensors_of(stored)
            for each in (module, *([tied[module]] if module in tied else [])):
                install(each, stored.storage, components)

    def _holder(self, name: str) -> Any:
        """The module whose weight `name` is, if it is one that holds a stored weight."""
        path, _, leaf = name.rpartition(".")
        module = self.model.get_submodule(path)
        return module if leaf == "weight" and type(module) in ENCODED else None

    def _row_order(self, tensor: GgufTensor) -> Array | None:
        """Which row of the tensor each row of the weight is; None where more than rows is moved.

        It is found by giving transformers, which knows how llama.cpp stores what, the numbers of rows for weights.
        """
        if len(tensor.shape) != 2:
            return None
        rows, columns = (np.broadcast_to(n, tensor.shape) for n in np.ogrid[: tensor.shape[0], : tensor.shape[1]])
        moved = self._processed(tensor, rows)
        if moved is rows:
            return np.arange(tensor.shape[0])
        if moved is None or moved.shape != tensor.shape or (moved != moved[:, :1]).any():
            return None
        found = moved[:, 0]
        whole = np.array_equal(np.sort(found), np.arange(len(found)))
        unmoved = self._processed(tensor, columns)
        return found if whole and unmoved is not None and np.array_equal(unmoved, columns) else None

    def _processed(self, tensor: GgufTensor, weights: Array) -> Array | None:
        """Weights as transformers lays them out; None where it puts them into `stacked` itself."""
        try:
            done = self.processor.process(
                weights=weights,
                name=tensor.name,
                tensor_key_mapping=self.names,
                parsed_parameters={"tensors": self.stacked},
            )
        except ValueError as error:
            raise CheckpointError(
                f"{self.file.path}: tensor {tensor.name} {list(tensor.shape)} does not fit the file's entries: {error}"
            ) from error
        return done.weights if done.name is not None else None

    def _assign_float(self, tensor: GgufTensor) -> None:
        value = self._processed(tensor, decoded_tensor(tensor))
        if value is None:
            return
        name = self.names.get(tensor.name)
        if name is None:
            raise CheckpointError(
                f"{self.file.path}: tensor {tensor.name} ({tensor.type}, {list(tensor.shape)}) is no weight of "
                f"{type(self.model).__name__} that effcc knows"
            )
        path, _, leaf = name.rpartition(".")
        held = getattr(self.model.get_submodule(path), leaf)
        if tuple(held.shape) != value.shape:
            self._refuse_shape(tensor, held)
        self._assign(name, torch.from_numpy(np.array(value, np.float32)))

    def _assign(self, name: str, value: torch.Tensor) -> None:
        path, _, leaf = name.rpartition(".")
        module = self.model.get_submodule(path)
        if leaf in module._parameters:
            module._parameters[leaf] = nn.Parameter(value)
        else:
            module._buffers[leaf] = value

    def _divide_frequencies(self, tensor: GgufTensor) -> None:
        """Frequencies of positions, each divided by its own number."""
        turning = [m for m in self.model.modules() if isinstance(getattr(m, "inv_freq", None), torch.Tensor)]
        factors = torch.from_numpy(decoded_tensor(tensor).copy())
        if not turning or any(m.inv_freq.shape != factors.shape for m in turning):
            raise CheckpointError(f"{self.file.path}: tensor {tensor.name} {list(tensor.shape)} fits no frequencies")
        for module in turning:
            module.inv_freq = module.inv_freq / factors

    def _refuse_shape(self, tensor: GgufTensor, held: torch.Tensor) -> NoReturn:
        raise CheckpointError(
            f"{self.file.path}: tensor {tensor.name} is {list(tensor.shape)}; by the file's entries it is "
            f"{list(held.shape)}"
        )


def _parameter_names(file: GgufFile, model: Any, processor: Any) -> dict[str, str]:
    """The model's parameter that each tensor is. (transformers finds the same, module by module, in half a minute.)"""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    architectures = {name: number for number, name in MODEL_ARCH_NAMES.items()}
    if file.architecture not in architectures:
        raise CheckpointError(f"{file.path}: the package gguf knows no architecture {file.architecture!r}")
    table = get_tensor_name_map(architectures[file.architecture], model.config.num_hidden_layers)
    prefix = f"{model.base_model_prefix}."
    found: dict[str, str] = {}
    for parameter in model.state_dict():
        name = processor.preprocess_name(parameter)
        stem, dot, leaf = name.rpartition(".")
        path, suffix = (stem, dot + leaf) if leaf in ("weight", "bias") else (name, "")
        tensor = table.get_name(path) or table.get_name(path.removeprefix(prefix))
        if tensor is None:
            processor.perform_fallback_tensor_mapping(found, suffix, "", name)
        else:
            found[tensor + suffix] = parameter
    return found

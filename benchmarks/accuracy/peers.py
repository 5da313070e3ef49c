"""Peers' formats: the chosen weights of a model as these store them, decoded to floats, which changes no value.

llama.cpp  its own quantizer (the library in llama-cpp-python), a tensor at a time, with the importance of columns (the
           mean square of what they are multiplied with) where a way's name ends in `imatrix`
torchao    integers of 4 bits, weights only
NNCF       the same, and with its methods that read data (AWQ, scale estimation)
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.accuracy.formats import Store, count, dense_weight, weights
from benchmarks.accuracy.subjects import Subject

FALLBACKS = {"Q4_K": "Q5_0", "IQ4_XS": "IQ4_NL", "Q3_K": "IQ4_NL"}
"""What llama.cpp takes for rows that blocks of 256 do not divide: SmolLM2's have 576, but for those of down_proj."""


def replaced(subject: Subject, decoded: Callable[[str, Tensor], tuple[Tensor, float]]) -> Store:
    """Each weight replaced by what a peer's format makes of it, and how many bytes that takes."""

    def store(model: nn.Module) -> tuple[float, nn.Module]:
        total = 0.0
        for name, module in weights(model, subject).items():
            made, size = decoded(name, dense_weight(module).detach())
            module.weight = nn.Parameter(made)
            total += size
        return 8 * total / count(subject), model

    return store


def llama_cpp(subject: Subject, kind: str, by_data: bool = False) -> Store:
    """llama.cpp's quantizer for one type of tensor; `by_data`: with the importance of columns."""

    def decoded(name: str, weight: Tensor) -> tuple[Tensor, float]:
        import gguf

        rows, columns = weight.shape
        number = gguf.GGMLQuantizationType[FALLBACKS[kind] if columns % 256 and kind in FALLBACKS else kind]
        block, size = gguf.GGML_QUANT_SIZES[number]
        source = weight.float().contiguous()
        made = torch.empty(rows * columns // block * size, dtype=torch.uint8)
        matters = _importance(subject, name) if by_data else None
        _llama_library().ggml_quantize_chunk(
            ctypes.c_int(number),
            ctypes.c_void_p(source.data_ptr()),
            ctypes.c_void_p(made.data_ptr()),
            ctypes.c_int64(0),
            ctypes.c_int64(rows),
            ctypes.c_int64(columns),
            ctypes.c_void_p(None if matters is None else matters.data_ptr()),
        )
        numbers = gguf.quants.dequantize(made.numpy().reshape(rows, -1), number)
        return torch.from_numpy(numbers.copy()).reshape(weight.shape), made.nbytes

    return replaced(subject, decoded)


def _llama_library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("llama-cpp-python is missing", name="llama-cpp-python")
    library = ctypes.CDLL(str(Path(spec.origin).parent / "lib" / "libggml-base.so"))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    return library


def _importance(subject: Subject, name: str) -> Tensor:
    """The mean square of each column's input, by the calibration data: llama.cpp's importance matrix."""
    seen = subject.seen.seen[name]
    return (torch.diagonal(seen.gram[0]) / seen.rows).float().contiguous()


def torchao(subject: Subject, group: int, zero: bool) -> Store:
    """torchao's integers of 4 bits in groups, with scales in bfloat16 (and zero points in 4 bits)."""
    four_bits: Any = vars(torch)["int4"]

    def store(model: nn.Module) -> tuple[float, nn.Module]:
        api = importlib.import_module("torchao.quantization")
        mappings = importlib.import_module("torchao.quantization.quant_primitives").MappingType
        config = api.IntxWeightOnlyConfig(
            weight_dtype=four_bits,
            granularity=api.PerGroup(group),
            mapping_type=mappings.ASYMMETRIC if zero else mappings.SYMMETRIC,
            scale_dtype=torch.bfloat16,
        )
        api.quantize_(model, config, filter_fn=lambda m, name: subject.chosen(name, m))
        for module in weights(model, subject).values():
            module.weight = nn.Parameter(dense_weight(module).dequantize().float())
        return 4 + (20 if zero else 16) / group, model

    return store


def nncf(subject: Subject, group: int, zero: bool, by_data: bool) -> Store:
    """NNCF's integers of 4 bits in groups, with scales in float16 (and zero points in 4 bits).

    by_data: with its AWQ and scale estimation, which are all of its methods that run on PyTorch's models.
    """

    def store(model: nn.Module) -> tuple[float, nn.Module]:
        api = importlib.import_module("nncf")
        left_out = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and not subject.chosen(n, m)]
        made = api.compress_weights(
            model,
            mode=api.CompressWeightsMode.INT4_ASYM if zero else api.CompressWeightsMode.INT4_SYM,
            group_size=group,
            ratio=1.0,
            all_layers=True,
            ignored_scope=api.IgnoredScope(types=["embedding"], patterns=[f".*{n}.*" for n in left_out]),
            dataset=api.Dataset(subject.calibration, lambda call: call),
            subset_size=len(subject.calibration),
            awq=by_data,
            scale_estimation=by_data,
        )
        return 4 + (20 if zero else 16) / group, made

    return store

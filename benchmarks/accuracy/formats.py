"""Ways to store the chosen weights of a trained model: each a function that changes a copy of it and says how many bits
a weight takes then, scales and all.

effcc's are its public verbs. Peers': llama.cpp's own quantizer (the library in llama-cpp-python, a tensor at a time,
with the importance of columns, the mean square of what they are multiplied with, where its name ends in `imatrix`);
torchao's and NNCF's weight-only settings. Their weights are decoded to floats, which changes no value.
"""

from __future__ import annotations

import copy
import ctypes
import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import effcc
from benchmarks.accuracy.subjects import Subject
from effcc.budget.candidates import Recipe, Where
from effcc.compression.install import Weight, held_by
from effcc.compression.search import matrix_of

Store = Callable[[nn.Module], float]
"""Stores the chosen weights of a model otherwise, in place; gives the bits a weight takes."""


def weights(model: nn.Module, subject: Subject) -> dict[str, nn.Module]:
    """The modules whose weights are stored otherwise."""
    return {name: m for name, m in model.named_modules() if subject.chosen(name, m)}


def bits(model: nn.Module, subject: Subject) -> float:
    """Bits a weight, of encoded modules and dense ones."""
    chosen = weights(model, subject).values()
    stored = sum(t.nbytes for m in chosen for n, t in _own(m).items() if n.startswith(("weight", "input_")))
    return 8 * stored / count(subject)


def decoded(model: nn.Module, subject: Subject) -> nn.Module:
    """A copy of the original with a model's chosen weights as floats, changes of inputs undone: it runs quicker."""
    made = copy.deepcopy(subject.model)
    for name, module in weights(model, subject).items():
        held, weight = held_by(module), Weight({name: module})
        numbers = weight.dense()
        if held is not None:
            numbers = held.change.undone(matrix_of(weight, numbers), weight.taps).reshape(numbers.shape).numpy()
        made.get_submodule(name).weight = nn.Parameter(torch.tensor(numbers))
    return made


def count(subject: Subject) -> int:
    """How many weights there are to store."""
    return sum(_weight(m).numel() for m in weights(subject.model, subject).values())


def _weight(module: nn.Module) -> Any:
    return module.weight


def _own(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}


def quantized(subject: Subject, scheme: str, method: str, resume: Path | None) -> Store:
    """One scheme for all, by a method of `effcc.quantize`; `weighted nearest` fits scales to what the data weigh."""

    def store(model: nn.Module) -> float:
        _recipe(subject, scheme, method, resume)(model, subject.chosen)
        return bits(model, subject)

    return store


def _recipe(subject: Subject, scheme: str, method: str, resume: Path | None) -> Recipe:
    def store(model: nn.Module, where: Where) -> object:
        data = None if method == "nearest" else subject.seen
        named = method.removeprefix("weighted ")
        return effcc.quantize(model, scheme, method=named, data=data, where=where, resume=resume)

    return store


def budgeted(
    subject: Subject,
    schemes: Sequence[str],
    wanted: float,
    method: str,
    calls: int,
    minutes: float,
    resume: Path | None,
) -> Store:
    """`effcc.compress` to so many bits a weight."""

    def store(model: nn.Module) -> float:
        chosen = {id(m.weight) for m in weights(model, subject).values()}
        rest = sum(p.nbytes for p in (*model.parameters(), *model.buffers()) if id(p) not in chosen)
        _, report = effcc.compress(
            model,
            bytes=rest + wanted * count(subject) / 8,
            data=subject.calibration[:calls],
            schemes={scheme: _recipe(subject, scheme, method, resume) for scheme in schemes},
            where=subject.chosen,
            measure=subject.measure,
            minutes=minutes,
            resume=None if resume is None else resume / "measured",
        )
        print(report.summary())
        return bits(model, subject)

    return store


FALLBACKS = {"Q4_K": "Q5_0", "IQ4_XS": "IQ4_NL", "Q3_K": "IQ4_NL"}
"""What llama.cpp takes for rows that blocks of 256 do not divide: SmolLM2's have 576, but for those of down_proj."""


def replaced(subject: Subject, decoded: Callable[[str, Tensor], tuple[Tensor, float]]) -> Store:
    """Each weight replaced by what a peer's format makes of it, and how many bytes that takes."""

    def store(model: nn.Module) -> float:
        total = 0.0
        for name, module in weights(model, subject).items():
            made, size = decoded(name, _weight(module).detach())
            module.weight = nn.Parameter(made)
            total += size
        return 8 * total / count(subject)

    return store


def llama_cpp(subject: Subject, kind: str, importance: Mapping[str, Tensor] | None = None) -> Store:
    """llama.cpp's quantizer for one type of tensor."""
    import gguf

    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise SystemExit("llama.cpp's quantizer is missing: pip install llama-cpp-python")
    library = ctypes.CDLL(str(Path(spec.origin).parent / "lib" / "libggml-base.so"))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t

    def decoded(name: str, weight: Tensor) -> tuple[Tensor, float]:
        rows, columns = weight.shape
        number = gguf.GGMLQuantizationType[FALLBACKS[kind] if columns % 256 and kind in FALLBACKS else kind]
        block, size = gguf.GGML_QUANT_SIZES[number]
        source = weight.float().contiguous()
        made = torch.empty(rows * columns // block * size, dtype=torch.uint8)
        matters = None if importance is None else importance[name].float().contiguous()
        library.ggml_quantize_chunk(
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


def column_importance(subject: Subject) -> dict[str, Tensor]:
    """The mean square of each column's input, by the calibration data: llama.cpp's importance matrix."""
    return {name: torch.diagonal(seen.gram[0]) / seen.rows for name, seen in subject.seen.seen.items()}


def torchao(subject: Subject, group: int, zero: bool) -> Store:
    """torchao's integers of 4 bits in groups, with scales (and zero points) in bfloat16."""
    api = importlib.import_module("torchao.quantization")
    primitives = importlib.import_module("torchao.quantization.quant_primitives")
    mapping = primitives.MappingType.ASYMMETRIC if zero else primitives.MappingType.SYMMETRIC
    four_bits: Any = vars(torch)["int4"]
    config = api.IntxWeightOnlyConfig(
        weight_dtype=four_bits,
        granularity=api.PerGroup(group),
        mapping_type=mapping,
        scale_dtype=torch.bfloat16,
    )

    def store(model: nn.Module) -> float:
        api.quantize_(model, config, filter_fn=lambda m, name: subject.chosen(name, m))
        for module in weights(model, subject).values():
            module.weight = nn.Parameter(_weight(module).dequantize().float())
        return 4 + (20 if zero else 16) / group

    return store

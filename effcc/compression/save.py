"""Saving a model's weights as they are stored, and loading them into a model of the same class.

    effcc.save(model, "model.safetensors")
    effcc.load_into(make_model(), "model.safetensors")

`effcc.load` is for packages, which are programs; this file holds arrays alone, and the model's class is its user's. It
is a safetensors file that any reader of the format opens: the entries of the state_dict by name, and in the metadata,
under `effcc`, for each module with a stored weight its encoding and shape, and what outputs are rounded to.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from effcc.compression.activations import Codes, codes_of
from effcc.compression.inputs import InputChange
from effcc.compression.install import install, require_module
from effcc.compression.integers import IntegerModule, install_activations, require_integers
from effcc.compression.modules import EncodedModule, encoded_class
from effcc.compression.outputs import OUTPUT_STEP, install_output, rounds
from effcc.errors import CheckpointError, EncodingError, IRSyntaxError, PackageError, UnknownNameError
from effcc.frontend.decode import storage_of, to_numpy
from effcc.frontend.importer import TORCH_DTYPES
from effcc.ir.encodings import Storage
from effcc.runtime.files import aside, flush, umask
from effcc.runtime.strict_json import read_json

Model = TypeVar("Model", bound=nn.Module)
VERSION = 1
KEY = "effcc"
WEIGHT_DTYPES = {str(d).removeprefix("torch."): d for d in TORCH_DTYPES.values() if d.is_floating_point}
INPUT_CHANGES = ("input_scale", "input_rotation")
INPUT_STEP = "input_step"


@dataclass(frozen=True)
class _Entry:
    """What a file says of one stored weight."""

    encoding: str
    shape: list[int]
    components: list[str]
    dtype: str
    error: float | None
    activations: str | None


@dataclass(frozen=True)
class _File:
    """A file's tensors, and what it says of stored weights, by the names of modules."""

    path: Path
    tensors: Mapping[str, Tensor]
    weights: Mapping[str, _Entry]
    outputs: Mapping[str, Codes]


def save(model: nn.Module, path: str | os.PathLike[str]) -> Path:
    """Write a model's parameters and buffers, weights as they are stored, to a safetensors file; returns its path.

    Tensors that modules share are written once. The file appears whole or not at all, whatever ends the process.

        >>> from effcc.compression.quantize import quantize
        >>> print(save(quantize(nn.Linear(3, 2)), "linear.safetensors"))
        linear.safetensors
        >>> load_into(nn.Linear(3, 2), "linear.safetensors").encoding
        'int8(per="channel")'
    """
    require_module(model, "save")
    target = Path(path)
    tensors: dict[str, Tensor] = {}
    names: dict[int, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in names:
            aliases[name] = names[id(tensor)]
        else:
            names[id(tensor)] = name
            tensors[name] = tensor.detach().cpu().contiguous().clone()
    entries = {n: asdict(_entry(m)) for n, m in model.named_modules() if isinstance(m, EncodedModule)}
    outputs = {n: str(codes) for n, m in model.named_modules() if (codes := rounds(m)) is not None}
    said = {"version": VERSION, "weights": entries, "aliases": aliases, "outputs": outputs}
    metadata = {KEY: json.dumps(said, sort_keys=True)}
    with aside(target, folder=True) as staged:  # save_file writes aside, too, and leaves that if it is killed
        save_file(tensors, staged / target.name, metadata)
        (staged / target.name).chmod(0o666 & ~umask())  # as any file that a program writes; save_file's are private
        flush(staged / target.name)
        os.replace(staged / target.name, target)
        flush(target.absolute().parent)
    return target


def _entry(module: EncodedModule) -> _Entry:
    dtype = str(module.weight_dtype or module.weight.dtype).removeprefix("torch.")
    how = str(module.activations) if isinstance(module, IntegerModule) else None
    return _Entry(
        module.encoding, list(module.weight_shape), list(module.weight_components), dtype, module.weight_error, how
    )


def load_into(model: Model, path: str | os.PathLike[str]) -> Model:
    """Load what `save` wrote into a model of the same class, dense or stored in any way; returns `model`.

    Raises CheckpointError for a file that is damaged, was not written by `save`, or holds other weights than the model
    has (which one, and what was expected, is said); the model is then unchanged.

        >>> model = nn.Linear(3, 2)
        >>> path = save(model, "dense.safetensors")
        >>> bool((load_into(nn.Linear(3, 2), path).weight == model.weight).all())
        True
    """
    require_module(model, "load_into")
    file = _read(Path(path))
    modules = dict(model.named_modules())
    pending: list[tuple[nn.Module, Storage, dict[str, Tensor], InputChange, float | None]] = []
    parameters: dict[int, nn.Parameter] = {}
    for name, entry in file.weights.items():
        made, components, change = _stored(file, name, entry, modules.get(name))
        for part in made.trainable:
            components[part] = parameters.setdefault(id(components[part]), nn.Parameter(components[part]))
        pending.append((modules[name], made, components, change, entry.error))
    rest = _rest(file, model)
    for module, made, components, change, error in pending:
        install(module, made, components, change, error)
    for name, entry in file.weights.items():
        codes = None if entry.activations is None else codes_of(entry.activations)
        install_activations(modules[name], codes, file.tensors.get(_prefix(name) + INPUT_STEP))
    for name, module in modules.items():
        install_output(module, file.outputs.get(name), file.tensors.get(_prefix(name) + OUTPUT_STEP))
    model.load_state_dict(rest, strict=False)
    return model


def _prefix(name: str) -> str:
    return f"{name}." if name else ""


def _read(path: Path) -> _File:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: expected a safetensors file that effcc.save wrote, got: {error}") from None
    if KEY not in metadata:
        raise CheckpointError(
            f"{path}: effcc.save did not write this file (its metadata have no {KEY!r}); load dense weights with "
            "safetensors.torch.load_model"
        )
    try:
        header = read_json(metadata[KEY].encode(), f"{path}: metadata")
    except PackageError as error:
        raise CheckpointError(str(error)) from None
    if not isinstance(header, dict) or header.get("version") != VERSION:
        raise CheckpointError(f"{path}: expected version {VERSION} of the format, got {str(header)[:80]}")
    weights, aliases = header.get("weights"), header.get("aliases")
    if not isinstance(weights, dict) or not isinstance(aliases, dict):
        raise CheckpointError(f"{path}: metadata are damaged: expected weights and aliases by name")
    for name, original in aliases.items():
        if original not in tensors or name in tensors:
            raise CheckpointError(f"{path}: metadata are damaged: {name!r} stands for {str(original)[:80]!r}")
        tensors[name] = tensors[original]
    found = {name: _read_entry(path, name, entry) for name, entry in weights.items()}
    return _File(path, tensors, found, _read_outputs(path, header.get("outputs", {}), tensors))


def _read_outputs(path: Path, outputs: Any, tensors: Mapping[str, Tensor]) -> dict[str, Codes]:
    if not isinstance(outputs, dict) or not all(isinstance(how, str) for how in outputs.values()):
        raise CheckpointError(f"{path}: metadata are damaged: expected how outputs are rounded by name")
    try:
        found = {name: codes_of(how) for name, how in outputs.items()}
        for name, codes in found.items():
            _require_step(codes, tensors.get(_prefix(name) + OUTPUT_STEP))
    except (EncodingError, UnknownNameError, IRSyntaxError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    return found


def _read_entry(path: Path, name: str, entry: Any) -> _Entry:
    fits = (
        isinstance(entry, dict)
        and set(entry) == set(_Entry.__dataclass_fields__)
        and isinstance(entry["activations"], str | None)
        and isinstance(entry["encoding"], str)
        and entry["dtype"] in WEIGHT_DTYPES
        and all(isinstance(entry[k], list) for k in ("shape", "components"))
        and all(type(n) is int and 0 < n < 2**31 for n in entry["shape"])
        and all(isinstance(n, str) for n in entry["components"])
        and (entry["error"] is None or type(entry["error"]) in (int, float))
    )
    if not fits:
        raise CheckpointError(f"{path}: metadata are damaged: {name!r} is {str(entry)[:80]}")
    return _Entry(**entry)


def _stored(
    file: _File, name: str, entry: _Entry, module: nn.Module | None
) -> tuple[Storage, dict[str, Tensor], InputChange]:
    """One stored weight, checked against the module that it is for."""
    where, tensors = f"{file.path}: {name or 'the model'}", file.tensors
    if module is None or encoded_class(module) is None:
        raise CheckpointError(f"{where} has a stored weight; the model has {_kind(module)} there")
    held: Any = module
    expected = list(held.weight_shape if isinstance(module, EncodedModule) else held.weight.shape)
    if expected != entry.shape:
        raise CheckpointError(f"{where}: expected a weight of shape {expected}, the file's has {entry.shape}")
    prefix = _prefix(name)
    missing = [n for n in entry.components if prefix + n not in tensors]
    if missing:
        raise CheckpointError(f"{where}: the component {missing[0]!r} of its weight is missing")
    components = [tensors[prefix + n] for n in entry.components]
    try:
        made = storage_of(entry.encoding, entry.shape, components, WEIGHT_DTYPES[entry.dtype])
        made.decode([to_numpy(c) for c in components])  # coordinates, too, are what they should be
        if entry.activations is not None and module is not None:
            codes = codes_of(entry.activations)
            require_integers([module], made, codes.per == "tensor")
            _require_step(codes, tensors.get(prefix + INPUT_STEP))
    except (EncodingError, UnknownNameError, IRSyntaxError) as error:
        raise CheckpointError(f"{where}: {error}") from None
    if [f"weight_{c.name}" for c in made.components] != entry.components:
        raise CheckpointError(f"{where}: {entry.encoding} is not stored as {', '.join(entry.components)}")
    names = [c.name for c in made.components]
    scale, rotation = (tensors.get(prefix + n) for n in INPUT_CHANGES)
    columns = int(getattr(module, "in_features", 0) or getattr(module, "in_channels", 0))
    size = 1 if rotation is None or rotation.ndim != 2 else len(rotation)
    fits = (scale is None or tuple(scale.shape) == (columns,)) and (
        rotation is None or (tuple(rotation.shape) == (size, size) and size > 0 and columns % size == 0)
    )
    if not fits or (columns == 0 and (scale is not None or rotation is not None)):
        raise CheckpointError(f"{where}: what its input is changed by does not fit {columns} channels")
    return made, dict(zip(names, components, strict=True)), InputChange(scale, rotation)


def _require_step(codes: Codes, step: Tensor | None) -> None:
    """Raise EncodingError unless there is a step, one number, where the input's scale is stored."""
    if (step is not None) != (codes.per == "tensor") or (
        step is not None and (step.shape != () or step.dtype != torch.float32 or not 0 < float(step) < float("inf"))
    ):
        raise EncodingError(f"activations={codes}: expected {'a positive' if codes.per == 'tensor' else 'no'} step")


def _kind(module: nn.Module | None) -> str:
    return "no module" if module is None else f"a {type(module).__name__}"


def _rest(file: _File, model: nn.Module) -> dict[str, Tensor]:
    """The tensors that are not parts of stored weights. Raises CheckpointError unless the model has exactly these."""
    wanted, modules = dict(model.state_dict()), dict(model.named_modules())
    for name, module in modules.items():
        if isinstance(module, EncodedModule) and name not in file.weights:
            raise CheckpointError(
                f"{file.path}: {name or 'the model'} is dense in the file and stored as {module.encoding} in the "
                "model; load into the dense model"
            )
        if isinstance(module, EncodedModule):
            for part in (*module.weight_components, INPUT_STEP):
                wanted.pop(_prefix(name) + part, None)
        if rounds(module) is not None:
            wanted.pop(_prefix(name) + OUTPUT_STEP)
    rest = dict(file.tensors)
    for name in file.outputs:
        if name not in modules:
            raise CheckpointError(f"{file.path}: {name!r} has a rounded output; the model has no such module")
        rest.pop(_prefix(name) + OUTPUT_STEP)
    for name, entry in file.weights.items():
        for part in ("weight", *entry.components, *INPUT_CHANGES, INPUT_STEP):
            wanted.pop(_prefix(name) + part, None)
            rest.pop(_prefix(name) + part, None)
    for name in [*wanted, *rest]:
        if name not in rest or name not in wanted:
            raise CheckpointError(f"{file.path}: the {'model' if name in rest else 'file'} has no {name!r}")
        got, expected = rest[name], wanted[name]
        if got.shape != expected.shape or got.dtype != expected.dtype:
            raise CheckpointError(f"{file.path}: {name!r}: expected {_shown(expected)}, got {_shown(got)}")
    return rest


def _shown(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"

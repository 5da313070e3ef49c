"""The weights of a model that are chosen to be stored, and putting what is stored in their place.

All weights are computed before the first module is changed, so that a refusal leaves the model as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from effcc.compression.inputs import UNCHANGED, InputChange
from effcc.compression.modules import ENCODED, EncodedLinear, EncodedModule, encoded_class, form_of
from effcc.errors import EncodingError, InputError
from effcc.frontend.decode import storage_of, to_numpy, to_tensors
from effcc.frontend.importer import TORCH_DTYPES
from effcc.ir.encodings import Storage

Choice = Callable[[str, nn.Module], bool]
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Stored:
    """A weight's storage and its component arrays, and what its input is changed by.

    error: of the output (of the weight, where no data were given), relative to its norm; None where unknown.
    """

    storage: Storage
    arrays: list[Any]
    change: InputChange = UNCHANGED
    error: float | None = None


@dataclass(frozen=True)
class Weight:
    """A weight that is to be stored: the modules that hold it, by name.

    given: how what computes its input changes it already; None: not at all, and nothing else may rely on it.
    made: how the channels of its own output are changed, for layers that read them.
    """

    modules: Mapping[str, nn.Module]
    given: InputChange | None = None
    made: InputChange = UNCHANGED

    @property
    def name(self) -> str:
        return next(iter(self.modules)) or "the model"

    @property
    def module(self) -> Any:
        return next(iter(self.modules.values()))

    @property
    def source(self) -> Tensor:
        """The tensor that modules share where they share the weight."""
        return _source(self.module)

    def dense(self) -> Any:
        """Its numbers, with all changes."""
        weight: Tensor = self.module.weight
        if self.made:
            weight = self.made.of_producer(weight.detach())
        if self.given:
            weight = self.given.of_weight(weight.detach().float()[None])[0].to(weight)
        return to_numpy(weight)

    @property
    def held(self) -> Stored | None:
        """What is stored already."""
        return held_by(self.module)

    @property
    def taps(self) -> int:
        """Elements of a row that one input channel has: the size of a convolution's kernel."""
        size = 1
        for extent in getattr(self.module, "kernel_size", ()):
            size *= extent
        return size


def require_module(model: object, verb: str) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(f"{verb}: expected an nn.Module, got {type(model).__name__}")


def weights_of(model: nn.Module, where: Choice | None) -> list[Weight]:
    """The weights of the chosen modules (default: every nn.Linear). Raises EncodingError where one cannot be stored."""
    chosen = [(name, m) for name, m in model.named_modules() if (where or is_linear)(name, m)]
    if not chosen:
        raise EncodingError(
            f"no weight of {type(model).__name__} was chosen: it has no nn.Linear; say which modules by where=..."
        )
    found: dict[int, dict[str, nn.Module]] = {}
    for name, module in chosen:
        if encoded_class(module) is None:
            known = ", ".join(f"nn.{c.__name__}" for c in ENCODED)
            raise EncodingError(f"{name or 'the model'} is a {type(module).__name__}; weights of {known} can be stored")
        found.setdefault(id(_source(module)), {})[name] = module
    return [Weight(modules) for modules in found.values()]


def _source(module: Any) -> Tensor:
    found: Tensor = (
        getattr(module, module.weight_components[-1]) if isinstance(module, EncodedModule) else module.weight
    )
    return found


def is_linear(_: str, module: nn.Module) -> bool:
    return encoded_class(module) is EncodedLinear


def held_by(module: nn.Module) -> Stored | None:
    """What a module stores already."""
    if not isinstance(module, EncodedModule):
        return None
    components = [getattr(module, name) for name in module.weight_components]
    made = storage_of(module.encoding, module.weight_shape, components, module.weight_dtype)
    change = InputChange(module.input_scale, module.input_rotation)
    return Stored(made, [to_numpy(c) for c in components], change, module.weight_error)


def install_all(found: Sequence[tuple[Weight, Stored]]) -> None:
    """Put what is stored in the weights' place; modules that shared a weight share its components.

    Whatever ends it early (an interrupt, no memory), modules are then as they were.
    """
    rotations: dict[int, Tensor] = {}  # one for all layers of this model, and of no other: buffers may be written to
    with all_or_nothing([m for weight, _ in found for m in weight.modules.values()]):
        for weight, stored in found:
            components, change = tensors_of(stored, weight.source), stored.change
            if change.rotation is not None:
                own = rotations.setdefault(id(change.rotation), change.rotation.clone())
                change = replace(change, rotation=own)
            for module in weight.modules.values():
                install(module, stored.storage, components, change, stored.error)


@contextmanager
def all_or_nothing(modules: Sequence[nn.Module]) -> Iterator[None]:
    """What is done to modules' own parameters and attributes is undone if it ends early."""
    before = [
        (m, m.__class__, {k: copy.copy(v) if isinstance(v, dict) else v for k, v in vars(m).items()}) for m in modules
    ]
    try:
        yield
    except BaseException:
        for module, kind, state in before:
            module.__class__, module.__dict__ = kind, state
        raise


def tensors_of(stored: Stored, source: Tensor) -> dict[str, Tensor]:
    """Components by name; a parameter where the source was one and gradients pass."""
    found: dict[str, Tensor] = {}
    for component, made in zip(stored.storage.components, to_tensors(stored.arrays), strict=True):
        tensor = made.to(source.device)
        trained = component.name in stored.storage.trainable and isinstance(source, nn.Parameter)
        found[component.name] = nn.Parameter(tensor, source.requires_grad) if trained else tensor
    return found


def install(
    module: nn.Module,
    made: Storage,
    components: Mapping[str, Tensor],
    change: InputChange = UNCHANGED,
    error: float | None = None,
) -> None:
    """Put the components in the place of a module's weight, and what changes its input beside them."""
    like = torch.empty(0, dtype=TORCH_DTYPES[made.dtype], device=_source(module).device)
    if isinstance(module, EncodedModule):
        for name in (*module.weight_components, "input_scale", "input_rotation"):
            delattr(module, name)
    else:
        found = encoded_class(module)
        assert found is not None
        del module.weight
        vars(module).pop("encoding", None)  # of a module that was trained with its weight as it would be stored
        module.__class__ = found
    names = [f"weight_{name}" for name in components]
    module.weight_form = form_of(str(made.encoding), made.shape, names, TORCH_DTYPES[made.dtype])  # type: ignore[assignment]
    module.weight_error = error  # type: ignore[assignment]
    for name, tensor in components.items():
        if isinstance(tensor, nn.Parameter):
            module.register_parameter(f"weight_{name}", tensor)
        else:
            module.register_buffer(f"weight_{name}", tensor)
    module.register_buffer("input_scale", None if change.scale is None else change.scale.to(like))
    module.register_buffer("input_rotation", None if change.rotation is None else change.rotation.to(like))

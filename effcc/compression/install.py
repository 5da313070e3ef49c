"""Storing the weights of a model's modules: all are computed before the first module is changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

from effcc.compression.modules import ENCODED, EncodedLinear, EncodedModule
from effcc.errors import EncodingError, InputError
from effcc.frontend.decode import storage_of, to_numpy, to_tensor
from effcc.frontend.importer import TORCH_DTYPES
from effcc.ir.encoding import Encoding
from effcc.ir.encodings import Storage

Choice = Callable[[str, nn.Module], bool]
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Stored:
    """A weight's storage and its component arrays."""

    storage: Storage
    arrays: list[Any]


def require_module(model: object, verb: str) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(f"{verb}: expected an nn.Module, got {type(model).__name__}")


def require_only(wanted: Encoding, names: Sequence[str], verb: str, other: str) -> None:
    found = wanted.terms[0]
    if len(found) != 1 or found[0].name not in names:
        raise EncodingError(
            f"effcc.{verb} takes one of {', '.join(names)}, got {wanted or 'dense'}; effcc.{other} takes the others"
        )


def encode_weights(model: Model, store: Callable[[Any, Stored | None], Stored], where: Choice | None) -> Model:
    """Store the chosen modules' weights; all are computed before the first module is changed."""
    chosen = [(name, m) for name, m in model.named_modules() if (where or is_linear)(name, m)]
    if not chosen:
        raise EncodingError(
            f"no weight of {type(model).__name__} was chosen: it has no nn.Linear; say which modules by where=..."
        )
    made: dict[int, Stored] = {}
    pending: list[tuple[nn.Module, Stored, Any]] = []
    for name, module in chosen:
        if not isinstance(module, EncodedModule) and type(module) not in ENCODED:
            known = ", ".join(f"nn.{c.__name__}" for c in ENCODED)
            raise EncodingError(f"{name or 'the model'} is a {type(module).__name__}; weights of {known} can be stored")
        held = held_by(module)
        source = getattr(module, module.weight_components[-1]) if isinstance(module, EncodedModule) else module.weight
        if id(source) not in made:
            dense = to_numpy(module.weight)
            try:
                made[id(source)] = store(dense, held)
            except EncodingError as error:
                raise EncodingError(f"{name or 'the model'}: {error} (leave it out with where=...)") from None
        pending.append((module, made[id(source)], source))
    shared: dict[int, dict[str, Tensor]] = {}
    for module, stored, source in pending:
        if id(stored) not in shared:
            shared[id(stored)] = _tensors(stored, source)
        _install(module, stored.storage, shared[id(stored)])
    return model


def is_linear(_: str, module: nn.Module) -> bool:
    return type(module) in (nn.Linear, EncodedLinear)


def held_by(module: nn.Module) -> Stored | None:
    """What a module stores already."""
    if not isinstance(module, EncodedModule):
        return None
    components = [getattr(module, name) for name in module.weight_components]
    made = storage_of(module.encoding, module.weight_shape, components, module.weight_dtype)
    return Stored(made, [to_numpy(c) for c in components])


def _tensors(stored: Stored, source: Tensor) -> dict[str, Tensor]:
    """Components by name; a parameter where the source was one and gradients pass."""
    found: dict[str, Tensor] = {}
    for component, array in zip(stored.storage.components, stored.arrays, strict=True):
        tensor = to_tensor(array).to(source.device)
        trained = component.name in stored.storage.trainable and isinstance(source, nn.Parameter)
        found[component.name] = nn.Parameter(tensor, source.requires_grad) if trained else tensor
    return found


def _install(module: nn.Module, made: Storage, components: dict[str, Tensor]) -> None:
    """Put the components in the place of the weight."""
    if isinstance(module, EncodedModule):
        for name in module.weight_components:
            delattr(module, name)
    else:
        del module.weight
        module.__class__ = ENCODED[type(module)]
    module.encoding = str(made.encoding)  # type: ignore[assignment]
    module.weight_shape = made.shape  # type: ignore[assignment]
    module.weight_components = tuple(f"weight_{name}" for name in components)  # type: ignore[assignment]
    module.weight_dtype = TORCH_DTYPES[made.dtype]  # type: ignore[assignment]
    for name, tensor in components.items():
        if isinstance(tensor, nn.Parameter):
            module.register_parameter(f"weight_{name}", tensor)
        else:
            module.register_buffer(f"weight_{name}", tensor)

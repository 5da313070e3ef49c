"""Storing a model's weights compactly: `quantize` and `sparsify`, one after the other in either order.

    effcc.quantize(model, "int8")                         # weights as bytes, a scale for each output channel
    effcc.sparsify(model, "block(4,1)", density=0.2)      # of every 4 outputs, the fifth of inputs that matters most
    model = torch.compile(model, backend="effcc")

Both work in place, as torchao's `quantize_` does, and return the model. A module keeps its class (an encoded
`nn.Linear` is an `nn.Linear`), its bias and its hooks; in place of the parameter `weight` it holds component arrays,
`weight_values`, `weight_scale`, `weight_columns`, and `weight` decodes them. So state_dict, deepcopy, pickling, eager
and torch.export work as before, and what effcc compiles reads the components. (A process that only loads such a `.pt2`
file or pickle with torch imports `effcc.frontend.decode` or this module first.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

from effcc.errors import EncodingError, InputError
from effcc.frontend.decode import decode, storage_of, to_numpy, to_tensor
from effcc.ir.dtypes import from_numpy
from effcc.ir.encoding import Encoding
from effcc.ir.encodings import Storage, canonical, storage
from effcc.ir.encodings.storage import LEVELS, VALUES
from effcc.ir.parser import encoding_of

Choice = Callable[[str, nn.Module], bool]
Model = TypeVar("Model", bound=nn.Module)


class _Encoded(nn.Module):
    """A module whose `weight` is stored by components: buffers, or a parameter where gradients pass to one."""

    encoding: str
    weight_shape: tuple[int, ...]
    weight_components: tuple[str, ...]

    @property
    def weight(self) -> Tensor:
        """The dense weight, decoded."""
        components = [getattr(self, name) for name in self.weight_components]
        made: Tensor = decode(self.encoding, list(self.weight_shape), components)
        return made

    @weight.setter
    def weight(self, value: object) -> None:
        raise EncodingError(f"the weight is stored as {self.encoding}; assign its components: {self.weight_components}")

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, weight={self.encoding}"


class EncodedLinear(_Encoded, nn.Linear):
    """`nn.Linear` with a stored weight."""


class EncodedEmbedding(_Encoded, nn.Embedding):
    """`nn.Embedding` with a stored table; a row is a channel."""


class EncodedConv1d(_Encoded, nn.Conv1d):
    """`nn.Conv1d` with a stored kernel."""


class EncodedConv2d(_Encoded, nn.Conv2d):
    """`nn.Conv2d` with a stored kernel."""


class EncodedConv3d(_Encoded, nn.Conv3d):
    """`nn.Conv3d` with a stored kernel."""


ENCODED: dict[type[nn.Module], type[_Encoded]] = {
    nn.Linear: EncodedLinear,
    nn.Embedding: EncodedEmbedding,
    nn.Conv1d: EncodedConv1d,
    nn.Conv2d: EncodedConv2d,
    nn.Conv3d: EncodedConv3d,
}
"""What each class of module becomes; only modules of exactly these classes (or encoded before) can be encoded."""


def quantize(model: Model, scheme: str = "int8", *, where: Choice | None = None) -> Model:
    """Store weights as small integers, in place; returns `model`.

    scheme: `int8(per="channel")` (short: `int8`) or `int8(per="tensor")`: W = f32(values) * scale, symmetric around
        zero, |error| <= scale / 2.
    where: takes a module's name and the module, says whether its weight is to be stored so; default: every nn.Linear.
        Linear, Embedding and convolutions can be stored. A weight that is sparse already keeps its pattern.

    Raises UnknownNameError or EncodingError for a scheme that does not exist, does not fit a weight (which one is
    said), or stands where it cannot; the model is then unchanged.

        >>> model = nn.Linear(3, 2)
        >>> quantize(model)
        EncodedLinear(in_features=3, out_features=2, bias=True, weight=int8(per="channel"))
    """
    _require_module(model, "quantize")
    wanted = canonical(encoding_of(scheme))
    _require_only(wanted, VALUES, "quantize", "sparsify")

    def store(dense: Any, held: _Stored | None) -> _Stored:
        if held is None:
            made = storage(wanted, dense.shape, from_numpy(dense.dtype))
            return _Stored(made, made.encode(dense))
        levels = held.storage.levels
        if not held.storage.values.is_exact:
            raise EncodingError(f"its values are stored as {held.storage.encoding} already; quantize the dense weight")
        chain = Encoding(((*held.storage.encoding.terms[0], *wanted.terms[0]),))
        made = storage(chain, held.storage.shape, held.storage.dtype, levels.count)
        coordinates, (elements,) = held.storage.split(held.arrays)
        return _Stored(made, [*coordinates, *made.values.encode(levels, elements)])

    return _encode(model, store, where)


def sparsify(model: Model, scheme: str = "block(4,1)", *, density: float, where: Choice | None = None) -> Model:
    """Keep only the blocks of weights that matter most, in place; returns `model`.

    scheme: `block(r,c)`: of every r rows of a matrix, blocks of r x c elements.
    density: the share that is kept, 0 < density <= 1. Of every r rows the same number of blocks is kept,
        max(1, round(density * columns / c)): those of largest L2 norm, of equal ones the first.
    where: as in `quantize`.

    What is kept of a dense weight stays a parameter, so a sparse model can be fine-tuned; what is kept of a quantized
    weight keeps its bytes and scale.

    Raises UnknownNameError or EncodingError as `quantize` does, also for shapes that the blocks do not divide.

        >>> sparsify(nn.Linear(6, 8), "block(4,1)", density=0.5)
        EncodedLinear(in_features=6, out_features=8, bias=True, weight=block(4,1))
    """
    _require_module(model, "sparsify")
    wanted = canonical(encoding_of(scheme))
    _require_only(wanted, LEVELS, "sparsify", "quantize")
    if not 0.0 < density <= 1.0:
        raise EncodingError(f"density is the share of weights to keep: expected 0 < density <= 1, got {density}")

    def store(dense: Any, held: _Stored | None) -> _Stored:
        if held is not None and held.storage.levels.count:
            raise EncodingError(f"it is stored as {held.storage.encoding} already; sparsify the dense weight")
        values = () if held is None else held.storage.encoding.terms[0]
        numbers = dense if held is None else held.storage.decode(held.arrays)
        (level,) = wanted.terms[0]
        width = int(level.args[1])
        count = max(1, round(density * (dense.shape[-1] // width)))
        dtype = from_numpy(dense.dtype) if held is None else held.storage.dtype
        made = storage(Encoding(((level, *values),)), dense.shape, dtype, count)
        coordinates = made.levels.select(numbers)
        kept, *rest = [dense] if held is None else held.arrays
        return _Stored(made, [*coordinates, made.levels.compress(kept, coordinates), *rest])

    return _encode(model, store, where)


def _require_module(model: object, verb: str) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(f"{verb}: expected an nn.Module, got {type(model).__name__}")


@dataclass(frozen=True)
class _Stored:
    """A weight's storage and its component arrays."""

    storage: Storage
    arrays: list[Any]


def _require_only(wanted: Encoding, names: Sequence[str], verb: str, other: str) -> None:
    found = wanted.terms[0]
    if len(found) != 1 or found[0].name not in names:
        raise EncodingError(
            f"effcc.{verb} takes one of {', '.join(names)}, got {wanted or 'dense'}; effcc.{other} takes the others"
        )


def _encode(model: Model, store: Callable[[Any, _Stored | None], _Stored], where: Choice | None) -> Model:
    """Store the chosen modules' weights; all are computed before the first module is changed."""
    chosen = [(name, m) for name, m in model.named_modules() if (where or _is_linear)(name, m)]
    if not chosen:
        raise EncodingError(
            f"no weight of {type(model).__name__} was chosen: it has no nn.Linear; say which modules by where=..."
        )
    made: dict[int, _Stored] = {}
    pending: list[tuple[nn.Module, _Stored, Any]] = []
    for name, module in chosen:
        if not isinstance(module, _Encoded) and type(module) not in ENCODED:
            known = ", ".join(f"nn.{c.__name__}" for c in ENCODED)
            raise EncodingError(f"{name or 'the model'} is a {type(module).__name__}; weights of {known} can be stored")
        held = _held(module)
        source = getattr(module, module.weight_components[-1]) if isinstance(module, _Encoded) else module.weight
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


def _is_linear(_: str, module: nn.Module) -> bool:
    return type(module) in (nn.Linear, EncodedLinear)


def _held(module: nn.Module) -> _Stored | None:
    """What a module stores already."""
    if not isinstance(module, _Encoded):
        return None
    components = [getattr(module, name) for name in module.weight_components]
    made = storage_of(module.encoding, module.weight_shape, components)
    return _Stored(made, [to_numpy(c) for c in components])


def _tensors(stored: _Stored, source: Tensor) -> dict[str, Tensor]:
    """Components by name; a parameter where the source was one and gradients pass."""
    found: dict[str, Tensor] = {}
    for component, array in zip(stored.storage.components, stored.arrays, strict=True):
        tensor = to_tensor(array).to(source.device)
        trained = component.name in stored.storage.trainable and isinstance(source, nn.Parameter)
        found[component.name] = nn.Parameter(tensor, source.requires_grad) if trained else tensor
    return found


def _install(module: nn.Module, made: Storage, components: dict[str, Tensor]) -> None:
    """Put the components in the place of the weight."""
    if isinstance(module, _Encoded):
        for name in module.weight_components:
            delattr(module, name)
    else:
        del module.weight
        module.__class__ = ENCODED[type(module)]
    module.encoding = str(made.encoding)  # type: ignore[assignment]
    module.weight_shape = made.shape  # type: ignore[assignment]
    module.weight_components = tuple(f"weight_{name}" for name in components)  # type: ignore[assignment]
    for name, tensor in components.items():
        if isinstance(tensor, nn.Parameter):
            module.register_parameter(f"weight_{name}", tensor)
        else:
            module.register_buffer(f"weight_{name}", tensor)

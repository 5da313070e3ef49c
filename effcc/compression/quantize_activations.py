"""`quantize_activations`: layers whose weights are stored already quantize what they are given, too."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from effcc.compression.activations import Activations, Codes, activations_of
from effcc.compression.calls import calls_of
from effcc.compression.install import Choice, Model, Stored, Weight, all_or_nothing, held_by, require_module, weights_of
from effcc.compression.integers import require_integers, takes_integers
from effcc.compression.static import Found, static_codes
from effcc.errors import EncodingError, InputError


def quantize_activations(
    model: Model, activations: str = 'int8(per="token")', *, data: object = None, where: Choice | None = None
) -> Model:
    """Let layers whose weights are stored as integers quantize their inputs, in place; returns `model`.

    For models that were stored before, by `quantize` or by others (`from_gguf`, `from_checkpoint`, `adopt`): many rows,
    as in the prefill of a decoder, are then summed in integers where that is quicker.

    activations, data: as `quantize` takes them.
    where: takes a module's name and the module; default: every linear layer (with `int8`, also every convolution)
        stored so.

    Raises EncodingError for a layer that cannot, or where there is none, InputError for data that are missing or do not
    fit; the model is then unchanged.

        >>> import effcc
        >>> layer = effcc.quantize_activations(effcc.quantize(nn.Linear(32, 2), "int4(group=16)"))
        >>> type(layer).__name__, str(layer.activations)
        ('GroupedLinear', 'int8(per="token")')
    """
    require_module(model, "quantize_activations")
    how = activations_of(activations)
    require_data(how, data)

    def stored_so(_: str, module: nn.Module) -> bool:
        held = held_by(module)
        return held is not None and takes_integers(module, held.storage, how.is_static)

    if where is None and not any(stored_so(name, m) for name, m in model.named_modules()):
        raise EncodingError(
            "no layer's weight is stored as integers; effcc.quantize(..., activations=...) stores it so"
        )
    found: list[tuple[Weight, Stored]] = []
    for weight in weights_of(model, where or stored_so):
        if weight.held is None:
            raise EncodingError(f"{weight.name}: its weight is dense; store it by effcc.quantize(..., activations=...)")
        require_integers(weight.modules.values(), weight.held.storage, how.is_static)
        found.append((weight, weight.held))
    codes = codes_of_layers(model, found, how, data)
    rounding = [model.get_submodule(name) for name in codes.outputs]
    with all_or_nothing([*rounding, *(m for weight, _ in found for m in weight.modules.values())]):
        codes.install(model)
    return model


def require_data(how: Activations, data: object) -> None:
    """Raise InputError where ranges are to be found and no data are given."""
    if how.is_static and data is None:
        raise InputError('activations="int8" needs calibration data: data=[...], inputs that show the layers\' ranges')


def codes_of_layers(model: nn.Module, found: Sequence[tuple[Weight, Stored]], how: Activations, data: object) -> Found:
    """What the inputs of the modules become, and outputs that several read."""
    layers = {name: (m, w.given or stored.change) for w, stored in found for name, m in w.modules.items()}
    if not how.is_static:
        return Found(dict.fromkeys(layers, (Codes(how.per, bits=how.bits), None)))
    return static_codes(model, layers, how, calls_of(data))

"""`quantize`: storing weights with fewer bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from effcc.compression.activations import activations_of
from effcc.compression.fold import folded
from effcc.compression.inputs import UNCHANGED
from effcc.compression.install import (
    Choice,
    Model,
    Stored,
    Weight,
    all_or_nothing,
    install_all,
    is_linear,
    require_module,
    weights_of,
)
from effcc.compression.integers import multiplies, require_integers
from effcc.compression.methods import methods_of
from effcc.compression.methods.problem import Method, Problem
from effcc.compression.methods.sparse import rounded_where_stored
from effcc.compression.outliers import columns_given_most, encode_apart
from effcc.compression.quantize_activations import codes_of_layers, require_data
from effcc.compression.resume import Folder, searched_from
from effcc.compression.schemes import Schemes, assigned, require_kind, schemes_of
from effcc.compression.search import Plan, matrix_of, relative_error, solved
from effcc.compression.static import Found
from effcc.errors import EncodingError
from effcc.ir.dtypes import from_numpy
from effcc.ir.encoding import Encoding
from effcc.ir.encodings import storage
from effcc.ir.encodings.registry import names
from effcc.ir.encodings.storage import is_sum


def quantize(
    model: Model,
    scheme: Schemes = "int8",
    *,
    method: str = "nearest",
    data: object = None,
    where: Choice | None = None,
    activations: str | None = None,
    fold: bool = False,
    resume: Folder | None = None,
) -> Model:
    """Store weights with fewer bits, in place; returns `model`.

    scheme: `int8(per="channel")` (short: `int8`), `int4(group=32)`, ...: see `effcc.ir.encodings.values`. For some
        layers others: `{"*.down_proj": "int8", "*.lm_head": None, "*": "int4(group=32)"}`, where the first pattern that
        a module's name matches holds, and None, or no pattern that matches, leaves it dense.
        Sums are stored term by term, each what those before have left: `outliers(8) + int8` (columns of largest norm as
        they are; with data those whose inputs are largest), `low_rank(16) + int3(group=64)`, `csr(share=0.01) + int4`,
        `monarch(16)`; what computes with them multiplies by one term after the other, and by a product's factors in
        turn.
    method: how the numbers are found: `nearest`; with data `gptq`, `quantease` (coordinate descent), `awq` (columns
        scaled by their inputs), `smoothquant` (likewise, for inputs that are quantized, too); `hadamard` (inputs
        rotated); also one after the other, `awq+gptq`.
    data: what the model is to be accurate on: calls of it, each a tensor, a tuple of arguments, or a dict of keywords;
        or what `effcc.calibrate` made of those, for several runs.
    where: takes a module's name and the module, says whether its weight is to be stored so; default: every nn.Linear,
        and every nn.Conv2d where activations are `int8`.
        Linear, Embedding and convolutions can be stored. A weight that is sparse already keeps its pattern, and is
        rounded by `nearest` or `quantease`. An embedding is rounded to nearest whatever the method: its rows are looked
        up, not multiplied.
    activations: layers stored as int8 (linear ones: as integers of any kind) quantize their inputs, too, and multiply
        integers with integers. `int8(per="token")`: linear layers, with a scale for each row at every call, which does
        not see what `outliers(8) + int8` has apart. `int8`:
        also convolutions, by the range that the data show; with `zero=true`, `range="percentile"` or `"mse"`,
        `sums="float"` as `effcc.compression.activations` says. `int7` is half as fine, and quicker on machines that
        have no dot products of bytes (AVX2).
    fold: what `awq`, `smoothquant` and `hadamard` do to inputs moves into what computes these, where the data show that
        nothing else reads it: a norm's weight, the rows of the linear layer before, also through the values of
        attention. Layers given the same input then share one change, and it costs nothing when the model runs; where
        there is no such place, it stays with the layer.
    resume: a folder that keeps what is found of each weight: a run that was ended goes on there, given the same model,
        data and method.

    Raises UnknownNameError, IRSyntaxError or EncodingError for a scheme that does not exist, does not parse, does not
    fit a weight (which one is said), or stands where it cannot; InputError for data that are missing, do not fit the
    model, or are not finite; the model is then unchanged.

        >>> from torch import nn
        >>> model = nn.Linear(3, 2)
        >>> quantize(model)
        EncodedLinear(in_features=3, out_features=2, bias=True, weight=int8(per="channel"), 14 bytes)
        >>> import torch
        >>> model = quantize(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), method="gptq", data=torch.randn(16, 4))
    """
    require_module(model, "quantize")
    schemes = schemes_of(scheme)
    alone = {pattern: wanted for pattern, wanted in schemes.items() if wanted is None or not is_sum(wanted)}
    require_kind(alone, names("values"), "quantize", "sparsify")
    methods = methods_of(method)
    how = None if activations is None else activations_of(activations)
    static = how is not None and how.is_static
    if how is not None:
        require_data(how, data)
    chosen = where or (_is_integer if static else is_linear)
    plan: Plan = assigned(weights_of(model, chosen), schemes)
    outside: Mapping[str, Tensor] = {}
    calls = data  # ranges are found by calls, also where methods know what these showed
    if fold:
        moved = folded(model, plan, methods, data, chosen)
        data, plan, outside = moved.data, moved.plan, moved.parameters

    def store(weight: Weight, wanted: Encoding, gram: Any) -> Stored:
        stored = _stored(weight, wanted, methods, gram)
        if how is not None:
            require_integers(weight.modules.values(), stored.storage, how.is_static)
        return stored

    needed_by = method if any(m.needs_data for m in methods) else None
    seen = data if needed_by or not static else None
    how_found = f"quantize {method}{', folded' if fold else ''}"
    found = searched_from(resume, how_found, model, plan, store, seen, needed_by)
    codes = Found() if how is None else codes_of_layers(model, found, how, calls)
    others = {name.rpartition(".")[0]: model.get_submodule(name.rpartition(".")[0]) for name in outside}
    rounding = [model.get_submodule(name) for name in codes.outputs]
    with all_or_nothing([*others.values(), *rounding, *(m for w, _ in found for m in w.modules.values())]):
        install_all(found)
        codes.install(model)
        for name, tensor in outside.items():
            place, _, own = name.rpartition(".")
            trained = model.get_parameter(name).requires_grad
            others[place].register_parameter(own, nn.Parameter(tensor, trained))
    return model


def _is_integer(_: str, module: nn.Module) -> bool:
    return multiplies(module)


def _stored(weight: Weight, wanted: Encoding, methods: Sequence[Method], gram: Any) -> Stored:
    held, dense = weight.held, weight.dense()
    if weight.given is not None:
        methods = [m for m in methods if m.transform is None]
        gram = None if gram is None else weight.given.of_gram(gram)
    trained = getattr(weight.module, "encoding", None) if held is None else None
    if trained is not None and trained != str(wanted):
        raise EncodingError(f"it was trained as {trained}, not stored as {wanted}")
    if not np.isfinite(np.asarray(dense, np.float32)).all():
        raise EncodingError(f"{wanted} stores finite numbers; the weight holds infinities or NaN")
    if is_sum(wanted):
        return _summed(weight, wanted, methods, gram)
    if held is not None and not held.storage.values.is_exact:
        raise EncodingError(f"its values are stored as {held.storage.encoding} already; quantize the dense weight")
    if held is None:
        made, change = storage(wanted, dense.shape, from_numpy(dense.dtype)), UNCHANGED
        if not made.levels.coordinates:
            return solved(weight, dense, made, methods, gram)
        coordinates = made.levels.select(dense)
        elements = made.levels.compress(dense, coordinates)
    else:
        chain = Encoding(((*held.storage.encoding.terms[0], *wanted.terms[0]),))
        made, change = storage(chain, held.storage.shape, held.storage.dtype, held.storage.levels.count), held.change
        coordinates, (elements,) = held.storage.split(held.arrays)
    asked = "+".join(m.name for m in methods)
    if asked not in ("nearest", "quantease"):
        raise EncodingError(
            f"{asked} rounds dense weights; this one is stored as {made.encoding}: use nearest or quantease"
        )
    problem = Problem(matrix_of(weight, dense), None if gram is None else change.of_gram(gram), made)
    if asked == "quantease" and gram is not None:
        arrays = [*coordinates, *rounded_where_stored(made, coordinates, elements, problem)]
    else:
        arrays = [*coordinates, *made.values.encode(made.levels.at(coordinates), elements)]
    return Stored(made, arrays, change, relative_error(problem, made.decode(arrays)))


def _summed(weight: Weight, wanted: Encoding, methods: Sequence[Method], gram: Any) -> Stored:
    """A dense weight as a sum, each term the nearest to what those before have left."""
    if weight.held is not None:
        raise EncodingError(f"its values are stored as {weight.held.storage.encoding} already; give the dense weight")
    if any(m.name != "nearest" for m in methods):
        asked = "+".join(m.name for m in methods)
        raise EncodingError(f"{asked} rounds single encodings; the terms of {wanted} are encoded in turn: use nearest")
    dense = weight.dense()
    made = storage(wanted, dense.shape, from_numpy(dense.dtype))
    problem = Problem(matrix_of(weight, dense), gram, made, weight.taps)
    given_most = None if gram is None else columns_given_most(made, gram)
    arrays = made.encode(dense) if given_most is None else encode_apart(made, dense, given_most)
    return Stored(made, arrays, error=relative_error(problem, made.decode(arrays)))

"""`quantize`: storing weights with fewer bits."""

from __future__ import annotations

from typing import Any

from effcc.compression.install import Choice, Model, Stored, encode_weights, require_module, require_only
from effcc.errors import EncodingError
from effcc.ir.dtypes import from_numpy
from effcc.ir.encoding import Encoding
from effcc.ir.encodings import canonical, storage
from effcc.ir.encodings.registry import names
from effcc.ir.parser import encoding_of


def quantize(model: Model, scheme: str = "int8", *, where: Choice | None = None) -> Model:
    """Store weights as small integers, in place; returns `model`.

    scheme: `int8(per="channel")` (short: `int8`) or `int8(per="tensor")`: W = f32(values) * scale, symmetric around
        zero, |error| <= scale / 2.
    where: takes a module's name and the module, says whether its weight is to be stored so; default: every nn.Linear.
        Linear, Embedding and convolutions can be stored. A weight that is sparse already keeps its pattern.

    Raises UnknownNameError or EncodingError for a scheme that does not exist, does not fit a weight (which one is
    said), or stands where it cannot; the model is then unchanged.

        >>> from torch import nn
        >>> model = nn.Linear(3, 2)
        >>> quantize(model)
        EncodedLinear(in_features=3, out_features=2, bias=True, weight=int8(per="channel"))
    """
    require_module(model, "quantize")
    wanted = canonical(encoding_of(scheme))
    require_only(wanted, names("values"), "quantize", "sparsify")

    def store(dense: Any, held: Stored | None) -> Stored:
        if held is None:
            made = storage(wanted, dense.shape, from_numpy(dense.dtype))
            return Stored(made, made.encode(dense))
        levels = held.storage.levels
        if not held.storage.values.is_exact:
            raise EncodingError(f"its values are stored as {held.storage.encoding} already; quantize the dense weight")
        chain = Encoding(((*held.storage.encoding.terms[0], *wanted.terms[0]),))
        made = storage(chain, held.storage.shape, held.storage.dtype, levels.count)
        coordinates, (elements,) = held.storage.split(held.arrays)
        return Stored(made, [*coordinates, *made.values.encode(levels, elements)])

    return encode_weights(model, store, where)

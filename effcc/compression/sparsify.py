"""`sparsify`: keeping the weights that matter most."""

from __future__ import annotations

from typing import Any

from effcc.compression.install import Choice, Model, Stored, encode_weights, require_module, require_only
from effcc.errors import EncodingError
from effcc.ir.dtypes import from_numpy
from effcc.ir.encoding import Encoding
from effcc.ir.encodings import canonical, storage
from effcc.ir.encodings.registry import names
from effcc.ir.parser import encoding_of


def sparsify(model: Model, scheme: str = "block(4,1)", *, density: float, where: Choice | None = None) -> Model:
    """Keep only the blocks of weights that matter most, in place; returns `model`.

    scheme: `block(r,c)`: of every r rows of a matrix, blocks of r x c elements.
    density: the share that is kept, 0 < density <= 1. Of every r rows the same number of blocks is kept,
        max(1, round(density * columns / c)): those of largest L2 norm, of equal ones the first.
    where: as in `quantize`.

    What is kept of a dense weight stays a parameter, so a sparse model can be fine-tuned; what is kept of a quantized
    weight keeps its bytes and scale.

    Raises UnknownNameError or EncodingError as `quantize` does, also for shapes that the blocks do not divide.

        >>> from torch import nn
        >>> sparsify(nn.Linear(6, 8), "block(4,1)", density=0.5)
        EncodedLinear(in_features=6, out_features=8, bias=True, weight=block(4,1))
    """
    require_module(model, "sparsify")
    wanted = canonical(encoding_of(scheme))
    require_only(wanted, names("level"), "sparsify", "quantize")
    if not 0.0 < density <= 1.0:
        raise EncodingError(f"density is the share of weights to keep: expected 0 < density <= 1, got {density}")

    def store(dense: Any, held: Stored | None) -> Stored:
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
        if held is None:
            return Stored(made, [*coordinates, made.levels.compress(dense, coordinates)])
        kept = made.values.kept(held.storage.levels, held.arrays, made.levels, coordinates, dtype)
        return Stored(made, [*coordinates, *kept])

    return encode_weights(model, store, where)

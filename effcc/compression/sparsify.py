"""`sparsify`: keeping the weights that matter most."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from effcc.compression.install import (
    Choice,
    Model,
    Stored,
    Weight,
    install_all,
    require_module,
    weights_of,
)
from effcc.compression.methods.problem import Problem
from effcc.compression.methods.pruning import Pruning, pruning_of
from effcc.compression.resume import Folder, searched_from
from effcc.compression.schemes import Schemes, assigned, require_kind, schemes_of
from effcc.compression.search import matrix_of, relative_error
from effcc.errors import EncodingError
from effcc.ir.dtypes import from_numpy
from effcc.ir.encoding import Encoding, Scheme
from effcc.ir.encodings import matrix_shape, storage
from effcc.ir.encodings.registry import declared, names


def sparsify(
    model: Model,
    scheme: Schemes = "block(4,1)",
    *,
    density: float | None = None,
    method: str = "magnitude",
    data: object = None,
    where: Choice | None = None,
    resume: Folder | None = None,
) -> Model:
    """Keep only the blocks of weights that matter most, in place; returns `model`.

    scheme: which elements of a matrix can be kept, of a convolution's weight of the matrix [channels, inputs * taps]
        (by `where=`); others by pattern as in `quantize`:
        `block(r,c)`: of every r rows, blocks of r x c elements: everywhere max(1, round(density * columns / c));
        `bcsr(r,c)`: blocks likewise, as many in each r rows as matter there; `csr`: single elements;
        `nm(n,m)`: of every m neighbours in a row n, such as `nm(2,4)`;
        `columns`: whole columns.
        Those of largest L2 norm of scores are kept, of equal ones the first.
    density: the share that is kept, 0 < density <= 1; `nm` says it itself.
    method: what scores weights: `magnitude`; with data `wanda` (magnitude times the norm of what it is multiplied
        with), `sparsegpt` (as if all others made up for it, and those that are kept then do).
    data, where, resume: as in `quantize`.

    What is kept of a dense weight stays a parameter, so a sparse model can be fine-tuned; what is kept of a quantized
    weight keeps its bytes and scale.

    Raises what `quantize` does, also for shapes that the blocks do not divide.

        >>> from torch import nn
        >>> sparsify(nn.Linear(6, 8), "block(4,1)", density=0.5)
        EncodedLinear(in_features=6, out_features=8, bias=True, weight=block(4,1), 120 bytes)
    """
    require_module(model, "sparsify")
    schemes = schemes_of(scheme)
    require_kind(schemes, names("level"), "sparsify", "quantize")
    pruning = pruning_of(method)
    plan = assigned(weights_of(model, where), schemes)

    def store(weight: Weight, wanted: Encoding, gram: Tensor | None) -> Stored:
        return _stored(weight, wanted, density, pruning, gram)

    needed_by = method if pruning.needs_data else None
    install_all(searched_from(resume, f"sparsify {method} {density}", model, plan, store, data, needed_by))
    return model


def _stored(weight: Weight, wanted: Encoding, density: float | None, pruning: Pruning, gram: Tensor | None) -> Stored:
    held, dense = weight.held, weight.dense()
    if held is not None and held.storage.levels.coordinates:
        raise EncodingError(f"it is stored as {held.storage.encoding} already; sparsify the dense weight")
    if held is None and not np.isfinite(np.asarray(dense, np.float32)).all():
        raise EncodingError(f"{wanted} keeps weights by their scores; the weight holds infinities or NaN")
    values = () if held is None else held.storage.encoding.terms[0]
    (level,) = wanted.terms[0]
    count = _count(level, matrix_shape(dense.shape), density)
    dtype = from_numpy(dense.dtype) if held is None else held.storage.dtype
    made = storage(Encoding(((level, *values),)), dense.shape, dtype, count)
    change = None if held is None else held.change
    problem = Problem(matrix_of(weight, dense), gram if change is None or gram is None else change.of_gram(gram), made)
    coordinates = made.levels.select(pruning.scores(problem).reshape(dense.shape).numpy())
    if held is not None:
        kept = made.values.kept(held.storage.levels, held.arrays, made.levels.at(coordinates), coordinates, dtype)
        return Stored(made, [*coordinates, *kept], held.change)
    if pruning.updated is not None:
        ones = made.levels.compress(np.ones(dense.shape, np.float32), coordinates)
        mask = torch.from_numpy(made.levels.expand(ones, coordinates)).reshape(problem.weight.shape) > 0
        dense = pruning.updated(problem, mask).numpy().astype(dense.dtype).reshape(dense.shape)
    arrays = [*coordinates, made.levels.compress(dense, coordinates)]
    return Stored(made, arrays, error=relative_error(problem, made.decode(arrays)))


def _count(level: Scheme, shape: tuple[int, ...], density: float | None) -> int:
    """How many blocks a level keeps at a density; 0 where the notation says it."""
    declaration = declared(level.name)
    if declaration.kept is None:
        if density is not None:
            raise EncodingError(f"{level} says itself how much is kept; leave out density={density}")
        return 0
    if density is None or not 0.0 < density <= 1.0:
        raise EncodingError(f"density is the share of weights to keep: expected 0 < density <= 1, got {density}")
    return declaration.kept(shape, density, **declaration.given(level))

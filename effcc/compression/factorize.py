"""`factorize`: a weight as a matrix of low rank, alone or beside one of few bits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from effcc.compression.install import Choice, Model, Stored, Weight, install_all, require_module, weights_of
from effcc.compression.methods.gptq import gptq
from effcc.compression.methods.low_rank import alternate, nearest_of_rank
from effcc.compression.methods.nearest import nearest
from effcc.compression.methods.problem import Problem
from effcc.compression.schemes import Schemes, assigned, schemes_of
from effcc.compression.search import matrix_of, relative_error, searched
from effcc.errors import EncodingError, UnknownNameError
from effcc.ir.dtypes import from_numpy
from effcc.ir.encoding import Encoding
from effcc.ir.encodings import canonical, storage
from effcc.ir.encodings.registry import declared
from effcc.ir.parser import encoding_of

METHODS = ("lq-lora", "svd")


def factorize(
    model: Model,
    scheme: Schemes = "low_rank(16) + int4(group=32)",
    *,
    method: str = "lq-lora",
    data: object = None,
    where: Choice | None = None,
) -> Model:
    """Store weights of linear layers as a sum, W = L R + Q, in place; returns `model`.

    scheme: `low_rank(r)`, alone or `+` a scheme of values, `low_rank(16) + int3(group=64)`; others by pattern as in
        `quantize`. L[N, r] and R[r, K] stay parameters: they can be trained as adapters are.
    method: `lq-lora`: L R and Q in turn, each the best for what the other leaves; `svd`: L R once, then Q.
    data: as in `quantize`; with data it is the output's error that is made small, and Q is rounded as GPTQ does.
    where: as in `quantize`; only dense nn.Linear can be factorized.

    Raises what `quantize` does; the model is then unchanged.

        >>> model = factorize(nn.Linear(16, 12, bias=False), "low_rank(2) + int4(group=16)")
        >>> [tuple(p.shape) for p in model.parameters()]
        [(12, 2), (2, 16)]
    """
    require_module(model, "factorize")
    if method not in METHODS:
        raise UnknownNameError("method", str(method), METHODS)
    plan = assigned(weights_of(model, where), schemes_of(scheme, _read))

    def store(weight: Weight, wanted: Encoding, gram: Tensor | None) -> Stored:
        return _factored(weight, wanted, 1 if method == "svd" else None, gram)

    install_all(searched(model, plan, store, data, None))
    return model


def _read(given: str | Encoding) -> Encoding:
    """A sum in full, the term of low rank first."""
    encoding = canonical(encoding_of(given))
    low = [t for t in encoding.terms if t and t[0].name == "low_rank"]
    others = [t for t in encoding.terms if t not in low]
    if len(low) != 1 or len(low[0]) != 1 or len(others) > 1:
        raise EncodingError(
            f"effcc.factorize takes low_rank(r), alone or with a scheme of values: low_rank(16) + int3; got {encoding}"
        )
    if any(len(t) != 1 or declared(t[0].name).kind != "values" for t in others):
        raise EncodingError(f"{encoding}: beside low_rank stands a scheme of values, such as int3(group=64)")
    return Encoding((low[0], *others))


def _factored(weight: Weight, wanted: Encoding, rounds: int | None, gram: Tensor | None) -> Stored:
    if weight.held is not None or not all(isinstance(m, nn.Linear) for m in weight.modules.values()):
        raise EncodingError(f"it is a {type(weight.module).__name__}; only dense nn.Linear can be factorized")
    dense = weight.dense()
    if not np.isfinite(np.asarray(dense, np.float32)).all():
        raise EncodingError(f"{wanted} stores finite numbers; the weight holds infinities or NaN")
    made = storage(wanted, dense.shape, from_numpy(dense.dtype))
    rank = int(wanted.terms[0][0].args[0])
    problem = Problem(matrix_of(weight, dense), gram, made)
    values: list[Any] = []
    if len(wanted.terms) == 1:
        left, right = nearest_of_rank(problem.weight[0], None if gram is None else problem.damped()[0], rank)
    else:
        rest = replace(problem, storage=storage(Encoding(wanted.terms[1:]), dense.shape, made.dtype))
        grid, rounded, left, right = alternate(rest, rank, nearest if gram is None else gptq, rounds)
        values = grid.arrays(rounded[None])
    arrays = [left.numpy().astype(dense.dtype), right.numpy().astype(dense.dtype), *values]
    return Stored(made, arrays, error=relative_error(problem, made.decode(arrays)))

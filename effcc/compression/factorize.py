"""`factorize`: a weight as a matrix of low rank, alone or beside one of few bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from effcc.compression.install import Choice, Model, Stored, Weight, install, require_module, tensors_of, weights_of
from effcc.compression.methods.gptq import gptq
from effcc.compression.methods.low_rank import alternate, nearest_of_rank
from effcc.compression.methods.nearest import nearest
from effcc.compression.methods.problem import Problem
from effcc.compression.schemes import Schemes, assigned, schemes_of
from effcc.compression.search import matrix_of, relative_error, searched
from effcc.compression.summed import LowRank, sum_up
from effcc.errors import EncodingError, UnknownNameError
from effcc.frontend.importer import TORCH_DTYPES
from effcc.ir.dtypes import from_numpy
from effcc.ir.encoding import Encoding
from effcc.ir.encodings import canonical, storage
from effcc.ir.encodings.registry import declared
from effcc.ir.parser import encoding_of

METHODS = ("lq-lora", "svd")


@dataclass(frozen=True)
class Factored:
    """What a weight becomes: factors L and R, and what is stored beside them, if anything."""

    encoding: Encoding
    left: Tensor
    right: Tensor
    stored: Stored | None
    error: float


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
        `quantize`. L[N, r] and R[r, K] stay parameters: they can be trained as adapters are, or quantized in turn.
    method: `lq-lora`: L R and Q in turn, each the best for what the other leaves; `svd`: L R once, then Q.
    data: as in `quantize`; with data it is the output's error that is made small, and Q is rounded as GPTQ does.
    where: as in `quantize`; only dense nn.Linear can be factorized.

    Raises what `quantize` does; the model is then unchanged.

        >>> model = factorize(nn.Linear(16, 12), "low_rank(2) + int4(group=16)")
        >>> [tuple(p.shape) for p in model.terms[1].parameters()]
        [(2, 16), (12, 2)]
    """
    require_module(model, "factorize")
    if method not in METHODS:
        raise UnknownNameError("method", str(method), METHODS)
    plan = assigned(weights_of(model, where), schemes_of(scheme, read_sum))

    def store(weight: Weight, wanted: Encoding, gram: Tensor | None) -> Factored:
        return _factored(weight, wanted, 1 if method == "svd" else None, gram)

    for weight, made in searched(model, plan, store, data, None):
        _install(weight, made)
    return model


def read_sum(given: str | Encoding) -> Encoding:
    """A scheme with the term of low rank first, the other in full."""
    encoding = encoding_of(given)
    low = [t for t in encoding.terms if t and t[0].name == "low_rank"]
    others = [t for t in encoding.terms if t not in low]
    ranks = [a for t in low for a in t[0].args]
    one = len(low) == 1 and len(low[0]) == 1 and len(ranks) == 1 and not low[0][0].options
    if not one or type(ranks[0]) is not int or ranks[0] < 1 or len(others) > 1:
        raise EncodingError(
            f"effcc.factorize takes low_rank(r), alone or with a scheme of values: low_rank(16) + int3; got {encoding}"
        )
    rest = [canonical(Encoding((t,))).terms[0] for t in others]
    if any(len(t) != 1 or declared(t[0].name).kind != "values" for t in rest):
        raise EncodingError(f"{encoding}: beside low_rank stands a scheme of values, such as int3(group=64)")
    return Encoding((low[0], *rest))


def _factored(weight: Weight, wanted: Encoding, rounds: int | None, gram: Tensor | None) -> Factored:
    if not all(type(m) is nn.Linear for m in weight.modules.values()):
        raise EncodingError(f"it is a {type(weight.module).__name__}; only dense nn.Linear can be factorized")
    dense = weight.dense()
    if not np.isfinite(np.asarray(dense, np.float32)).all():
        raise EncodingError(f"{wanted} stores finite numbers; the weight holds infinities or NaN")
    rank = int(wanted.terms[0][0].args[0])
    if rank >= min(dense.shape):
        raise EncodingError(f"{wanted}: the rank of a weight of shape {list(dense.shape)} is below {min(dense.shape)}")
    dtype = from_numpy(dense.dtype)
    made = storage(Encoding(wanted.terms[1:] or ((),)), dense.shape, dtype)
    problem = Problem(matrix_of(weight, dense), gram, made)
    stored, numbers = None, torch.zeros(())
    if len(wanted.terms) == 1:
        left, right = nearest_of_rank(problem.weight[0], None if gram is None else problem.damped()[0], rank)
    else:
        grid, rounded, left, right = alternate(problem, rank, nearest if gram is None else gptq, rounds)
        stored = Stored(made, grid.arrays(rounded[None]))
        numbers = torch.from_numpy(np.asarray(made.decode(stored.arrays), np.float32))
    kind = TORCH_DTYPES[dtype]
    left, right = left.to(kind), right.to(kind)
    error = relative_error(problem, (numbers + left.float() @ right.float()).numpy())
    return Factored(wanted, left, right, stored, error)


def _install(weight: Weight, made: Factored) -> None:
    """The terms in the weight's place; modules that shared it share them."""
    source = weight.source
    terms: list[nn.Module] = []
    if made.stored is not None:
        term: Any = nn.Linear(source.shape[1], source.shape[0], bias=False, device="meta")
        install(term, made.stored.storage, tensors_of(made.stored, source))
        terms.append(term)
    terms.append(LowRank(made.left.to(source.device), made.right.to(source.device)))
    for module in weight.modules.values():
        sum_up(module, str(made.encoding), terms, made.error)  # type: ignore[arg-type]

"""Which columns of a weight lie apart: those whose inputs are largest, where data show them.

What a row of activations loses to its bytes is in proportion to its largest element, so that a few input channels that
are large everywhere cost all others their accuracy (LLM.int8(), Dettmers et al., NeurIPS 2022).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from effcc.ir.encoding import Encoding
from effcc.ir.encodings import Storage, storage


def columns_given_most(made: Storage, gram: Tensor) -> Any:
    """The columns i32[1, c], ascending, that a sum's first term keeps, by their inputs' sum of squares; of equal ones
    the first. None where the first term is not `outliers`.

    gram: [1, K, K], of the inputs.
    """
    first, *_ = made.encoding.terms
    if first[0].name != "outliers":
        return None
    count = made.components[0].type.shape[1]
    order = torch.argsort(torch.diagonal(gram[0]), descending=True, stable=True)[:count]
    return order.sort().values.to(torch.int32)[None].numpy()


def encode_apart(made: Storage, dense: Any, columns: Any) -> list[Any]:
    """The components of a sum whose first term keeps these columns."""
    first, *others = made.encoding.terms
    kept = storage(Encoding((first,)), made.shape, made.dtype)
    values = kept.values.encode(kept.levels.at([columns]), kept.levels.compress(dense, [columns]))
    left = dense.astype(np.float32) - kept.decode([columns, *values]).astype(np.float32)
    rest = storage(Encoding(tuple(others)), made.shape, made.dtype)
    return [columns, *values, *rest.encode(left.astype(dense.dtype))]

"""A 0-d tensor's one element lies along dim 0 and dim -1, for every reduction and everything else that takes a dim."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.reports.test_numbers_are_converted_as_eager_does import assert_same

ALONG: Mapping[str, Callable[[Tensor, int], Any]] = {
    "sum": Tensor.sum, "mean": Tensor.mean, "prod": Tensor.prod, "amax": Tensor.amax, "argmax": Tensor.argmax,
    "argmin": Tensor.argmin, "max": lambda x, d: x.max(d).values, "min": lambda x, d: x.min(d).indices,
    "var": Tensor.var, "std": Tensor.std, "any": Tensor.any, "all": Tensor.all,
    "norm": lambda x, d: torch.linalg.vector_norm(x, dim=d),
    "logsumexp": Tensor.logsumexp, "cumsum": Tensor.cumsum, "cumprod": Tensor.cumprod, "softmax": Tensor.softmax,
    "log_softmax": Tensor.log_softmax, "sort": lambda x, d: x.sort(d).values, "topk": lambda x, d: x.topk(1, d).values,
    "median": lambda x, d: x.median(d).values, "flip": Tensor.flip, "unsqueeze": lambda x, d: x.unsqueeze(d) * 2,
    "squeeze": lambda x, d: x.squeeze(d) * 2, "normalize": lambda x, d: torch.nn.functional.normalize(x, dim=d),
    "index_select": lambda x, d: x.index_select(d, torch.tensor([0])),
}  # fmt: skip


@pytest.mark.parametrize("value", [2.5, torch.nan, torch.inf])
def test_every_function_along_the_one_element(value: float) -> None:
    def computed(x: Tensor) -> dict[str, Tensor]:
        return {f"{name} {dim}": f(x, dim) for name, f in ALONG.items() for dim in (0, -1)}

    assert_same(computed, torch.tensor(value))

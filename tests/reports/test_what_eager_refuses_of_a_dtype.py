"""Capture takes dtypes that eager's kernels refuse, or names another dtype for a result: eager has the last word."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.reports.outcomes import difference, outcome

TRUTHS = torch.tensor([True, False, True])
SHORTS = torch.arange(4, dtype=torch.int16) + 1

CALLS: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "bool - bool": (lambda b: b - True, TRUTHS),
    "1 - bool": (lambda b: 1 - b, TRUTHS),
    "u8 - bool": (lambda b: b.to(torch.uint8) - b, TRUTHS),
    "bool sub_": (lambda b: b.clone().sub_(True), TRUTHS),
    "bool ** True": (lambda b: b**True, TRUTHS),
    "bool ** False": (lambda b: (b**False) & b, TRUTHS),
    "bool ** 2": (lambda b: b**2, TRUTHS),
    "abs of bool": (lambda b: b.abs(), TRUTHS),
    "relu of bool": (F.relu, TRUTHS),
    "bool product": (lambda b: b[None] @ b[:, None], TRUTHS),
    "bool + bool": (lambda b: b + b, TRUTHS),
    "lerp of int16": (lambda a: torch.lerp(a, a, 0.5), SHORTS),
    "gelu of int16": (F.gelu, SHORTS),
    "silu of int16": (F.silu, SHORTS),
    "softmax of int16": (lambda a: a.softmax(0), SHORTS),
    "std of int16": (torch.std, SHORTS),
    "logaddexp of int16": (lambda a: torch.logaddexp(a, a), SHORTS),
    "int16 product": (lambda a: a[None] @ a[:, None], SHORTS),
    "a bound outside": (lambda a: torch.logit(a / 8.0, 1e300), SHORTS),
    "a bound inside": (lambda a: torch.logit(a / 8.0, 1e-3), SHORTS),
}


@pytest.mark.parametrize("name", CALLS)
def test_eager_has_the_last_word(name: str) -> None:
    function, x = CALLS[name]
    torch._dynamo.reset()
    assert not difference(outcome(torch.compile(function, backend="effcc"), x), outcome(function, x))

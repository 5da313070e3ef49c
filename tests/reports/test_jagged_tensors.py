"""Jagged nested tensors: their rows' lengths may be others at every call."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

LINEAR = nn.Linear(4, 6)


@pytest.mark.parametrize(
    "function",
    [lambda t: (t * 2).sin(), lambda t: F.gelu(LINEAR(t)), lambda t: t.softmax(-1), lambda t: F.layer_norm(t, (4,))],
)
def test_jagged_tensors(function: Callable[[Tensor], Tensor]) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(function, backend="effcc")
    for lengths in ((3, 5), (2, 7, 1), (4, 4, 4)):
        rows = [torch.randn(n, 4) for n in lengths]
        t = torch.nested.nested_tensor(rows, layout=torch.jagged)
        with torch.no_grad():
            found, expected = compiled(t), function(t)
        torch.testing.assert_close(found.values(), expected.values())
        assert torch.equal(found.offsets(), expected.offsets())

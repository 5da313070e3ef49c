"""`as_strided` counts from the begin of a storage, in which an input may begin elsewhere at the next call."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "from the tensor's own begin": lambda x: x.as_strided((2, 2), (2, 1)) * 2,
    "from the storage's begin": lambda x: x.as_strided((2, 2), (2, 1), 5) * 2,
    "of a view": lambda x: x[1:].as_strided((2,), (3,), 6) * 2,
    "written": lambda x: x.as_strided((2,), (1,), 6).add_(1) * 2,
    "written beside the input": lambda x: x.as_strided((2,), (1,), 0).add_(1) * 2,
    "the diagonal": lambda x: x.view(2, 5).fill_diagonal_(7),
    "scattered": lambda x: x.as_strided_scatter(torch.ones(2), (2,), (1,), 6),
}


@pytest.mark.filterwarnings("ignore:effcc. PyTorch runs a call because an input")
@pytest.mark.filterwarnings("ignore:effcc. PyTorch runs a graph that writes")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_inputs_that_begin_elsewhere(name: str) -> None:
    torch.compiler.reset()
    function = FUNCTIONS[name]
    compiled = torch.compile(function, backend="effcc", fullgraph=True)
    for begin in (2, 5, 0, 2):
        a, b = torch.arange(20.0), torch.arange(20.0)
        expected, found = function(a[begin : begin + 10]), compiled(b[begin : begin + 10])
        torch.testing.assert_close(found, expected, msg=f"begin {begin}")
        torch.testing.assert_close(b, a, msg=f"begin {begin}")

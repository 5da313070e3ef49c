"""Control flow with predicates of one element, and loops that count in Python, run as in eager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._higher_order_ops import while_loop


def branch_on(x: Tensor, *shape: int) -> Tensor:
    return torch.cond((x.sum() > 0).reshape(shape), lambda x: x + 1, lambda x: x * 2, (x,))


def count_in_python(x: Tensor) -> Any:
    return while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x * 2), (0, x))[1]


FUNCTIONS: dict[str, Callable[[Tensor], Any]] = {
    "one element": lambda x: branch_on(x, 1),
    "one element in two axes": lambda x: branch_on(x, 1, 1),
    "a Python number": count_in_python,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_predicate_of_one_element_decides(name: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(FUNCTIONS[name], backend="effcc", fullgraph=True)
    for x in (torch.ones(3), -torch.ones(3)):
        torch.testing.assert_close(compiled(x), FUNCTIONS[name](x))

"""Operators over lists of tensors come apart into one call for each, and steps of optimizers into one program."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from effcc.backend import programs_of
from effcc.frontend.foreach import foreach_decompositions

OF_TYPE: dict[str, Any] = {
    "List[Tensor]": lambda: [torch.rand(3, 3) + 0.5, torch.rand(3, 3) + 0.5],
    "List[number]": lambda: [0.5, 0.25],
    "number": lambda: 0.5,
    "Tensor": lambda: torch.tensor(0.5),
}


def test_each_rule_gives_what_eager_does() -> None:
    torch.manual_seed(0)
    rules = foreach_decompositions()
    assert len(rules) > 60
    for op, rule in rules.items():
        given = {a.name: OF_TYPE[str(a.type)]() for a in op._schema.arguments}
        by_name = {a.name for a in op._schema.arguments if a.kwarg_only}
        args = [v for name, v in given.items() if name not in by_name]
        kwargs = {name: given[name] for name in by_name}
        torch.testing.assert_close(rule(*args, **kwargs), list(op(*args, **kwargs)), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_compiled_step_is_one_program_that_follows_eager(kind: Any) -> None:
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}

    def parameters() -> list[nn.Parameter]:
        torch.manual_seed(0)
        made = [nn.Parameter(torch.randn(n, 5)) for n in (4, 7)]
        for p in made:
            p.grad = torch.randn_like(p)
        return made

    ours, theirs = parameters(), parameters()
    eager = kind(theirs, lr=0.1, foreach=True, **options)
    torch.compiler.reset()
    optimizer = kind(ours, lr=0.1, foreach=True, **options)
    step = torch.compile(optimizer.step, backend="effcc")
    for _ in range(3):
        step()
        eager.step()
    # Where it is compiled, PyTorch corrects the bias in float32: 1 - 0.999^t is off by up to 6e-5 of itself.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * 0.1)
    for compiled in programs_of(step):
        assert compiled.state.program is not None
        assert not compiled.state.program.externs

"""Gradients of convolutions, as near to float64's as eager's are."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from effcc.accuracy import check
from effcc.backend import programs_of
from effcc.ir.program import Extern

aten = torch.ops.aten


@pytest.mark.parametrize(
    ("taps", "stride", "padding", "dilation", "groups"),
    [
        ((1, 1), (2, 2), (0, 0), (1, 1), 1),
        ((1, 1), (3, 1), (0, 0), (1, 1), 2),
        ((1, 1), (2, 2), (1, 0), (1, 1), 1),
        ((3, 3), (2, 2), (1, 1), (1, 1), 1),
        ((3, 5), (2, 3), (1, 2), (1, 1), 1),
        ((1, 3), (3, 2), (0, 1), (1, 1), 1),
        ((3, 3), (2, 3), (0, 2), (2, 1), 2),
        ((2, 4), (3, 2), (1, 1), (1, 1), 4),
        ((3, 3), (1, 1), (1, 1), (1, 1), 4),
    ],
)
@pytest.mark.parametrize("transposed", [False, True])
def test_all_gradients_are_right(
    taps: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int], groups: int,
    transposed: bool,
) -> None:  # fmt: skip
    torch.manual_seed(0)
    x = torch.randn(2, 4, 9, 8)
    w = torch.randn(4 if transposed else 8, (8 if transposed else 4) // groups, *taps)
    known = (stride, padding, dilation, transposed, (0, 0), groups)
    grad = torch.randn_like(aten.convolution(x, w, None, *known))

    def gradients(grad: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = aten.convolution_backward(grad, x, w, [8], *known, [True, True, True])
        return found

    torch.compiler.reset()
    compiled = torch.compile(gradients, backend="effcc", dynamic=False)
    wide = gradients(grad.double(), x.double(), w.double())
    check(wide, gradients(grad, x, w), compiled(grad, x, w)).require("gradients")
    (program,) = (p.state.program for p in programs_of(compiled))
    assert program is not None and not any(isinstance(s, Extern) for s in program.steps)


def test_a_batch_of_run_time_size_is_summed_over() -> None:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=2),
        nn.Conv2d(8, 6, 1, stride=2),
    ]  # fmt: skip
    model = nn.Sequential(*layers)

    def gradients(run: Callable[..., Tensor], model: nn.Module, x: Tensor) -> list[Tensor | None]:
        model.zero_grad()
        run(x).square().mean().backward()
        return [p.grad for p in model.parameters()]

    torch.compiler.reset()
    own, wide, eager = copy.deepcopy(model), copy.deepcopy(model).double(), model
    compiled = torch.compile(own, backend="effcc")
    for batch in (4, 6, 3):
        torch._dynamo.mark_dynamic(x := torch.randn(batch, 3, 12, 12), 0)
        found = gradients(compiled, own, x)
        check(gradients(wide, wide, x.double()), gradients(eager, eager, x), found).require(f"batch {batch}")
    programs = [p.state.program for p in programs_of(compiled)]
    assert len(programs) == 2
    assert not any(isinstance(s, Extern) for p in programs if p is not None for s in p.steps)

"""Captured control flow gives what eager gives: bodies are compiled into the program, or Python drives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._higher_order_ops.map import map as map_
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.export import Dim

import effcc
from effcc.errors import UnsupportedError
from effcc.frontend.aten import import_graph
from effcc.frontend.capture import compile_apart
from effcc.ir.printer import print_graph

LARGE = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))


def g(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def choose(x: Tensor, y: Tensor) -> Any:
    def then(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x.sin() @ y, (LARGE + x.sum()).sum(0)  # a constant that is too large for a literal

    def orelse(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x.cos() @ y, y[0] * 2

    return torch.cond(x.sum() > 0, then, orelse, (x, y))


def repeat(x: Tensor) -> Any:
    return while_loop(lambda i, x: i < 5, lambda i, x: (i + 1, x * 2 + x.softmax(-1)), (torch.tensor(0), x))


def leak(x: Tensor, h: Tensor) -> Any:
    return scan(lambda h, x: (h * 0.5 + x, (h + x).tanh()), h, x, dim=0)


def leak_backwards(x: Tensor, h: Tensor) -> Any:
    return scan(lambda h, x: (h * 0.5 + x, (h + x).tanh()), h, x, dim=0, reverse=True)


def each(x: Tensor, y: Tensor) -> Any:
    return map_(lambda x, y: (x @ y).relu(), x, y)


def branch_in_a_loop(x: Tensor) -> Any:
    def body(i: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return i + 1, torch.cond(x.sum() > 0, lambda x: x - 1.0, lambda x: x * 1.5 + 3, (x,))

    return while_loop(lambda i, x: i < 4, body, (torch.tensor(0), x))


CASES: list[tuple[Callable[..., Any], tuple[Tensor, ...]]] = [
    (choose, (g(3, 3).abs(), g(3, 3))),
    (choose, (-g(3, 3).abs(), g(3, 3))),
    (repeat, (g(2, 3),)),
    (leak, (g(5, 3), g(3))),
    (leak_backwards, (g(5, 3), g(3))),
    (each, (g(4, 2, 3), g(3, 5))),
    (branch_in_a_loop, (g(2, 3),)),
]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(("function", "args"), CASES, ids=[f"{f.__name__}{n}" for n, (f, _) in enumerate(CASES)])
def test_control_flow_is_eagers(function: Callable[..., Any], args: tuple[Tensor, ...], dynamic: bool) -> None:
    torch.compiler.reset()
    with torch.no_grad():
        compiled: Any = torch.compile(function, backend="effcc", fullgraph=True, dynamic=dynamic)
        torch.testing.assert_close(compiled(*args), function(*args))
    assert not effcc.stats(compiled).externs, "one program, without a return to Python"


def test_gradients_pass_through_a_branch() -> None:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x, y: (x.sin() @ y) * x, lambda x, y: (x.cos() @ y).exp(), (x, y)).sum()

    for sign in (1, -1):
        x, y = (g(3, 3).abs() * sign).requires_grad_(), g(3, 3).requires_grad_()
        expected = torch.autograd.grad(loss(x, y), (x, y))
        got = torch.autograd.grad(torch.compile(loss, backend="effcc")(x, y), (x, y))
        torch.testing.assert_close(got, expected)


def test_gradients_pass_through_a_scan_whose_result_is_saved() -> None:
    def step(h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return (h * x).tanh(), h.sin()

    def scanned(h: Tensor, xs: Tensor) -> tuple[Tensor, Tensor]:
        return scan(step, h, xs, dim=0)

    def unrolled(h: Tensor, xs: Tensor) -> tuple[Tensor, Tensor]:
        found = []
        for x in xs:
            h, y = step(h, x)
            found.append(y)
        return h, torch.stack(found)

    torch.compiler.reset()
    given = g(3).requires_grad_(), g(4, 3).requires_grad_()
    expected = torch.autograd.grad([r.sum() for r in unrolled(*given)], given)
    got = torch.autograd.grad([r.sum() for r in torch.compile(scanned, backend="effcc")(*given)], given)
    torch.testing.assert_close(got, expected)


def test_a_branch_is_one_op_with_two_regions() -> None:
    texts: list[str] = []

    def keep(graph_module: Any, inputs: Any, signature: Any) -> Any:
        texts.append(print_graph(import_graph(graph_module, signature).graph))
        return graph_module

    with torch.no_grad():
        compile_apart(choose, keep)(*CASES[0][1])
    (line,) = (line for line in texts[0].splitlines() if "= cond " in line)
    assert len(line.split("= cond ")[1].split(" graph")[0].split(", ")) == 4, "condition, x, y and the constant"
    assert texts[0].count("graph @body_") == 2


class Sorting(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: x.sort()[0], lambda x: x - 1, (x,))


def test_a_body_that_needs_pytorch_is_driven_by_python() -> None:
    torch.compiler.reset()
    compiled: Any = torch.compile(Sorting(), backend="effcc", fullgraph=True)
    for x in (g(4).abs(), -g(4).abs()):
        torch.testing.assert_close(compiled(x), Sorting()(x))
    assert set(effcc.stats(compiled).externs) == {"cond"}
    assert "its body needs PyTorch for aten::sort" in str(effcc.explain(compiled, measure=False))


def test_a_package_says_what_a_body_needs_pytorch_for(tmp_path: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"cond: its body needs PyTorch for aten::sort.*\(at test_control.py"):
        effcc.export(Sorting(), (g(3),), tmp_path / "sorting.effcc")


class Uneven(torch.nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cond(y.any(), lambda x, y: x + y, lambda x, y: x.clone(), (x, y))


def test_branches_of_different_shapes_run_in_pytorch(tmp_path: Any) -> None:
    torch.compiler.reset()
    x, y = torch.ones(1, 1), torch.ones(4, 1, dtype=torch.bool)
    compiled = torch.compile(Uneven(), backend="effcc")
    for given in (y, ~y):
        torch.testing.assert_close(compiled(x, given), Uneven()(x, given))
    with pytest.raises(UnsupportedError, match=r"torch.cond whose branches give tensors of .*\(at test_control.py"):
        effcc.export(Uneven(), (x, y), tmp_path / "uneven.effcc")


class BySize(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.shape[0] > 4, lambda x: x.sin(), lambda x: x * 2, (x,))


def test_a_size_that_varies_may_decide(tmp_path: Any) -> None:
    torch.compiler.reset()
    path = effcc.export(BySize(), (g(6, 3),), tmp_path / "size.effcc", dynamic_shapes=({0: Dim.DYNAMIC},))
    package, compiled = effcc.load(path), torch.compile(BySize(), backend="effcc", dynamic=True)
    for rows in (2, 4, 5, 9):
        for run in (package, compiled):
            torch.testing.assert_close(run(g(rows, 3)), BySize()(g(rows, 3)))
    assert not effcc.stats(compiled).externs

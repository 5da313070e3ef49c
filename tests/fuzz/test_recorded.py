"""Programs recorded as they run in eager: the graph of what `make_fx` would trace, without writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from effcc.frontend.importer import Importer
from effcc.fuzz.programs.calling import Raised, Seen
from effcc.fuzz.programs.case import Case, Input
from effcc.fuzz.programs.judge import PYTORCH, Failure, judge
from effcc.fuzz.programs.recorded import Unrecorded, record
from effcc.fuzz.programs.traced import Traced
from effcc.ir.dtypes import i64
from effcc.ir.graph import Value


def test_operators_are_recorded_taken_apart_and_with_what_they_give() -> None:
    def run(x: Tensor, y: Tensor) -> Sequence[Tensor]:
        return [torch.nn.functional.linear(x, y).mT, x.sum(0)]

    x, y = torch.randn(3, 4), torch.randn(5, 4)
    module = record(run, [x, y])
    for got, want in zip(module(x, y), run(x, y), strict=True):
        assert torch.equal(got, want)
    results = module.graph.output_node().args[0]
    assert [tuple(r.meta["val"].shape) for r in results] == [(5, 3), (4,)]  # type: ignore[union-attr]
    assert results[0].meta["val"].stride() == (1, 5)  # type: ignore[union-attr, index]
    assert len(module.graph.find_nodes(op="placeholder")) == 2


def test_writes_are_recorded_as_what_writes_nothing() -> None:
    def run(x: Tensor) -> Sequence[Tensor]:
        held = x.clone()
        held[1:].mul_(2)
        return [held]

    x = torch.arange(4.0)
    module = record(run, [x])
    assert module(x)[0].tolist() == [0.0, 2.0, 4.0, 6.0] and x.tolist() == [0.0, 1.0, 2.0, 3.0]
    called = [n.target for n in module.graph.nodes if n.op == "call_function"]
    assert not any(t._schema.is_mutable for t in called if isinstance(t, torch._ops.OpOverload))


def test_gradients_are_recorded_and_numbers_of_elements_are_not() -> None:
    def gradient(x: Tensor) -> Sequence[Tensor]:
        x = x.detach().requires_grad_()
        return list(torch.autograd.grad((x * x * x).sum(), [x]))

    module = record(gradient, [torch.tensor([1.0, 2.0])])
    assert module(torch.tensor([3.0, 1.0]))[0].tolist() == [27.0, 3.0]
    with pytest.raises(Unrecorded):
        record(lambda x: [x * x[0].item()], [torch.ones(2)])


def test_running_statistics_are_recorded() -> None:
    def run(x: Tensor, mean: Tensor, variance: Tensor) -> Sequence[Tensor]:
        mean, variance = mean.clone(), variance.clone()
        return [torch.nn.functional.batch_norm(x, mean, variance, training=True, momentum=0.3), mean, variance]

    given = [torch.tensor([[1.0], [3.0]]), torch.zeros(1), torch.ones(1)]
    normed, mean, variance = record(run, given)(*given)
    assert torch.allclose(mean, torch.tensor([0.6])) and torch.allclose(variance, torch.tensor([0.7 + 0.3 * 2]))
    assert torch.allclose(normed, torch.tensor([[-1.0], [1.0]]), atol=1e-4) and given[1].item() == 0


def test_a_wrong_importer_shows_beside_what_is_excused(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own trace gives other bits of one result; that excuses no other result."""
    inputs = (Input("x", 'tensor((3, 4), torch.float32, "normal", 1)'),)
    lines = ("a = x.cumsum(1)", "b = x.neg()")
    case = Case(0, inputs, (), lines, ("b", "a"), ((),), False, "no_grad", way="recorded")
    assert judge(case) == ""
    emit, in_eager = Importer.emit, Traced.traced_in_eager

    def turned(self: Importer, op: str, *operands: Value, **attrs: Any) -> Value:
        attrs |= {"axis": 0} if op == "cumsum" else {}
        return emit(self, "abs" if op == "neg" else op, *operands, **attrs)

    def otherwise(self: Traced) -> list[Seen | Raised]:
        first, *others = in_eager(self)
        assert isinstance(first, Seen)
        return [replace(first, value=first.value.abs()), *others]

    monkeypatch.setattr(Importer, "emit", turned)
    monkeypatch.setattr(Traced, "traced_in_eager", otherwise)
    found = judge(case)
    assert isinstance(found, Failure) and "result 1" in found.message
    assert judge(replace(case, lines=lines[1:], results=("b",))) == PYTORCH


@pytest.mark.parametrize("way", ["recorded", "compiled"])
def test_what_eager_refuses_of_an_index_must_be_refused(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = (Input("x", 'indices((3,), 5, "any", 1)'), Input("y", 'tensor((5,), torch.float32, "normal", 1)'))
    case = Case(0, inputs, (), ("a = y[x]",), ("a",), ((),), False, "no_grad", way=way)
    assert judge(case) == ""
    emit = Importer.emit

    def inside(self: Importer, op: str, *operands: Value, **attrs: Any) -> Value:
        if len(operands) == 2 and operands[1].type.dtype == i64:
            most = emit(self, "full", shape=(), value=4, dtype=i64)
            operands = operands[0], emit(self, "minimum", operands[1], most)
        return emit(self, op, *operands, **attrs)

    unread = replace(case, lines=('a = F.embedding_bag(x.view(1, 3), y.view(5, 1), mode="max")', "a.fill_(0)"))
    assert judge(unread) == ""
    empty = replace(case, lines=("a = y[x][3:]",))  # nothing is read for what has no elements
    assert judge(empty) == ""
    monkeypatch.setattr(Importer, "emit", inside)
    found = judge(case)
    assert isinstance(found, Failure) and found.kind == "accepts" and "with an index outside" in found.message

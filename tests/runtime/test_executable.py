"""Calls take and give what eager does: odd strides, empty sizes, inputs that are written, results that repeat."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import effcc
from effcc.driver import Compiled, compile_graph
from effcc.errors import InputError
from effcc.ir.dims import symbol
from effcc.ir.dtypes import f32
from effcc.ir.graph import GraphBuilder
from effcc.ir.types import tensor


def add() -> Compiled:
    """x + y, both f32[3,4]."""
    b = GraphBuilder("add")
    x, y = b.param("x", tensor(f32, 3, 4)), b.param("y", tensor(f32, 3, 4))
    return compile_graph(b.build((b.emit("add", x, y),)))


def add_columns() -> Compiled:
    """x + y[:, None], f32[s0,4] and f32[s0], with s0 in 1..8."""
    b, s0 = GraphBuilder("add_columns"), symbol("s0")
    b.ranges = {"s0": (1, 8)}
    x, y = b.param("x", tensor(f32, s0, 4)), b.param("y", tensor(f32, s0))
    column = b.emit("reshape", y, shape=(s0, 1))
    return compile_graph(b.build((b.emit("add", x, b.emit("broadcast", column, shape=(s0, 4))),)))


def double_in_place() -> Compiled:
    """x + x, which x becomes as well."""
    b = GraphBuilder("double")
    x = b.param("x", tensor(f32, 3, 4))
    y = b.emit("add", x, x)
    return compile_graph(b.build((y,), ((x, y),)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (torch.zeros(3, 4), torch.zeros(3, 4).double()),
            "input 1 (y): expected f32[3,4] on the CPU, got float64[",
        ),
        ((torch.zeros(3, 4), torch.zeros(12)), "input 1 (y): expected f32[3,4] on the CPU, got float32[12]"),
        ((torch.zeros(3, 5), torch.zeros(3, 4)), "input 0 (x): expected f32[3,4] on the CPU, got float32[3, 5]"),
        ((torch.zeros(3, 4), 1.0), "input 1 (y): expected f32[3,4] on the CPU, got float"),
        ((torch.zeros(3, 4),), "expected 2 inputs, got 1"),
        ((torch.zeros(3, 4), torch.zeros(3, 4, device="meta")), "on meta"),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_expected_and_what_came(arguments: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        add()(*arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(9, 4), torch.zeros(9)), "s0 is in 1..8"),
        ((torch.zeros(3, 4), torch.zeros(4)), "input 1 (y): expected f32[s0] on the CPU, got float32[4]"),
        ((torch.zeros(4), torch.zeros(4)), "input 0 (x): expected f32[s0,4] on the CPU, got float32[4]"),
    ],
)
def test_a_wrong_size_at_run_time_is_named(arguments: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        add_columns()(*arguments)
    assert message in str(caught.value)


def test_sizes_are_read_at_every_call() -> None:
    run = add_columns()
    for n in (1, 8, 3, 8):
        x, y = torch.randn(n, 4), torch.randn(n)
        torch.testing.assert_close(run(x, y)[0], x + y[:, None])


@pytest.mark.parametrize("make", [lambda: torch.randn(4, 3).t(), lambda: torch.randn(6, 8)[::2, ::2],
                                  lambda: torch.randn(4).expand(3, 4), lambda: torch.randn(3, 4)])  # fmt: skip
def test_inputs_of_other_strides_are_read_as_they_are(make: Any) -> None:
    x, y = make(), torch.randn(3, 4)
    torch.testing.assert_close(add()(x, y)[0], x + y)


def check_eager(function: Any, *arguments: Any, **options: Any) -> None:
    """The compiled function gives eager's results, strides included, and writes what eager writes."""
    theirs = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
    ours = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
    with torch.no_grad():
        expected = function(*theirs)
        actual = torch.compile(function, backend="effcc", **options)(*ours)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(ours, theirs)
    for a, e in zip(*[v if isinstance(v, tuple) else (v,) for v in (actual, expected)], strict=True):
        assert not isinstance(e, Tensor) or a.stride() == e.stride()


def test_results_that_repeat_or_are_inputs() -> None:
    check_eager(lambda x: (x, x + 1, x + 1, x), torch.randn(3, 4))


def test_a_copy_of_an_input_is_a_tensor_of_its_own() -> None:
    def copies(x: Tensor) -> tuple[Tensor, ...]:
        return x.clone(), torch.cat([x[:0], x]), x.t().clone(memory_format=torch.contiguous_format), x.clone()

    check_eager(copies, torch.randn(3, 4))
    x = torch.zeros(3, 4)
    with torch.no_grad():
        for copy in torch.compile(copies, backend="effcc")(x):
            copy.add_(1.0)
    assert torch.equal(x, torch.zeros(3, 4))


def test_a_copy_of_an_input_from_before_it_is_written() -> None:
    def update(x: Tensor) -> Tensor:
        old = x.clone()
        x.add_(1.0)
        return old

    check_eager(update, torch.zeros(4))


def test_equal_results_do_not_share_memory() -> None:
    with torch.no_grad():
        a, b = torch.compile(lambda x: (x + 1, x + 1), backend="effcc")(torch.zeros(4))
        a.add_(5.0)
    assert torch.equal(b, torch.ones(4))


def test_results_that_are_views_and_permutations() -> None:
    check_eager(lambda x: ((x + 1).t(), (x * 2).view(2, 6), x.t() - 1), torch.randn(3, 4))


def test_empty_inputs() -> None:
    check_eager(lambda x: (x * 2, x.sum(0)), torch.randn(0, 5))


def test_inputs_that_are_written() -> None:
    def update(cache: Tensor, row: Tensor, position: Tensor) -> Tensor:
        cache.index_copy_(0, position, row)
        return cache.sum(1)

    check_eager(update, torch.zeros(5, 4), torch.randn(1, 4), torch.tensor([3]))


def test_inputs_that_are_written_keep_their_strides() -> None:
    def update(x: Tensor) -> Tensor:
        x.mul_(2.0)
        return x + 1

    base = torch.randn(6, 8)
    wanted = base.clone()
    with torch.no_grad():
        update(wanted.t()[::2])
        torch.compile(update, backend="effcc")(base.t()[::2])
    torch.testing.assert_close(base, wanted)


def test_a_written_input_of_other_strides_is_written_in_place() -> None:
    run = double_in_place()
    x = torch.randn(4, 3).t()
    before = x.clone()
    (y,) = run(x)
    torch.testing.assert_close(x, 2 * before)
    torch.testing.assert_close(y, 2 * before)


def test_inputs_that_trade_places() -> None:
    def swap(x: Tensor, y: Tensor) -> Tensor:
        old = x.clone()
        x.copy_(y)
        y.copy_(old)
        return x + 1

    check_eager(swap, torch.zeros(3), torch.ones(3))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_grad_and_inference_mode(mode: Any) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Softmax(-1)).eval()
    x = torch.randn(2, 8)
    with mode():
        compiled = torch.compile(model, backend="effcc")
        y = compiled(x)
        torch.testing.assert_close(y, model(x))
        assert y.is_inference() == (mode is torch.inference_mode)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))


def test_a_call_to_pytorch_between_kernels() -> None:
    check_eager(lambda x: (torch.sort(x * 2, dim=1).values + 1).sum(1), torch.randn(4, 9))


def test_dynamic_sizes_compile_once() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)).eval()
    compiled = torch.compile(model, backend="effcc", dynamic=True)
    with torch.no_grad():
        for n in (2, 5, 33):
            x = torch.randn(n, 8)
            torch.testing.assert_close(compiled(x), model(x))
    assert effcc.stats(compiled).programs == 1


def test_statistics_tell_memory_kernels_and_calls_to_pytorch() -> None:
    def mixed(x: Tensor) -> Tensor:
        return torch.softmax(torch.sort(x @ x.t(), dim=1).values, -1)

    compiled = effcc.compile(mixed)
    with torch.no_grad():
        compiled(torch.randn(6, 6))
    found = effcc.stats(compiled)
    assert found.programs == 1
    assert found.kernels >= 2
    assert {name.partition(".")[0]: count for name, count in found.externs.items()} == {"aten::sort": 1}
    assert found.arena_bytes >= found.live_bytes > 0
    assert {"simplify", "fuse", "emit", "build"} <= set(found.seconds)


def test_statistics_of_what_effcc_did_not_compile_are_refused() -> None:
    with pytest.raises(InputError, match="effcc has compiled nothing"):
        effcc.stats(nn.Linear(2, 2))

"""Inputs that share memory with one that is written give eager's results, from the first call on or a later one."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from effcc.frontend.overlaps import Lookout, meeting

Inputs = tuple[Tensor, Tensor]


def apart() -> Inputs:
    return torch.randn(4, 4), torch.randn(4, 4)


def views_apart() -> Inputs:
    return torch.randn(5, 4)[:4], torch.randn(5, 4)[1:]


def the_same() -> Inputs:
    x = torch.randn(4, 4)
    return x, x


def overlapping_views() -> Inputs:
    x = torch.randn(5, 4)
    return x[:4], x[1:]


def the_same_data() -> Inputs:
    x = torch.randn(4, 4)
    return x, x.data


def arrays() -> Inputs:
    x = torch.randn(4, 4)
    return x, torch.from_numpy(x.numpy())


def columns() -> Inputs:
    x = torch.randn(4, 8)
    return x[:, ::2], x[:, 1::2]


def halves_of_rows() -> Inputs:
    x = torch.randn(4, 8)
    return x[:, :4], x[:, 4:]


def rows_of_unlike_lengths() -> Inputs:
    x = torch.randn(6, 8)
    return x[:4, :4], x[1:5, 1:5]


def complex_and_real() -> Inputs:
    x = torch.randn(32, dtype=torch.complex64)[16:].view(4, 4)
    return x, torch.view_as_real(x)[..., 0]


ORDERS = (
    (apart, the_same), (views_apart, overlapping_views, views_apart), (apart, the_same_data), (apart, arrays),
    (overlapping_views, views_apart), (columns, columns), (halves_of_rows, overlapping_views),
    (apart, rows_of_unlike_lengths), (rows_of_unlike_lengths, apart), (complex_and_real, apart),
)  # fmt: skip


def update_both(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    x.add_(1)
    y.mul_(2)
    return y[0], x * 3


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_updates_reach_every_input_that_shares_the_memory(order: tuple[Callable[[], Inputs]], dynamic: bool) -> None:
    torch.compiler.reset()
    compiled = torch.compile(update_both, backend="effcc", fullgraph=True, dynamic=dynamic)
    for seed, make in enumerate(order):
        states: list[Any] = []
        for function in (update_both, compiled):
            torch.manual_seed(seed)
            given = make()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                states.append((*function(*given), *given))
        torch.testing.assert_close(states[1], states[0])


def test_what_a_graph_of_run_time_sizes_writes_is_seen_though_its_kernels_know_only_numbers() -> None:
    """`addcmul_` broadcasts by a kernel that takes no symbols."""

    def update(x: Tensor, y: Tensor, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return (x + 1).addcmul_(y, z), v.mul_(2)

    def inputs() -> tuple[Tensor, ...]:
        z = torch.arange(6.0)
        return torch.ones(6, 6), torch.ones(1), z, z[-1:]

    torch._dynamo.reset()
    compiled: Any = torch.compile(update, backend="effcc", dynamic=True)
    with pytest.warns(UserWarning, match="memory in common"):
        got = compiled(*inputs())
    assert all(torch.equal(a, b) for a, b in zip(got, update(*inputs()), strict=True))


def test_a_warning_names_the_inputs() -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda x, y: x.add_(1) + y, backend="effcc", fullgraph=True)
    compiled(*apart())
    with pytest.warns(UserWarning, match=r"writes L\['x'\], because L\['y'\] has memory in common"):
        compiled(*the_same_data())


def test_inputs_that_only_interleave_or_are_only_read_stay_compiled() -> None:
    x = torch.randn(4, 8)
    assert meeting([x[:, ::2], x[:, 1::2]], [0, 1]) is None
    assert meeting([x[:, :4], x[:, 4:]], [0, 1]) is None
    assert meeting([x[:2], x[2:]], [0]) is None
    assert meeting([x, x[1:], torch.randn(3)], [2]) is None
    assert meeting([torch.randn(3), x, x[1:]], [2]) == (2, 1)
    assert meeting([x[:, :3], x[:, 2:5]], [0]) == (0, 1)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_views_meet_where_a_byte_is_both_ones(data: st.DataObject) -> None:
    memory = torch.zeros(64, dtype=torch.uint8)

    def view() -> tuple[Tensor, set[int]]:
        dtype = data.draw(st.sampled_from([torch.uint8, torch.float16, torch.float32, torch.complex64]))
        shape = data.draw(st.lists(st.integers(1, 4), max_size=3))
        steps = [data.draw(st.integers(0, 5)) for _ in shape]
        last, width = sum((n - 1) * s for n, s in zip(shape, steps, strict=True)), dtype.itemsize
        if (last + 1) * width > 64:
            shape, steps, last = [], [], 0
        begin = data.draw(st.integers(0, 64 // width - last - 1))
        offsets = torch.arange(64 // width).as_strided(shape, steps, begin)
        taken = {int(k) * width + byte for k in offsets.flatten() for byte in range(width)}
        return memory.view(dtype).as_strided(shape, steps, begin), taken

    (a, ours), (b, theirs) = view(), view()
    assert (meeting([a, b], [0]) is not None) == bool(ours & theirs)


@pytest.mark.parametrize("moved", [1, 2, 24])
def test_inputs_that_move_from_call_to_call_are_compared_with_those_that_stay(moved: int) -> None:
    """Two of 24 inputs are written; some begin elsewhere in one memory at each call, now and then in another's."""
    places, memory = random.Random(moved), torch.zeros(600)
    inputs, written = [memory[24 * k : 24 * k + 6] for k in range(24)], [3, 17]
    found = set()
    look = Lookout(written, varying=[5])
    for _ in range(300):
        before = list(inputs)
        for k in places.sample(range(24), moved):
            begin = places.randrange(0, 594) if moved < 24 else 24 * k + places.randrange(22)
            inputs[k] = memory[begin : begin + (places.randrange(7) if k == 5 else 6)]
        shared = meeting(inputs, written)
        seen = look.meeting(inputs)
        assert (seen is None) == (shared is None)
        if seen is not None:
            assert seen[0] in written
            assert meeting([inputs[k] for k in seen], [0]) == (0, 1)
            inputs = before
        found.add(seen is None)
    assert found == {True, False}


def test_a_model_that_writes_its_buffers_is_compiled_when_it_reads_views_of_one_another() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(3))

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            self.count += 1
            return x + y.sum(0)

    torch.compiler.reset()
    model, x = Model(), torch.randn(5, 3)
    compiled = torch.compile(model, backend="effcc", fullgraph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(compiled(x[0], x), x[0] + x.sum(0))
    assert model.count.tolist() == [1, 1, 1]

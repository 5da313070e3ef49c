"""What is computed from weights is computed again when they change, however they change."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import effcc
from effcc.runtime.weights import look


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Linear(40, 8))


def steps_of(make: Callable[..., torch.optim.Optimizer], model: nn.Module, x: Tensor) -> None:
    """One step of an optimizer on the eager model."""
    optimizer = make(model.parameters())
    model(x).square().sum().backward()
    optimizer.step()


def load_other_state(model: nn.Module, x: Tensor) -> None:
    model.load_state_dict({n: t + 0.5 for n, t in model.state_dict().items()})


def assign_other_state(model: nn.Module, x: Tensor) -> None:
    model.load_state_dict({n: t + 0.5 for n, t in model.state_dict().items()}, assign=True)


def write_data(model: nn.Module, x: Tensor) -> None:
    model[0].weight.data.mul_(-1.5)  # type: ignore[index, union-attr]


def swap_data(model: nn.Module, x: Tensor) -> None:
    model[2].weight.data = torch.randn(8, 40)  # type: ignore[index, union-attr]


def write_one_element(model: nn.Module, x: Tensor) -> None:
    model[0].weight.data[17, 11] += 3.0  # type: ignore[index, union-attr]
    effcc.invalidate(model)


CHANGES: dict[str, Callable[[nn.Module, Tensor], None]] = {
    "sgd": lambda m, x: steps_of(lambda p: torch.optim.SGD(p, lr=0.1), m, x),
    "fused sgd": lambda m, x: steps_of(lambda p: torch.optim.SGD(p, lr=0.1, fused=True), m, x),
    "adam": lambda m, x: steps_of(lambda p: torch.optim.Adam(p, lr=0.1), m, x),
    "fused adam": lambda m, x: steps_of(lambda p: torch.optim.Adam(p, lr=0.1, fused=True), m, x),
    "load_state_dict": load_other_state,
    "load_state_dict, assigned": assign_other_state,
    "a write through .data": write_data,
    "another tensor as .data": swap_data,
    "one element through .data, and invalidate": write_one_element,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_weights_between_two_calls_is_seen(change: str) -> None:
    model, x = small_model(), torch.randn(3, 24)
    compiled = torch.compile(model, backend="effcc")
    with torch.no_grad():
        before = compiled(x)
        torch.testing.assert_close(before, model(x))
        torch.testing.assert_close(compiled(x), before)
    CHANGES[change](model, x)
    with torch.no_grad():
        after = compiled(x)
        assert (after - before).abs().max() > 1e-3
        torch.testing.assert_close(after, model(x))


def test_training_through_the_compiled_model_follows_eager() -> None:
    ours, eager = small_model(), small_model()
    compiled = torch.compile(ours, backend="effcc")
    batches = torch.randn(4, 3, 24)
    losses: dict[str, list[Tensor]] = {"ours": [], "eager": []}
    for name, model, run in (("ours", ours, compiled), ("eager", eager, eager)):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05, fused=True)
        for x in batches:
            optimizer.zero_grad()
            loss = run(x).square().mean()
            loss.backward()
            optimizer.step()
            losses[name].append(loss.detach())
    torch.testing.assert_close(losses["ours"], losses["eager"])


def test_weights_in_inference_mode_are_seen_by_address_and_sample() -> None:
    with torch.inference_mode():
        model, x = small_model(), torch.randn(3, 24)
        compiled = torch.compile(model, backend="effcc")
        torch.testing.assert_close(compiled(x), model(x))
        for p in model.parameters():
            p.mul_(1.25)
        torch.testing.assert_close(compiled(x), model(x))


def test_a_running_statistic_that_changes_is_seen() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval()
    x = torch.randn(2, 3, 6, 6)
    compiled = torch.compile(model, backend="effcc")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))
        model.train()(x + 3.0)
        model.eval()
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)


def test_two_threads_call_one_model() -> None:
    model = small_model()
    compiled = torch.compile(model, backend="effcc")
    inputs = [torch.randn(3, 24) for _ in range(2)]
    with torch.no_grad():
        expected = [model(x) for x in inputs]
        compiled(inputs[0])
    wrong: list[Any] = []

    def call(x: Tensor, y: Tensor) -> None:
        with torch.no_grad():
            for _ in range(200):
                if not torch.allclose(compiled(x), y, atol=1e-5):
                    wrong.append(x)

    threads = [threading.Thread(target=call, args=pair) for pair in zip(inputs, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_models_of_one_class_keep_what_was_prepared_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    from effcc.runtime import executable

    looks: list[int] = []
    original = executable.look
    monkeypatch.setattr(executable, "look", lambda *seen: looks.append(1) or original(*seen))
    models, x = [small_model(), copy.deepcopy(small_model())], torch.randn(3, 24)
    with torch.no_grad():
        models[1][0].weight.mul_(2.0)  # type: ignore[index, operator, union-attr]
        compiled = [torch.compile(m, backend="effcc") for m in models]
        for _ in range(3):
            for run, model in zip(compiled, models, strict=True):
                torch.testing.assert_close(run(x), model(x))
    assert len(looks) == 2


def test_what_was_prepared_goes_with_its_weights() -> None:
    model, x = small_model(), torch.randn(3, 24)
    compiled = torch.compile(model, backend="effcc")
    with torch.no_grad():
        compiled(x)
        once = effcc.stats(compiled).prepared_bytes
        for _ in range(3):
            assign_other_state(model, x)
            compiled(x)
    assert 0 < effcc.stats(compiled).prepared_bytes <= 2 * once


def test_a_copy_of_a_model_has_weights_of_its_own() -> None:
    model, x = small_model(), torch.randn(3, 24)
    compiled = torch.compile(model, backend="effcc")
    with torch.no_grad():
        compiled(x)
        other = copy.deepcopy(model)
        other[0].weight.mul_(2.0)  # type: ignore[index, operator, union-attr]
        torch.testing.assert_close(torch.compile(other, backend="effcc")(x), other(x))
        torch.testing.assert_close(compiled(x), model(x))


class _Negated(nn.Module):
    """Reads a buffer that is the imaginary part of a conjugate: PyTorch negates its elements when it reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(24, 24)
        self.register_buffer("shift", torch.randn(24, dtype=torch.complex64).conj().imag)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.shift


def test_a_lazily_negated_buffer_is_read_negated_by_later_calls_too() -> None:
    model, x = _Negated().eval(), torch.randn(3, 24)
    compiled = torch.compile(model, backend="effcc")
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(compiled(x), model(x))


def test_version_counters_count_where_a_device_may_write(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.ones(8)
    without = look([weight], [weight.data_ptr()], [0])
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    beside = look([weight], [weight.data_ptr()], [0])
    weight.mul_(1)
    assert without.holds([weight], [weight.data_ptr()])
    assert not beside.holds([weight], [weight.data_ptr()])

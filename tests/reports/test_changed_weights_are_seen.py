"""Whoever writes a weight, wherever and however: the next call computes with what is there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from effcc.runtime.executable import Executable
from effcc.runtime.watch import METHODS
from effcc.runtime.written import why_not
from tests.reports.weight_changes import CHANGES, WRITES, bits, first

SHAPES = {"even": (128, 256), "odd": (1031, 37)}
HALF_WRITES = [name for name in WRITES if name.startswith(("data", "storage, a byte", "foreach", "no_grad"))]


class Subject:
    """A model, compiled once, whose weights are new for each test."""

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype) -> None:
        torch._dynamo.reset()  # what earlier tests compiled of `Sequential` counts against the limit of programs of it
        torch.manual_seed(0)
        narrow, wide = shape
        layers = (nn.Linear(narrow, wide), nn.BatchNorm1d(wide), nn.GELU(), nn.Linear(wide, 64))
        self.model = nn.Sequential(*layers).eval().to(dtype)
        self.model.get_submodule("1").running_mean = torch.randn(wide).to(dtype)
        self.state = copy.deepcopy(self.model.state_dict())
        self.compiled = torch.compile(self.model, backend="effcc", options={"threads": 1})
        self.x = torch.randn(3, narrow).to(dtype)

    def begin(self, method: str) -> None:
        """Fresh weights, seen often enough that they count as settled, and watched as they should be."""
        self.model.load_state_dict(copy.deepcopy(self.state), assign=True)
        for _ in range(5):
            self.agrees()
        assert self.prepared().seen.watch.tracks == (method == "pages")

    def agrees(self) -> Tensor:
        """What both give, if they agree."""
        ours, eager = self.compiled(self.x), self.model(self.x)
        loose = self.x.dtype != torch.float32
        torch.testing.assert_close(ours, eager, rtol=2e-2 if loose else 1e-4, atol=2e-2 if loose else 1e-4)
        return eager.clone()

    def prepared(self) -> Any:
        """What was computed from weights and used by a call now."""
        used: list[Any] = []
        with pytest.MonkeyPatch.context() as patch:
            original = Executable._prepare
            patch.setattr(Executable, "_prepare", lambda *given: used.append(original(*given)) or used[-1])
            self.compiled(self.x)
        return used[0][0]


@pytest.fixture(scope="module", params=["even", pytest.param("odd", marks=pytest.mark.slow)])
def subject(request: pytest.FixtureRequest) -> Subject:
    return Subject(SHAPES[request.param], torch.float32)


@pytest.fixture(scope="module")
def half_subject() -> Subject:
    return Subject(SHAPES["even"], torch.bfloat16)


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each way to watch in turn; gradients are off, and one thread is quicker than two that wait for each other."""
    if request.param == "pages" and why_not():
        pytest.skip(why_not())
    monkeypatch.setenv("EFFCC_WATCH", request.param)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield request.param
    torch.set_num_threads(threads)


def check(subject: Subject, method: str, change: Callable[[], Any], prepares: bool = True) -> None:
    """The call after a change agrees with eager. prepares: something is computed from what changed, and is anew."""
    subject.begin(method)
    before, made = subject.agrees(), subject.prepared()
    change()
    after = subject.agrees()
    assert not torch.allclose(before, after, rtol=1e-3) if not prepares else not torch.equal(before, after)
    assert (subject.prepared() is not made) == prepares


@pytest.mark.parametrize("name", WRITES)
def test_a_write_to_a_weight_is_seen(subject: Subject, method: str, name: str) -> None:
    check(subject, method, lambda: WRITES[name](first(subject.model).weight))


@pytest.mark.slow
@pytest.mark.parametrize("name", HALF_WRITES)
def test_a_write_to_a_weight_of_a_half_type_is_seen(half_subject: Subject, method: str, name: str) -> None:
    check(half_subject, method, lambda: WRITES[name](first(half_subject.model).weight))


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_a_model_is_seen(subject: Subject, method: str, name: str) -> None:
    # A bias is read as it is.
    check(subject, method, lambda: CHANGES[name](subject.model), prepares=not name.startswith("bias"))


@pytest.mark.parametrize("seed", range(20))
def test_one_flipped_bit_is_seen(subject: Subject, method: str, seed: int) -> None:
    subject.begin(method)
    made = subject.prepared()
    weight, draw = first(subject.model).weight, torch.Generator().manual_seed(seed)
    at = torch.randint(weight.numel(), (1,), generator=draw)
    bit = int(torch.randint(23, (1,), generator=draw))
    bits(weight).view(-1)[at] ^= 1 << bit
    subject.agrees()
    assert subject.prepared() is not made


@pytest.mark.parametrize("change", ["pruned", "clipped"])
def test_changes_of_a_few_elements_are_seen_for_every_seed(subject: Subject, method: str, change: str) -> None:
    subject.begin(method)
    weight = first(subject.model).weight
    for seed in range(40):
        torch.nn.init.normal_(weight.data, generator=torch.Generator().manual_seed(seed))
        subject.agrees()
        made = subject.prepared()
        size = weight.data.abs()
        if change == "pruned":
            weight.data[size < size.quantile(0.05)] = 0
        else:
            weight.data.clamp_(-size.quantile(0.999), size.quantile(0.999))
        subject.agrees()
        assert subject.prepared() is not made, f"seed {seed}"

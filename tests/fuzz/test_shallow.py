"""What is checked without compiling: encoders, importers by traces, processes that are forked; and calls once more."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch

from effcc.errors import InputError
from effcc.frontend import importer
from effcc.frontend.importer import Importer, aten
from effcc.fuzz import encoders
from effcc.fuzz.nursery import Nurseling
from effcc.fuzz.programs.case import Case, Input
from effcc.fuzz.programs.judge import Failure, judge
from effcc.fuzz.recalled import arrays_laid_otherwise, laid_otherwise, require_same, wrong_calls
from effcc.ir.dtypes import f32
from effcc.ir.encodings.values.coded import Coded
from effcc.ir.graph import Value
from effcc.ir.types import TensorType
from effcc.runtime.worker import LostError, answer_requests


def test_right_encoders_pass() -> None:
    assert [f for f in map(encoders.check, range(15)) if f is not None] == []


def test_an_encoder_that_shares_the_wrong_scale_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Coded.decode

    def wrong(self: Any, levels: Any, arrays: Any, dtype: Any) -> Any:
        found = original(self, levels, arrays, dtype)
        return (found * 1.25).astype(found.dtype)

    monkeypatch.setattr(Coded, "decode", wrong)
    assert any(encoders.check(seed) is not None for seed in range(40))


TRACED = Case(
    seed=1,
    inputs=(Input("x", 'tensor((n, 3), torch.float32, "normal", 1)'),),
    state=(("p0", 'nn.Parameter(tensor((3,), torch.float32, "normal", 2))'),),
    lines=("a = x.var(-1, correction=0, keepdim=True)", "b = x.flip(0) * self.p0", "b[0] = 2", "b += a"),
    results=("a", "b"),
    calls=((("n", 4),),),
    mode="training",
    learned=("x",),
    way="traced",
)


def test_an_importer_that_forgets_is_found_by_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge(TRACED) == ""

    def forgets(m: Importer, x: Value, dims: Any) -> Value:
        return x

    monkeypatch.setitem(importer.REGISTRY, aten.flip.default, forgets)
    found = judge(TRACED)
    assert isinstance(found, Failure) and found.kind == "values"


def answer_or_end() -> None:
    """What the forked process does."""

    def answer(request: int) -> int:
        if request < 0:
            os.abort()
        return request + 1

    answer_requests(answer)


def test_a_forked_process_answers_and_one_that_ends_is_told() -> None:
    with Nurseling(f"{__name__}:answer_or_end") as asked:
        assert asked.ask(3, 60.0) == 4
        with pytest.raises(LostError, match="signal 6"):
            asked.ask(-1, 60.0)
        assert asked.ask(4, 60.0) == 5


def test_numbers_are_the_same_wherever_they_lie() -> None:
    tensor = torch.arange(6.0).view(2, 3)
    for _, other in laid_otherwise(tensor):
        assert torch.equal(other, tensor)
    for _, array in arrays_laid_otherwise(tensor.numpy()):
        assert array.flags.c_contiguous is False or array.ctypes.data % 4
        np.testing.assert_array_equal(array, tensor.numpy())


def test_calls_that_fit_no_type_are_wrong_and_others_the_same() -> None:
    type = TensorType(f32, (2, 3))

    def program(*inputs: torch.Tensor) -> None:
        if len(inputs) != 1 or inputs[0].dtype != torch.float32 or inputs[0].shape != (2, 3):
            raise InputError("wrong")

    calls = list(wrong_calls([torch.zeros(2, 3)], [type]))
    assert len(calls) >= 9
    for _, wrong in calls:
        with pytest.raises(InputError):
            program(*wrong)
    with pytest.raises(AssertionError, match="result 0"):
        require_same([np.zeros(3)], [np.ones(3)], "here")

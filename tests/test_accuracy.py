"""What the measure of accuracy accepts and what it catches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from effcc.accuracy import check
from effcc.errors import NumericsError

X = torch.randn(64, 48, generator=torch.Generator().manual_seed(3))


def gelu(x: Tensor, cubic: float = 0.044715) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + cubic * x**3)))


def test_eager_itself_is_right() -> None:
    assert check(gelu(X.double()), gelu(X), gelu(X)).ok


def test_another_order_of_summation_is_right() -> None:
    chunks = X.view(64, 4, 12).sum(-1).sum(-1)
    assert check(X.double().sum(-1), X.sum(-1), chunks).ok


def test_one_wrong_element_is_caught_and_named() -> None:
    wrong = gelu(X)
    wrong[5, 7] += 1e-4
    report = check(gelu(X.double()), gelu(X), wrong)
    assert not report.ok
    assert "[5, 7]" in str(report)


def test_a_constant_that_is_slightly_off_is_caught() -> None:
    assert not check(gelu(X.double()), gelu(X), gelu(X, cubic=0.0447)).ok


def test_many_small_errors_are_caught_by_the_mean_square() -> None:
    eager = X.clone()
    eager[0, 0] += 1e-4  # eager's one large error would let every element be wrong by 4e-4
    report = check(X.double(), eager, X + 2e-5)
    assert "root mean square" in report.worst.problem


@pytest.mark.parametrize("planted", [math.nan, math.inf, -math.inf])
def test_a_special_value_where_eager_has_none_is_caught(planted: float) -> None:
    wrong = X.clone()
    wrong[1, 2] = planted
    assert not check(X.double(), X, wrong).ok


@pytest.mark.parametrize("expected", [math.nan, math.inf, -math.inf])
def test_special_values_must_be_eagers(expected: float) -> None:
    eager = X.clone()
    eager[1, 2] = expected
    other = eager.clone()
    other[1, 2] = 0.0 if math.isnan(expected) else -expected
    assert check(eager.double(), eager, eager.clone()).ok
    assert not check(eager.double(), eager, other).ok


def test_integers_are_equal_or_wrong() -> None:
    eager = torch.arange(10)
    wrong = eager.clone()
    wrong[3] = 0
    assert check(eager, eager, eager.clone()).ok
    assert "1 of 10" in check(eager, eager, wrong).worst.problem


def test_shape_and_dtype_are_part_of_the_result() -> None:
    assert "torch.float32[64, 48]" in check(X.double(), X, X.T).worst.problem
    assert "torch.float64" in check(X.double(), X, X.double()).worst.problem


def test_every_output_of_a_tree_is_compared() -> None:
    eager = {"a": X, "b": (X.argmax(-1), 3)}
    assert check(eager, eager, eager).ok
    wrong = {"a": X, "b": (X.argmax(-1), 4)}
    assert [output.name for output in check(eager, eager, wrong).outputs if not output.ok] == ["['b'][1]"]


def test_a_report_raises_on_demand_and_says_what() -> None:
    check(X.double(), X, X).require()
    with pytest.raises(NumericsError, match="layer 3 is further"):
        check(X.double(), X, X + 1).require("layer 3")


def test_half_precision_is_held_to_its_own_epsilon() -> None:
    half = X.bfloat16()
    assert check(X.double(), half, half).ok
    assert not check(X.double(), half, half * 1.1).ok

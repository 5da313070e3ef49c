"""Random programs of numbers that calls change give what eager gives; `tests.reports.number_programs` draws them."""

from __future__ import annotations

from random import Random

import pytest

from tests.reports.number_programs import differences, draw


@pytest.mark.filterwarnings("ignore:effcc. PyTorch runs a call because its numbers")
@pytest.mark.parametrize("seed", range(6))
def test_a_program_of_numbers(seed: int) -> None:
    assert not any(differences(draw(Random(seed), 5)))

"""Constraints read in text as they print, and bad text is refused with its place."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.errors import IRSyntaxError
from effcc.passes.tiling.constraints import Name, Number, ceil_div, evaluate, holds, round_up
from effcc.passes.tiling.notation import parse_constraint, parse_model
from tests.passes.tiling.brute_force import random_constraint


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_printing_then_parsing_is_the_identity(seed):
    random = Random(seed)
    leaves = [Name("mr"), Name("nr"), Number(7), Number(-2)]
    constraint = random_constraint(random, leaves)
    assert parse_constraint(str(constraint)) == constraint


@pytest.mark.parametrize(
    "text",
    [
        "mr * nr / vector + nr / vector + 1 <= vector_registers",
        "4 * (mc * kc + kc * nr) <= l2_bytes",
        "n % nr == 0 or padded == 1",
        "ceil(m / mc) * ceil(n / nc) >= threads",
        "(a <= b or b <= c) and c < 3",
        "a - (b - c) == min(a, b, round_up(c, 4)) % 5",
    ],
)
def test_text_prints_as_it_was_written(text):
    assert str(parse_constraint(text)) == text


def test_rounding():
    values = {"a": 7, "b": 3}
    a, b = Name("a"), Name("b")
    assert [evaluate(e, values) for e in (a / b, ceil_div(a, b), round_up(a, b), a % b)] == [2, 3, 9, 1]


def test_definitions_and_comments_and_lines_inside_parentheses():
    model = parse_model(
        """
        # how many rows a block has
        rows = min(mt * mr,
                   m)
        rows <= 8 ; mr % 2 == 0
        minimize rows + 1
        """
    )
    assert [str(c) for c in model.constraints] == ["min(mt * mr, m) <= 8", "mr % 2 == 0"]
    assert str(model.objective) == "min(mt * mr, m) + 1"
    assert holds(model.constraints[0], {"mt": 9, "mr": 2, "m": 8})


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a <= b\nc <=", 2, 3),
        ("a <= b )", 1, 8),
        ("a + b", 1, 5),
        ("a <= b\n\n x <= floor(y)", 3, 7),
        ("x <= ceil(y)", 1, 6),
        ("x <= round_up(y)", 1, 6),
    ],
)
def test_bad_text_is_refused_with_its_place(text, line, column):
    with pytest.raises(IRSyntaxError) as error:
        parse_model(text)
    assert (error.value.line, error.value.column) == (line, column)

"""Rewriting ends: the stated order proves it for effcc's rules, and refuses rules that would go round in circles."""

from __future__ import annotations

import pytest

from effcc.passes.rules.reader import load_all, parse
from effcc.passes.rules.termination import violations


def test_all_rules_decrease_together():
    assert violations(load_all()) == []


@pytest.mark.parametrize(
    "rule",
    [
        "add(%x, %y) => add(%y, %x)",
        "mul(%x, %x) => pow(%x, 2)",
        "neg(%x) => neg(neg(neg(%x)))",
        "sub(%x, %y) => sub(neg(%y), neg(%x))",
        "sum(%x) {axes=a} => sum(%x) {axes=a, keepdim=false}",
    ],
)
def test_a_rule_that_does_not_decrease_is_refused(rule):
    (problem,) = violations(parse(f"order: pow > mul\n\n# Planted.\nrule planted [exact]: {rule}"))
    assert "rules.rules:4: rule planted" in problem and "order:" in problem


def test_an_order_that_goes_in_circles_is_refused():
    (problem,) = violations(parse("order: mul > add > sub\norder: sub > mul"))
    assert "add, mul, sub" in problem and "circular" in problem


def test_a_copied_variable_needs_an_order_between_the_ops():
    text = "# Planted.\nrule planted [exact]: pow(%x, 2) => mul(%x, %x)"
    assert violations(parse(text)) != []
    assert violations(parse("order: pow > mul\n" + text)) == []

"""Rules on single elements are identities over the reals, and those that are not are told apart by a point."""

from __future__ import annotations

import pytest

from effcc.passes.rules.algebra import decide
from effcc.passes.rules.language import Rule
from effcc.passes.rules.reader import load_all, parse


def planted(text: str) -> Rule:
    (rule,) = parse(f"# Planted by a test.\nrule planted {text}").rules
    return rule


def test_no_rule_is_refuted_and_most_scalar_rules_are_proved():
    outcomes = {rule.name: verdict.outcome for rule in load_all().rules if (verdict := decide(rule)) is not None}
    assert "refuted" not in outcomes.values()
    assert {"gelu", "gelu_tanh", "merge_lower_bounds", "negated_pair", "power_of_half"} <= {
        name for name, outcome in outcomes.items() if outcome == "proved"
    }
    assert sum(outcome == "proved" for outcome in outcomes.values()) >= 40


@pytest.mark.parametrize(
    "text",
    [
        "[exact]: relu(neg(%x)) => neg(relu(%x))",
        "[exact]: sub(%x, %y) => sub(%y, %x)",
        "[reassociates]: mul(%x, sigmoid(%x)) => gelu(%x)",
        "[exact]: add(add(%x, a), b) => add(%x, {times(a, b)})",
        "[exact]: maximum(maximum(%x, a), b) => maximum(%x, {smaller(a, b)})",
    ],
)
def test_a_rule_that_is_no_identity_is_refuted_with_a_point(text):
    verdict = decide(planted(text))
    assert verdict is not None and verdict.outcome == "refuted"
    assert "the pattern is" in verdict.witness


def test_a_wrong_logical_rule_is_not_proved():
    verdict = decide(planted("[exact]: and(not(%x), not(%y)) => not(and(%x, %y))"))
    assert verdict is not None and verdict.outcome != "proved"


def test_rules_about_whole_tensors_are_left_to_instances():
    assert decide(planted("[exact]: reshape(reshape(%x) {shape=s}) {shape=t} => reshape(%x) {shape=t}")) is None

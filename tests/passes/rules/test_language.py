"""Rules read as they print, and bad rules are refused with their place."""

from __future__ import annotations

import pytest

from effcc.errors import IRSyntaxError, UnknownNameError
from effcc.passes.rules.reader import load_all, parse


@pytest.mark.parametrize("rule", load_all().rules, ids=lambda rule: rule.name)
def test_printing_then_parsing_is_the_identity(rule):
    (again,) = parse(f"# {rule.reason}\n{rule}").rules
    assert (again.name, again.claim, again.pattern) == (rule.name, rule.claim, rule.pattern)
    assert (again.replacement, again.conditions, again.reason) == (rule.replacement, rule.conditions, rule.reason)


def test_every_rule_says_why_in_one_line():
    assert all(len(rule.reason) > 10 and rule.reason.endswith((".", ")")) for rule in load_all().rules)


BAD = {
    "no arrow": ("rule r [exact]: neg(%x)", "expected one of"),
    "unknown claim": ("rule r [roughly]: neg(neg(%x)) => %x", "expected one of"),
    "unknown condition": ("rule r [exact]: neg(neg(%x)) => %x if plausible(%x)", "unknown condition plausible"),
    "unknown function": ("rule r [exact]: neg(%x) => mul(%x, {twice(%x)})", "unknown function twice"),
    "unbound tensor": ("rule r [exact]: neg(neg(%x)) => %y", "y does not occur in the pattern"),
    "unbound number": ("rule r [exact]: neg(%x) => mul(%x, c)", "c does not occur in the pattern"),
    "unknown attribute": ("rule r [exact]: neg(%x) {loud=true} => %x", "no attribute loud"),
    "missing attribute": ("rule r [exact]: cast(%x) => %x", "needs the attribute dtype"),
    "pattern is no op": ("rule r [exact]: %x => neg(%x)", "the pattern must be an operation"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_a_bad_rule_is_refused_with_line_and_caret(text, message):
    with pytest.raises(IRSyntaxError, match=r"planted\.rules:2:") as caught:
        parse(f"# A reason.\n{text}", "planted")
    assert message in str(caught.value) and "^" in str(caught.value)


def test_a_rule_without_a_reason_is_refused():
    with pytest.raises(IRSyntaxError, match="needs its reason"):
        parse("order: mul > add\nrule r [exact]: neg(neg(%x)) => %x")


def test_two_rules_of_one_name_are_refused():
    with pytest.raises(IRSyntaxError, match="a second rule is called r"):
        parse("# One.\nrule r [exact]: neg(neg(%x)) => %x\n# Two.\nrule r [exact]: not(not(%x)) => %x")


def test_an_unknown_op_is_refused_with_near_misses():
    with pytest.raises(UnknownNameError, match="reshape"):
        parse("# A reason.\nrule r [exact]: resape(%x) {shape=s} => %x")

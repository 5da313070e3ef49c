"""Every rule that effcc has does what it claims, and the checker would notice if one did not."""

from __future__ import annotations

import pytest

from effcc.passes.rules.check import LEAST, check_rule
from effcc.passes.rules.language import Rule
from effcc.passes.rules.reader import load_all, parse

RULES = load_all().rules


def only_rule(text: str) -> Rule:
    (rule,) = parse(f"# Planted by a test.\nrule planted {text}").rules
    return rule


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.theme}-{rule.name}")
def test_a_rule_keeps_its_claim_on_at_least_a_hundred_instances(rule):
    verdict = check_rule(rule)
    assert verdict.passed, str(verdict)
    assert verdict.instances >= LEAST


def test_there_are_at_least_forty_rules_in_the_themes_that_models_need():
    assert len(RULES) >= 40
    assert {r.theme for r in RULES} >= {"identities", "casts", "views", "reductions", "convolutions", "products"}


@pytest.mark.parametrize("name", ["merge_reshapes", "merge_broadcasts", "softmax", "sum_of_copies", "scale_linear"])
def test_rules_are_tried_on_symbolic_sizes_too(name):
    (rule,) = (r for r in RULES if r.name == name)
    assert check_rule(rule).on_symbols >= 5


WRONG = {
    "overflow": "[exact]: div(mul(%a, c), c) => %a",
    "overflow_even_for_powers_of_two": "[exact]: div(mul(%a, c), c) => %a if inverse_is_exact(c, %a)",
    "sign_of_zero": "[exact]: add(%x, 0) => %x",
    "infinity_times_zero": "[exact]: mul(%x, 0) => 0",
    "not_a_number": "[exact]: not(lt(%x, %y)) => ge(%x, %y)",
    "square_root_of_negative": "[approximate(1 ulp)]: pow(%x, 0.5) => sqrt(%x)",
    "relu_of_negative": "[exact]: relu(neg(%x)) => neg(relu(%x))",
    "transpose_without_inverse": "[exact]: transpose(transpose(%x) {perm=p}) {perm=p} => %x",
    "transposes_composed_backwards": (
        "[exact]: transpose(transpose(%x) {perm=p}) {perm=q} => transpose(%x) {perm=compose(q, p)}"
    ),
    "transpose_as_reshape": "[exact]: transpose(%x) {perm=p} => reshape(%x) {shape=shape(%result)}",
    "padding_that_cuts": "[exact]: pad(%x) {low=l, high=h, value=v} => %x",
    "narrowing_detour": "[exact]: cast(cast(%x) {dtype=d}) {dtype=e} => cast(%x) {dtype=e}",
    "sum_of_another_axis": "[reassociates]: sum(sum(%x) {axes=a}) {axes=b} => sum(%x) {axes=united_axes(%x, a, b)}",
    "variance_is_biased": (
        "[reassociates]: var(%x) {axes=a, keepdim=k, correction=1} => var(%x) {axes=a, keepdim=k, correction=0}"
    ),
    "slice_offset_forgotten": (
        "[exact]: slice(slice(%x) {axis=a, start=s, end=e}) {axis=a, start=t, end=f}"
        " => slice(%x) {axis=a, start=t, end=f}"
    ),
    "product_on_the_wrong_side": "[reassociates]: matmul(%x, %w) => linear(%x, %w)",
    "claims_too_much": "[exact]: reciprocal(sqrt(%x)) => rsqrt(%x)",
    "claims_too_few_ulp": "[approximate(0 ulp)]: pow(%x, 3) => mul(mul(%x, %x), %x)",
    "sums_are_not_exact": "[exact]: sum(sum(%x) {axes=a}) {axes=b} => sum(%x) {axes=merged_axes(%x, a, b)}",
    "batch_norm_without_mean": (
        "[reassociates]: batch_norm(convolution(%x, %w) {stride=s, padding=p, dilation=d, groups=n}, %m, %v, %g, %h)"
        " {eps=e}"
        " => convolution(%x, mul(%w, reshape(mul(%g, rsqrt(add(%v, {e})))) {shape=column(%w)}), %h)"
        " {stride=s, padding=p, dilation=d, groups=n}"
        " if weight(%w), weight(%m), weight(%v), weight(%g), weight(%h), normal_in(e, %v)"
    ),
    "batch_norm_without_root": (
        "[reassociates]: batch_norm(convolution(%x, %w) {stride=s, padding=p, dilation=d, groups=n}, %m, %v) {eps=e}"
        " => convolution(%x, mul(%w, reshape(reciprocal(add(%v, {e}))) {shape=column(%w)}),"
        " neg(mul(%m, reciprocal(add(%v, {e}))))) {stride=s, padding=p, dilation=d, groups=n}"
        " if weight(%w), weight(%m), weight(%v), normal_in(e, %v)"
    ),
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_a_wrong_rule_is_caught_with_the_instance_that_shows_it(text):
    verdict = check_rule(only_rule(text))
    assert not verdict.passed
    assert "expected" in verdict.failure and "%output" in verdict.failure


NEVER = {
    "contradiction": "[exact]: neg(neg(%x)) => %x if integer(%x), real(%x)",
    "impossible_type": "[exact]: sqrt(%x) => %x if truth(%x)",
    "misfit_replacement": "[exact]: relu(%x) => reshape(%x) {shape=(7, 7, 7)}",
    "negation_of_what_must_hold": "[exact]: reshape(%x) {shape=s} => %x if not same_size(%x, %result)",
}


@pytest.mark.parametrize("text", NEVER.values(), ids=NEVER)
def test_a_rule_that_matches_nothing_is_caught(text):
    verdict = check_rule(only_rule(text))
    assert not verdict.passed
    assert verdict.instances == 0
    assert "at least 100 must match" in verdict.failure

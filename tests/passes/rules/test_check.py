"""Every rule that effcc has does what it claims, and the checker would notice if one did not."""

from __future__ import annotations

import pytest

from effcc.passes.rules.check import LEAST, WANTED, check_rule, try_rule
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
        "[reassociates]: batch_norm(%x, %m, %v, %g, %h) {eps=e}"
        " => add(mul(%x, reshape(mul(%g, rsqrt(add(%v, {e})))) {shape=channels(%x)}),"
        " reshape(%h) {shape=channels(%x)})"
        " if weight(%m), weight(%v), weight(%g), weight(%h), normal_in(e, %v)"
    ),
    "batch_norm_without_root": (
        "[reassociates]: batch_norm(%x, %m, %v) {eps=e}"
        " => mul(sub(%x, reshape(%m) {shape=channels(%x)}),"
        " reshape(reciprocal(add(%v, {e}))) {shape=channels(%x)})"
        " if weight(%m), weight(%v), normal_in(e, %v)"
    ),
    "scale_forgets_the_bias": (
        "[reassociates]:"
        " mul(convolution(%x, %w, %b) {stride=s, padding=p, dilation=d, groups=n}, reshape(%g) {shape=t})"
        " => convolution(%x, mul(%w, reshape(%g) {shape=column(%w)}), %b)"
        " {stride=s, padding=p, dilation=d, groups=n}"
        " if weight(%w), weight(%b), weight(%g), by_channel(%g, t, %result)"
    ),
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_a_wrong_rule_is_caught_with_the_instance_that_shows_it(text):
    verdict = check_rule(only_rule(text))
    assert not verdict.passed
    assert "expected" in verdict.failure and "%output" in verdict.failure


# What holds for ordinary numbers, claimed for all of them: each needs a magnitude, or a constant, of its own.
ORDINARY = {
    "round_by_magic": "[approximate(64 ulp)]: add(add(%x, a), b) => add(%x, {plus(a, b)}) if real(%x)",
    "merged_factors": "[approximate(64 ulp)]: mul(mul(%x, a), b) => mul(%x, {times(a, b)}) if real(%x)",
    "cancelled_summand": "[approximate(64 ulp)]: sub(add(%x, %y), %y) => %x if real(%x)",
    "cancelled_factor": "[approximate(64 ulp)]: div(mul(%x, %y), %y) => %x if real(%x)",
    "reciprocal_of_constant": "[approximate(64 ulp)]: div(%x, c) => mul(%x, {inverse(c)}) if real(%x)",
    "two_quotients": "[approximate(64 ulp)]: div(div(%x, a), b) => div(%x, {times(a, b)}) if real(%x)",
    "root_of_square": "[approximate(64 ulp)]: sqrt(mul(%x, %x)) => abs(%x)",
    "rsqrt_of_square": "[approximate(64 ulp)]: mul(%x, rsqrt(mul(%y, %y))) => div(%x, abs(%y))",
    "exp_of_log": "[approximate(64 ulp)]: exp(log(abs(%x))) => abs(%x)",
    "log_of_exp": "[approximate(64 ulp)]: log(exp(%x)) => %x if real(%x)",
    "factored_out": "[approximate(64 ulp)]: add(mul(%x, %y), mul(%x, %z)) => mul(%x, add(%y, %z))",
    "sigmoid_that_does_not_overflow": "[approximate(64 ulp)]: reciprocal(add(exp(neg(%x)), 1)) => sigmoid(%x)",
    "factor_behind_a_product": "[reorders]: matmul(mul(%a, c), %b) => mul(matmul(%a, %b), c)",
    "factor_into_weights": "[reorders]: mul(linear(%x, %w), c) => linear(%x, mul(%w, c)) if weight(%w)",
    "rows_into_weights": (
        '[reorders]: mul(linear(%x, %w), %g) => linear(%x, einsum(%w, %g) {spec="nk,n->nk"})'
        " if weight(%w), weight(%g), has_rank(%g, 1)"
    ),
    "channels_into_filters": (
        "[reorders]: mul(convolution(%x, %w) {stride=s, padding=p, dilation=d, groups=n}, reshape(%g) {shape=t})"
        " => convolution(%x, mul(%w, reshape(%g) {shape=column(%w)})) {stride=s, padding=p, dilation=d, groups=n}"
        " if weight(%w), weight(%g), by_channel(%g, t, %result)"
    ),
    "factor_out_of_a_sum": "[reorders]: sum(mul(%x, c)) {axes=a} => mul(sum(%x) {axes=a}, c) if real(%x)",
    "mean_of_means": (
        "[approximate(64 ulp)]: mean(mean(%x) {axes=a}) {axes=b} => mean(%x) {axes=merged_axes(%x, a, b)} if real(%x)"
    ),
    "mean_of_copies": (
        "[approximate(64 ulp)]: mean(broadcast(%x) {shape=s}) {axes=a} => %x"
        " if axes_added(%x, s, a), at_most(2, copies(%x, s)), real(%x)"
    ),
    "two_products": "[reorders]: linear(linear(%x, %v), %w) => linear(%x, matmul(%w, %v)) if weight(%v), weight(%w)",
}


def test_only_sums_of_products_can_be_in_another_order():
    verdict = check_rule(only_rule("[reorders]: reciprocal(sqrt(%x)) => rsqrt(%x)"))
    assert not verdict.passed and "reciprocal" in verdict.failure


@pytest.mark.parametrize("text", ORDINARY.values(), ids=ORDINARY)
def test_a_rule_for_ordinary_numbers_may_not_run_by_default(text):
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
    verdict = try_rule(only_rule(text), WANTED, seed=0, draws=2_000)  # a tenth of what a rule is given
    assert not verdict.passed
    assert verdict.instances == 0
    assert "at least 100 must match" in verdict.failure


def test_an_operand_that_is_rounded_to_a_subnormal_says_nothing_of_a_rule():
    """Its product is half of what float64 makes of it, and a root of that far from float64's; two roots of it agree."""
    (rule,) = (r for r in RULES if r.name == "power_of_minus_half")
    assert try_rule(rule, 100, 2_000_006, 100, 1.0, strays=True).witness is None
    wrong = only_rule("[approximate(1 ulp)]: pow(%x, -0.5) => mul(rsqrt(%x), 1.000001) if nonnegative(%x)")
    assert try_rule(wrong, 100, 2_000_006, 100, 1.0, strays=True).witness is not None


def test_axes_that_are_as_long_as_each_other_show_which_one_a_rule_takes() -> None:
    """Elsewhere the wrong axes give another shape, and the rule does not fire."""
    rule = only_rule("[approximate(0 ulp)]: max(max(%x) {axes=a}) {axes=b} => max(%x) {axes=united_axes(%x, a, b)}")
    assert try_rule(rule, 60, 0, 400, size=2).witness is not None


def test_integers_beside_powers_of_two_are_among_those_that_are_tried() -> None:
    """2^24 + 1 is no f32."""
    rule = only_rule("[exact]: cast(cast(%x) {dtype=f32}) {dtype=e} => cast(%x) {dtype=e}")
    assert any(try_rule(rule, 6, seed, 40, size=2).witness is not None for seed in range(3))

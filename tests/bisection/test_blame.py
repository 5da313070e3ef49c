"""Faults that are planted in a room of the compiler are blamed on that room."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import effcc.passes.simplify
from effcc.bisection.blame import blame, first_wrong
from effcc.bisection.call import Call
from effcc.bisection.shrink import shrink
from effcc.fuzz.generate import Case
from effcc.ir.parser import parse_graph
from effcc.passes.rules.language import RuleSet
from effcc.passes.rules.reader import load_safe, parse
from effcc.target import Target

GRAPH = """
graph @main(%x: f32[5,16], weight %w: f32[24,16], weight %b: f32[24]) {
  %h = linear %x, %w, %b : f32[5,24]
  %n = neg %h : f32[5,24]
  %d = sub %h, %n : f32[5,24]
  %t = tanh %d : f32[5,24]
  %s = softmax %t {axis=-1} : f32[5,24]
  %m = sum %s {axes=[0]} : f32[24]
  return %s, %m
}
"""
Plant = Callable[[pytest.MonkeyPatch], None]


def call_of(text: str = GRAPH, target: str = "avx2", seed: int = 0) -> Call:
    """A call of a graph whose inputs are normal numbers."""
    graph = parse_graph(text)
    data = np.random.default_rng(seed)
    inputs = tuple(data.standard_normal([int(d) for d in p.type.shape]).astype(np.float32) for p in graph.params)
    return Call(Case(graph, inputs), Target.parse(target))


def plant_rule(text: str) -> Plant:
    """A rule in the place of the one with its name."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        (wrong,) = parse(text, "identities").rules
        safe = load_safe()
        rules = tuple(wrong if r.name == wrong.name else r for r in safe.rules)
        patch.setattr(effcc.passes.simplify, "load_safe", lambda: RuleSet(rules, safe.order))

    return plant


WRONG_RULE = "# It adds.\nrule subtract_negated [exact]:\n    sub(%x, neg(%y))  =>  mul(%x, %y)\n"


def test_a_right_program_is_blamed_for_nothing() -> None:
    assert blame(call_of()) is None


def test_a_wrong_rule_is_named_by_its_number_and_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    plant_rule(WRONG_RULE)(monkeypatch)
    call = call_of()
    found = blame(call)
    assert found is not None
    assert (found.kind, found.step, found.rule) == ("rule", "simplify", "subtract_negated")
    assert "passes/rules/identities.rules:2" in found.sentence
    assert "application 1 of 1, to %d" in found.sentence
    reduced, again = shrink(call, found, 20, lambda _: None)
    assert [n.op for n in reduced.case.graph.nodes] == ["neg", "sub"]
    assert again.rule == "subtract_negated"


def test_the_first_wrong_one_comes_after_a_right_one() -> None:
    asked = []

    def wrong(k: int) -> bool:
        asked.append(k)
        return k >= 77

    assert first_wrong(1000, wrong) == 77
    assert len(asked) < 13

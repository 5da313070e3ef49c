"""Faults that are planted in a room of the compiler are blamed on that room."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import effcc.passes.simplify
import effcc.steps
from effcc.bisection.blame import blame, first_wrong
from effcc.bisection.call import Call
from effcc.bisection.shrink import shrink
from effcc.fuzz.generate import Case
from effcc.ir import expr
from effcc.ir.kernel import Kernel
from effcc.ir.parser import parse_graph, parse_kernel
from effcc.ir.printer import print_kernel
from effcc.ir.program import Program
from effcc.passes.fusion.cascade import Opaque
from effcc.passes.memory import Plan
from effcc.passes.rules.language import RuleSet
from effcc.passes.rules.reader import load_safe, parse
from effcc.steps import State, passes_of
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
MEMORY = """
graph @main(%x: f32[9,16], weight %w: f32[24,16], weight %v: f32[24,16]) {
  %a = linear %x, %w : f32[9,24]
  %s = softmax %a {axis=-1} : f32[9,24]
  %b = linear %x, %v : f32[9,24]
  %t = softmax %b {axis=-1} : f32[9,24]
  %y = einsum %s, %t {spec="mk,nk->mn"} : f32[9,9]
  return %y
}
"""
fuse = importlib.import_module("effcc.passes.fusion.fuse")
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


# Other rooms: what a pass gave is changed, as a wrong pass would have given it ---------------------------------------


def changed(kernel: Kernel, old: str, new: str) -> Kernel:
    """A kernel whose text is another in one place; itself where that does not occur."""
    text = print_kernel(kernel)
    if old not in text:
        return kernel
    return replace(parse_kernel(text.replace(old, new)), weights=kernel.weights, location=kernel.location)


def break_kernels(program: Program, old: str = "tanh(", new: str = "sin(") -> Program:
    return replace(program, kernels={n: changed(k, old, new) for n, k in program.kernels.items()})


def plant_in_cascades(patch: pytest.MonkeyPatch) -> None:
    """Statements that are inlined lose a sign."""
    right = fuse.inline

    def broken(item: Any) -> Any:
        if isinstance(item, Opaque) or item.target != "d":
            return item
        value = item.statement.value
        return replace(item, statement=replace(item.statement, value=expr.Call("abs", (value,), value.dtype)))

    def wrong(cascade: Any, *rest: Any) -> Any:
        return right(replace(cascade, items=[broken(item) for item in cascade.items]), *rest)

    patch.setattr(fuse, "inline", wrong)


def plant_in_kernels(patch: pytest.MonkeyPatch) -> None:
    right = fuse.sum_codes
    patch.setattr(fuse, "sum_codes", lambda kernel: changed(right(kernel), "tanh(", "sin("))


def plant_in_arranging(patch: pytest.MonkeyPatch) -> None:
    passes = passes_of("arrange")
    right = passes["share_inputs"]

    def wrong(state: State, target: Target) -> State:
        found = right(state, target)
        assert found.program is not None
        return replace(found, program=break_kernels(found.program))

    patch.setitem(passes, "share_inputs", wrong)


def plant_in_tiling(patch: pytest.MonkeyPatch) -> None:
    right = effcc.steps.tile

    def wrong(*given: Any) -> Any:
        found = right(*given)
        return replace(found, program=break_kernels(found.program))

    patch.setattr(effcc.steps, "tile", wrong)


def plant_in_lowering(patch: pytest.MonkeyPatch) -> None:
    right = effcc.steps.lower
    patch.setattr(effcc.steps, "lower", lambda kernel, schedule: right(changed(kernel, "tanh(", "sin("), schedule))


def plant_in_memory(patch: pytest.MonkeyPatch) -> None:
    """All buffers of the arena at its begin."""
    right = effcc.steps.place

    def wrong(program: Program) -> tuple[Program, Plan]:
        placed, plan = right(program)
        return placed, replace(plan, offsets=dict.fromkeys(plan.offsets, 0))

    patch.setattr(effcc.steps, "place", wrong)


def plant_in_text(old: str, new: str) -> Plant:
    """In the C++ of kernels."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        right = effcc.steps.kernel_unit

        def wrong(*given: Any) -> Any:
            unit = right(*given)
            return replace(unit, text=unit.text.replace(old, new))

        patch.setattr(effcc.steps, "kernel_unit", wrong)

    return plant


@pytest.mark.parametrize(
    ("plant", "kind", "step", "name"),
    [
        (plant_in_cascades, "pass", "inline", ""),
        (plant_in_kernels, "pass", "codes", ""),
        (plant_in_arranging, "pass", "arrange", "share_inputs"),
        (plant_in_tiling, "pass", "tile", ""),
        (plant_in_lowering, "pass", "lower", ""),
        (plant_in_memory, "memory", "place", ""),
        (plant_in_text("tanh(", "exp("), "kernel", "emit", ""),
    ],
)
def test_a_fault_is_blamed_on_its_room(
    plant: Plant, kind: str, step: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    found = blame(call_of(MEMORY if kind == "memory" else GRAPH), print)
    assert found is not None
    assert (found.kind, found.step, found.pass_name) == (kind, step, name or (step if kind == "pass" else ""))
    if step in ("codes", "arrange", "tile", "lower", "emit"):
        assert found.kernel


def test_code_that_gives_another_result_each_time_is_a_race(monkeypatch: pytest.MonkeyPatch) -> None:
    plant_in_text("= tanh(", "= __builtin_ia32_rdtsc() % 7 * 0.001f + tanh(")(monkeypatch)
    found = blame(call_of())
    assert found is not None
    assert found.kind == "race"
    assert "further calls with the same inputs give another result" in found.sentence


def test_the_first_wrong_one_comes_after_a_right_one() -> None:
    asked = []

    def wrong(k: int) -> bool:
        asked.append(k)
        return k >= 77

    assert first_wrong(1000, wrong) == 77
    assert len(asked) < 13

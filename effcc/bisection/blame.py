"""Of a call whose result is wrong: the first step of the compiler whose result is, the pass of that step, the rule's
number among all that fired, or the kernel.

Every step's result is interpreted in float64, so that a step is at fault where what it took is right and what it gave
is wrong. Where all of them are right the fault lies in compiled code, which `effcc.bisection.native` looks into.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from effcc.bisection.call import Call
from effcc.bisection.native import blame_crash, blame_native
from effcc.bisection.verdict import Verdict
from effcc.fuzz.expected import Array
from effcc.fuzz.oracles import told
from effcc.ir.graph import Node
from effcc.ir.program import Launch
from effcc.passes.rules.engine import Trace
from effcc.passes.simplify import RULES
from effcc.steps import State, passes_of

MOST_IN_LOOPS = 1_000_000
"""Points of all index spaces, beyond which interpreting loops takes minutes."""
MOST_INTERPRETED = 60_000_000
"""Those beyond which kernels do, once their operands are packed."""
_PACKED = ("settle", "tile", "place")
_SAME = 1e-6
"""Both sides are float64: how far, of the largest element, the order of sums may move a value."""

Say = Callable[[str], None]


def blame(call: Call, say: Say = lambda _: None, crashes: bool = False) -> Verdict | None:
    """What makes the call's result wrong; None where it is right. crashes: whether the call has ended its process: its
    compiled code is then run in processes of its own."""
    try:
        states = call.states
    except Exception as error:
        return Verdict("step", _raised_in(error), f"the compiler fails: {told(error)}", told(error))
    steps = [("", call.begun), *((name, state) for name, state in states if _is_interpretable(call, name))]
    say(f"interpreting what came out of {len(steps) - 1} steps in float64")
    problems: dict[int, str] = {}

    def wrong(k: int) -> str:
        if k not in problems:
            name, state = steps[k]
            problems[k] = call.wrong_after(_as_printed(name, state))
            say(f"  {name or 'the graph as it was imported'}: {'wrong' if problems[k] else 'right'}")
        return problems[k]

    if not wrong(len(steps) - 1):
        return blame_crash(call, say) if crashes else blame_native(call, say)
    first = first_wrong(len(steps), wrong)
    if first == 0:
        return Verdict("step", "import", "the graph as it was imported is wrong", problems[0], before=call.begun)
    name, before = steps[first][0], steps[first - 1][1]
    return _in_step(call, name, before, steps[first][1], problems[first], say)


def first_wrong(count: int, wrong: Callable[[int], object]) -> int:
    """The first of `count` that is wrong, of which the first one is right and the last one wrong: one is found that is
    wrong after one that is right."""
    low, high = 0, count - 1
    if wrong(0):
        return 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if wrong(middle) else (middle, high)
    return high


def _raised_in(error: Exception) -> str:
    from effcc.errors import facts_of

    return str(facts_of(error).get("step", "compile"))


def _is_interpretable(call: Call, name: str) -> bool:
    if name in ("vectorize", "emit"):
        return False
    if name == "lower":
        return call.work <= MOST_IN_LOOPS
    return name not in _PACKED or call.work <= MOST_INTERPRETED


def _as_printed(name: str, state: State) -> State:
    return state if name == "lower" else replace(state, nests={})


def _in_step(call: Call, step: str, before: State, after: State, problem: str, say: Say) -> Verdict:
    """The pass of a step that is at fault, and what in it."""
    passes = passes_of(step)
    name, state = step, before
    for each, change in passes.items():
        changed = change(state, call.target)
        found = call.wrong_after(_as_printed(step, changed))
        if found:
            name, before, after, problem = each, state, changed, found
            break
        state = changed
    part = "" if len(passes) == 1 else f", in its pass `{name}`"
    if name == "simplify":
        return _in_simplification(call, before, problem, say)
    where, location, kernel = _first_difference(call, before, _as_printed(step, after))
    sentence = f"the step `{step}`{part} makes the result wrong{where}"
    return Verdict(
        "pass", step, sentence, problem, location=location, kernel=kernel, pass_name=name, before=before, after=after
    )


def _in_simplification(call: Call, before: State, problem: str, say: Say) -> Verdict:
    """The pass of simplification, or the rule, by its number among those that fired."""
    (simplify,) = [change for name, change in passes_of("simplify").items() if name == "simplify"]

    def traced(most: int | None) -> tuple[State, Trace]:
        trace = Trace(most)
        return simplify(replace(before, trace=trace), call.target), trace

    after, whole = traced(None)
    graphs = [("", before.graph), *whole.graphs]

    def wrong_graph(k: int) -> str:
        return call.wrong_after(replace(before, graph=graphs[k][1]))

    name = graphs[first_wrong(len(graphs), wrong_graph)][0]
    count = len(whole.firings)
    if name != RULES or not count:
        where, location, _ = _first_difference(call, before, after)
        sentence = f"the step `simplify`, in its pass `{name}`, makes the result wrong{where}"
        return Verdict(
            "pass", "simplify", sentence, problem, location=location, pass_name=name, before=before, after=after
        )
    say(f"{count} applications of rules: looking for the first at fault")

    def wrong(most: int) -> str:
        found = call.wrong_after(traced(most)[0])
        say(f"  the first {most} of {count}: {'wrong' if found else 'right'}")
        return found

    number = first_wrong(count + 1, wrong)
    if number == 0:
        return Verdict("pass", "simplify", "the step `simplify` makes the result wrong without any rule", problem,
                       pass_name=name, before=before, after=after)  # fmt: skip
    firing = whole.firings[number - 1]
    rule = firing.rule
    place = f"passes/rules/{rule.theme}.rules:{rule.line}"
    values = ", ".join(f"%{v.name}" for v in firing.results)
    sentence = (
        f"the rewrite rule `{rule.name}` ({place}) makes the result wrong: application {number} of {count}, to {values}"
    )
    return Verdict(
        "rule", "simplify", sentence, problem, location=firing.location, pass_name=RULES, rule=rule.name,
        details=(str(rule), f"its reason: {rule.reason}"), before=traced(number - 1)[0], after=traced(number)[0],
    )  # fmt: skip


@dataclass
class _Seen:
    """What was computed under a name, in order, and by what."""

    values: dict[str, tuple[Any, Array]] = field(default_factory=dict)

    def __call__(self, what: Any, results: Mapping[str, Array]) -> None:
        for name, array in results.items():
            self.values[name] = (what, np.array(array, copy=True))


def _first_difference(call: Call, before: State, after: State) -> tuple[str, str, str]:
    """Where two states first compute different values under one name: in words, the model's line, the kernel."""
    was, now = _Seen(), _Seen()
    call.wrong_after(before, was)
    call.wrong_after(after, now)
    for name, (what, array) in now.values.items():
        if name not in was.values or _alike(was.values[name][1], array):
            continue
        if isinstance(what, Node):
            return f": %{name} = {what.op} ... is the first value that differs", what.location, ""
        if isinstance(what, Launch) and after.program is not None:
            kernel = after.program.kernels[what.kernel]
            return (
                f" in the kernel @{what.kernel}: {name} is the first buffer that differs",
                kernel.location,
                kernel.name,
            )
        return f": {name} is the first buffer that differs", "", ""
    return "", "", ""


def _alike(a: Array, b: Array) -> bool:
    if a.shape != b.shape:
        return True  # stored in another way: nothing to compare
    if a.dtype.kind != "f" or b.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    scale = np.abs(a[np.isfinite(a)]).max(initial=0.0)
    with np.errstate(invalid="ignore"):
        return bool(np.allclose(a, b, rtol=0, atol=_SAME * scale + 1e-30, equal_nan=True))

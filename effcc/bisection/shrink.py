"""A smaller call that goes wrong alike: the fuzzer's reducer, with the verdict as its question."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from effcc.bisection.blame import blame
from effcc.bisection.call import Call
from effcc.bisection.verdict import Verdict
from effcc.errors import EffccError
from effcc.fuzz.generate import Case
from effcc.fuzz.oracles import Failure
from effcc.fuzz.reduce import reduce
from effcc.fuzz.second import at_sizes
from effcc.steps import run_steps

COMPILED = ("vectorize", "emit", "build")
"""What only compiled code shows."""


def shrink(call: Call, verdict: Verdict, seconds: float, say: Callable[[str], None]) -> tuple[Call, Verdict]:
    """The smallest call found in `seconds` that goes wrong for the same reason, and its verdict."""
    end = time.monotonic() + seconds
    best, found = call, verdict
    for change in (_known_sizes, _without_updates):
        smaller = change(best)
        if smaller is not None and (again := _verdict(smaller, found)) is not None:
            best, found = smaller, again

    def check(case: Case) -> Failure | None:
        tried = replace(best, case=case)
        if not _may_be(tried, verdict):
            return None
        again = _verdict(tried, verdict)
        return Failure(case, verdict.step, verdict.kind, again.problem) if again is not None else None

    first = Failure(best.case, verdict.step, verdict.kind, found.problem)
    left = max(0.0, end - time.monotonic())
    case = reduce(first, check, left).case
    if case is not best.case:
        smaller = replace(best, case=case)
        best, found = smaller, _verdict(smaller, verdict) or found
    say(f"reduced from {len(call.case.graph.nodes)} ops to {len(best.case.graph.nodes)}")
    return best, found


def _verdict(call: Call, wanted: Verdict) -> Verdict | None:
    """What makes a call wrong, if that is what is wanted."""
    found = blame(call)
    return found if found is not None and found.same(wanted) else None


def _may_be(call: Call, verdict: Verdict) -> bool:
    """Whether a call is wrong after the step at fault: asked first, as it needs no compiler. Whatever a step raises on
    a graph that the reducer made up is another fault."""
    if verdict.step in COMPILED or verdict.kind in ("race", "memory", "calls"):
        return True
    try:
        state = run_steps(call.begun, call.target, until=verdict.step)
    except Exception:
        return False
    if verdict.step != "lower":
        state = replace(state, nests={})
    return bool(call.wrong_after(state))


def _known_sizes(call: Call) -> Call | None:
    """The call with its sizes as numbers."""
    if not call.sizes or call.case.graph.updates:
        return None
    try:
        return replace(call, case=replace(call.case, graph=at_sizes(call.case.graph, call.sizes)))
    except (EffccError, ValueError, TypeError):
        return None


def _without_updates(call: Call) -> Call | None:
    """The call with the new values of what it updates as further results."""
    graph = call.case.graph
    if not graph.updates:
        return None
    outputs = tuple(dict.fromkeys((*graph.outputs, *(v for _, v in graph.updates))))
    return replace(call, case=replace(call.case, graph=replace(graph, outputs=outputs, updates=())))

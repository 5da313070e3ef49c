"""Simplification: constants folded, decided control flow taken out, rules applied, equal expressions shared, unrolled
loops rolled up, in turn until nothing changes.

The rules stand in `passes/rules/*.rules`; all themes are applied together, which their common measure allows
(`effcc.passes.rules.termination`). Folding, sharing and rolling up only make fewer nodes, so the whole ends too.
"""

from __future__ import annotations

from collections import Counter

from effcc.ir.graph import Graph
from effcc.passes.constant_folding import fold_constants
from effcc.passes.dead_code import remove_dead_code, share_common_subexpressions
from effcc.passes.decided import decide_control
from effcc.passes.reroll import reroll
from effcc.passes.rules.engine import Rewritten, Trace, rewrite
from effcc.passes.rules.reader import load_all, load_safe

RULES = "rules"
"""The pass of simplification, as a trace names it, that applies rules."""


def simplify(graph: Graph, fast_math: bool = False) -> Graph:
    """`graph` in fewer and cheaper ops; with `fast_math`, also by rules that only hold in exact arithmetic."""
    return simplify_counted(graph, fast_math).graph


def simplify_counted(graph: Graph, fast_math: bool = False, trace: Trace | None = None) -> Rewritten:
    """Like `simplify`, with how often each rule fired. trace: where all that is done is written down."""
    chosen = load_all() if fast_math else load_safe()
    fired: Counter[str] = Counter()
    trace = Trace() if trace is None else trace
    while True:
        before = graph
        folded = decide_control(fold_constants(graph))
        rewritten = rewrite(folded, chosen, trace)
        fired += rewritten.fired
        shared = remove_dead_code(share_common_subexpressions(rewritten.graph))
        graph = reroll(shared)
        trace.graphs += [("fold", folded), (RULES, rewritten.graph), ("share", shared), ("reroll", graph)]
        if graph is before:
            return Rewritten(graph, fired)

"""Simplification: constants folded, rules applied, equal expressions shared, unrolled loops rolled up, in turn until
nothing changes.

The rules stand in `passes/rules/*.rules`; all themes are applied together, which their common measure allows
(`effcc.passes.rules.termination`). Folding, sharing and rolling up only make fewer nodes, so the whole ends too.
"""

from __future__ import annotations

from collections import Counter

from effcc.ir.graph import Graph
from effcc.passes.constant_folding import fold_constants
from effcc.passes.dead_code import remove_dead_code, share_common_subexpressions
from effcc.passes.reroll import reroll
from effcc.passes.rules.engine import Rewritten, rewrite
from effcc.passes.rules.reader import load_all, load_safe


def simplify(graph: Graph, fast_math: bool = False) -> Graph:
    """`graph` in fewer and cheaper ops; with `fast_math`, also by rules that only hold in exact arithmetic."""
    return simplify_counted(graph, fast_math).graph


def simplify_counted(graph: Graph, fast_math: bool = False) -> Rewritten:
    """Like `simplify`, with how often each rule fired."""
    chosen = load_all() if fast_math else load_safe()
    fired: Counter[str] = Counter()
    while True:
        before = graph
        rewritten = rewrite(fold_constants(graph), chosen)
        fired += rewritten.fired
        graph = reroll(remove_dead_code(share_common_subexpressions(rewritten.graph)))
        if graph is before:
            return Rewritten(graph, fired)

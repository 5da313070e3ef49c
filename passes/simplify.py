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
from effcc.passes.rules.language import RuleSet
from effcc.passes.rules.reader import load_all


def simplify(graph: Graph, rules: RuleSet | None = None) -> Graph:
    """`graph` in fewer and cheaper ops, by `rules` (default: all of effcc's)."""
    return simplify_counted(graph, rules).graph


def simplify_counted(graph: Graph, rules: RuleSet | None = None) -> Rewritten:
    """Like `simplify`, with how often each rule fired."""
    chosen = load_all() if rules is None else rules
    fired: Counter[str] = Counter()
    while True:
        before = graph
        rewritten = rewrite(fold_constants(graph), chosen)
        fired += rewritten.fired
        graph = reroll(remove_dead_code(share_common_subexpressions(rewritten.graph)))
        if graph is before:
            return Rewritten(graph, fired)

"""Calls that the model's checks refuse: one index outside its tensor, or one divisor that is 0, among a case's inputs.

Compiled code must raise where its own program, interpreted, meets the fault; and only where the graph, interpreted op
by op, does. (Between the two lie faults in what the program leaves out: elements that nobody reads.) Either way it must
not touch memory that is not its own.
"""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np

from effcc.errors import OutOfRangeError, RefusedValueError, ZeroDivisorError
from effcc.fuzz.generate import Case
from effcc.fuzz.native import Native, Outcome
from effcc.fuzz.operands import bounds
from effcc.fuzz.oracles import Examined, Failure, native
from effcc.ir.dtypes import f64
from effcc.ir.graph import Node
from effcc.ir.interpreter import run_graph, run_program
from effcc.steps import State

FAULTS_EVERY = 3
"""So often a case with an index or a divisor among its inputs is also called with a fault in it."""

_CODES = {OutOfRangeError: 1, ZeroDivisorError: 2, RefusedValueError: 3}
_DIVISIONS = ("floordiv", "mod", "fmod")
_INDEXED = ("embedding", "index_select", "gather", "scatter", "index", "index_put")


def faulty(case: Case) -> Case | None:
    """The case with one number in one of its inputs that an op refuses; None if no input is an index or a divisor."""
    random = Random(case.seed)
    params = {p: k for k, p in enumerate(case.graph.params)}
    found: list[tuple[int, tuple[int, int], str]] = []
    for node in case.graph.nodes:
        for operand, limits in _limits(node).items():
            value = node.operands[operand]
            if value in params and case.inputs[params[value]].size:
                found.append((params[value], limits, node.op))
    if not found:
        return None
    position, (least, most), op = random.choice(found)
    array = case.inputs[position].copy()
    numbers = np.iinfo(array.dtype)
    outside = [0] if op in _DIVISIONS else [most + 1, least - 1, numbers.min, numbers.max]
    array.reshape(-1)[random.randrange(array.size)] = random.choice(outside)
    return replace(case, inputs=(*case.inputs[:position], array, *case.inputs[position + 1 :]))


def _limits(node: Node) -> dict[int, tuple[int, int]]:
    if node.op not in (*_DIVISIONS, *_INDEXED):
        return {}
    return {k: (int(a), int(b)) for k, (a, b) in bounds(node.op, [o.type for o in node.operands], node.attrs).items()}


def native_with_fault(examined: Examined) -> tuple[Examined, Native] | None:
    """The compiled program on inputs with a fault; None where there is none, or the case is not called with one."""
    program = native(examined)
    if program is None or examined.case.seed % FAULTS_EVERY:
        return None
    case = faulty(examined.case)
    if case is None:
        return None
    called = replace(program, inputs=case.inputs, again=None, again_sizes={}, updated=())
    return replace(examined, case=case), called


def judge_fault(examined: Examined, outcome: Outcome) -> Failure | None:
    """What compiled code did on inputs with a fault."""
    case, state = examined.case, examined.state
    assert state is not None
    returned = re.fullmatch(r".* returned (\d+)", outcome.problem)
    if outcome.problem and returned is None:
        return Failure(case, "faults", "compiled code fails on a fault", outcome.problem)
    code = int(returned[1]) if returned else 0
    must, may = _program_refuses(case, state), _graph_refuses(case)
    if (must and not code) or (code and code != may):
        said = f"returned {code}, the interpreted program {must}, the graph {may}"
        return Failure(case, "faults", "a fault is raised wrongly", said)
    return None


def _program_refuses(case: Case, state: State) -> int:
    assert state.program is not None
    program = state.program
    return _refused(lambda: run_program(program, [a.copy() for a in case.inputs], dtype=f64))


def _graph_refuses(case: Case) -> int:
    return _refused(lambda: run_graph(case.graph, case.inputs, dtype=f64))


def _refused(run: Any) -> int:
    """What an entry point returns for the fault that `run` raises; 0 if it raises none."""
    try:
        run()
    except (OutOfRangeError, ZeroDivisorError, RefusedValueError) as error:
        return _CODES[type(error)]
    return 0

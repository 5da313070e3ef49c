"""Every node of a graph belongs to the steps that compute it."""

from __future__ import annotations

from effcc.history import history_of
from effcc.ir.parser import parse_graph
from effcc.ir.printer import print_kernel
from effcc.origins import origins
from effcc.steps import State, run_steps
from effcc.target import generic

GRAPH = """graph @both(%x: f32[64,32], weight %w: f32[48,32], weight %v: f32[48,48]) {
  %p = linear %x, %w : f32[64,48]
  %t = tanh %p : f32[64,48]
  %q = linear %t, %v : f32[64,48]
  %y = softmax %q {axis=1, safe=false} : f32[64,48]
  %z = add %y, %t : f32[64,48]
  return %z
}"""


def made() -> State:
    return run_steps(State(graph=parse_graph(GRAPH)), generic("avx2"))


def test_a_step_has_the_nodes_between_what_it_reads_and_what_it_writes() -> None:
    state = made()
    assert state.graph is not None and state.program is not None
    found = origins(state.graph, state.program)
    ops = [{state.graph.nodes[k].op for k in nodes} for nodes in found]
    assert {op for some in ops for op in some} == {"linear", "tanh", "softmax", "add"}
    first, *_, last = ops
    assert "linear" in first and "softmax" not in first
    assert "add" in last and "tanh" not in last  # it reads what tanh gave


def test_a_kernels_history_ends_in_its_cascade() -> None:
    state = made()
    history = history_of(state, generic("avx2"))
    assert state.program is not None
    for step in state.program.steps:
        name = step.kernel  # type: ignore[union-attr]
        steps, texts = zip(*history.of(name), strict=True)
        assert steps[0] in ("cluster", "arrange", "tile") and len(set(texts)) == len(texts)
        assert texts[-1] == print_kernel(state.program.kernels[name], locations=False)

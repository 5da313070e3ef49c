"""A trace tells when each thread ran what: every step of a call, one after the other on a thread."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import effcc
from effcc.cli import app
from effcc.errors import InputError
from effcc.ir.parser import parse_graph
from effcc.runtime.measure import host_target
from effcc.steps import State, run_steps
from effcc.trace import Tick, ticks

runner = CliRunner()
GRAPH = """graph @two(%x: f32[64,32], weight %w: f32[48,32]) {
  %p = linear %x, %w : f32[64,48]
  %y = softmax %p {axis=1, safe=false} : f32[64,48]
  return %y
}"""


def names(found: tuple[Tick, ...], kind: str, thread: int) -> list[str]:
    return [t.name for t in found if t.kind == kind and t.thread == thread]


def test_every_thread_runs_every_kernel_in_order() -> None:
    target = host_target()
    state = run_steps(State(graph=parse_graph(GRAPH)), target)
    assert state.program is not None
    launched = [s.kernel for s in state.program.steps]  # type: ignore[union-attr]
    found = ticks(state, target, {}, {})
    assert 0 in {t.thread for t in found} and len({t.thread for t in found}) <= torch.get_num_threads()
    for thread in {t.thread for t in found}:
        assert names(found, "kernel", thread) == launched
        assert names(found, "wait", thread) == ["wait"]  # softmax reads what the product writes
        own = [t for t in found if t.thread == thread]
        assert all(a.end <= b.begin for a, b in pairwise(own))
    assert found[0].begin == 0
    assert all(0 <= t.begin <= t.end < 60 for t in found)


def test_no_kernel_begins_before_all_threads_have_ended_what_it_reads() -> None:
    target = host_target()
    state = run_steps(State(graph=parse_graph(GRAPH)), target)
    found = [t for t in ticks(state, target, {}, {}) if t.kind == "kernel"]
    first, second = dict.fromkeys(t.name for t in found)
    assert max(t.end for t in found if t.name == first) <= min(t.begin for t in found if t.name == second)


class Sorting(nn.Module):
    """A call to PyTorch between kernels."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sort(x * 2.0, dim=-1).values + 1.0


def test_the_command_writes_a_trace_that_perfetto_reads(tmp_path: Path) -> None:
    model, path = tmp_path / "model.pt2", tmp_path / "trace.json"
    torch.export.save(torch.export.export(Sorting(), (torch.zeros(3, 4),)), model)
    result = runner.invoke(app, ["explain", str(model), "--trace", str(path), "--html", str(tmp_path / "page.html")])
    assert result.exit_code == 0, result.output
    events = json.loads(path.read_text())["traceEvents"]
    shown = [e for e in events if e["ph"] == "X"]
    assert all(isinstance(e["pid"], int) and isinstance(e["tid"], int) and e["dur"] >= 0 for e in shown)
    first, call, last = (e for e in shown if e["tid"] == 0 and e["cat"] != "wait")
    assert (first["cat"], call["cat"], last["cat"]) == ("kernel", "PyTorch", "kernel")
    assert call["name"].startswith("aten::sort")
    rounding = 1e-6
    assert first["ts"] + first["dur"] <= call["ts"] + rounding
    assert call["ts"] + call["dur"] <= last["ts"] + rounding
    assert "sort" in first["args"]["model"]
    assert {e["args"]["name"] for e in events if e["ph"] == "M"} >= {"effcc: main", "thread 0"}


def test_without_a_run_there_is_no_trace(tmp_path: Path) -> None:
    model = effcc.compile(nn.Softmax(-1))
    model(torch.zeros(5, 3))
    with pytest.raises(InputError, match="expected an explanation with trace=True"):
        effcc.explain(model, measure=False).trace(tmp_path / "trace.json")
    assert effcc.explain(model, trace=True).trace(tmp_path / "trace.json").is_file()
    (tmp_path / "graph.ir").write_text(GRAPH)
    arguments = ["explain", str(tmp_path / "graph.ir"), "--no-measure", "--trace", str(tmp_path / "no.json")]
    refused = runner.invoke(app, arguments)
    assert refused.exit_code == 2 and "nothing to trace" in refused.stderr
    assert not (tmp_path / "no.json").exists()

"""Peers: held to the bounds of effcc's own programs, their divergences kept apart, with scripts that show them."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from effcc.cli import app
from effcc.errors import UnknownNameError
from effcc.fuzz import peers
from effcc.fuzz.journal import Begun, Journal, read_journal
from effcc.fuzz.peers import Case, Divergence, PeerReport, judge, kind_of, peer_of, peers_of
from effcc.fuzz.programs.case import Case as Program
from effcc.fuzz.programs.case import Input

X = Input("x", 'tensor((n, 40), torch.float32, "normal", 1)')
ROWS = Program(0, (X,), (), ("a = x.sin().sum(-1)", "b = x.flip(-1)"), ("a", "b"), ((("n", 4),),))


def _backend(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def backend(module: Any, given: Any, **_: Any) -> Callable[..., Any]:
        return lambda *args: tuple(change(r) for r in module(*args))

    return backend


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three backends: one that rounds otherwise, one whose flips are wrong, one that refuses to compile."""

    def refuses(module: Any, given: Any, **_: Any) -> Any:
        raise NotImplementedError("no such operator")

    registry = torch._dynamo.backends.registry
    eps = torch.finfo(torch.float32).eps
    names = {
        "rounds": _backend(lambda r: r * (1 + eps) if r.ndim == 1 else r),
        "turns": _backend(lambda r: r.flip(-1) if r.ndim == 2 else r),
        "refuses": refuses,
    }
    for name, backend in names.items():
        registry.register_backend(backend, name)
    yield
    for name in names:
        registry._BACKENDS.pop(name), registry._COMPILER_FNS.pop(name)


def test_a_peer_is_held_to_the_bounds_of_effcc(backends: None) -> None:
    assert judge(Case(0, "rounds", ROWS)) == ""  # a sum, in another order
    assert judge(Case(0, "eager", ROWS)) == ""
    found = judge(Case(0, "turns", ROWS))
    assert isinstance(found, Divergence) and found.kind == "bits" and "result 1" in found.message
    raised = judge(Case(0, "refuses", ROWS))
    assert isinstance(raised, Divergence) and raised.kind == "raises" and "no such operator" in raised.message
    assert found.resembles(found) and not found.resembles(raised)


def test_the_script_of_a_divergence_shows_it(backends: None) -> None:
    found = judge(Case(0, "turns", ROWS))
    assert isinstance(found, Divergence)
    text = kind_of(["turns"]).script(found)
    with contextlib.redirect_stdout(io.StringIO()) as said, pytest.raises(SystemExit) as ended:
        exec(compile(text, "script", "exec"), {"__name__": "__main__"})
    assert ended.value.code == 1 and "result 0 equal" in said.getvalue() and "result 1 expected" in said.getvalue()


def test_divergences_are_counted_by_peer_and_are_no_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(isolated: Any, case: Case | int) -> Divergence | str:
        asked = isolated._kind.asked(case) if isinstance(case, int) else case
        return Divergence(asked, "values", "result 0: differs") if asked.peer == "eager" else ""

    def run(*_: Any, names: Any, output: Path, journal: Journal, **how: Any) -> PeerReport:
        return run_peers(0.1, names, 0, output, most=4, reduce_seconds=0, journal=journal, before=how["before"])

    run_peers = peers.run_peers
    monkeypatch.setattr("effcc.fuzz.beside.Isolated.judge", judged)
    monkeypatch.setattr(peers, "run_peers", run)
    folder = tmp_path / "found"
    result = CliRunner().invoke(app, ["fuzz", "--only", "peers", "--against", "eager,aot_eager", "-o", str(folder)])
    assert result.exit_code == 0 and "divergences of peers: eager 2" in result.stdout, result.output
    assert sorted(p.name for p in folder.glob("peer_*.py")) == ["peer_0.py", "peer_2.py"]
    before = read_journal(folder)
    assert before.begun == Begun(0, 1.0, "peers", ("eager", "aot_eager")) and [f.seed for f in before.finds] == [0, 2]


def test_an_unknown_peer_is_told_with_those_that_are_known() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'inductor'\? known: .*inductor, .*onnxruntime.*openvino"):
        peers_of("inductr")
    result = CliRunner().invoke(app, ["fuzz", "--against", "nobody"])
    assert result.exit_code == 2 and "unknown peer 'nobody'; known: aot_eager" in result.stderr
    result = CliRunner().invoke(app, ["fuzz", "--only", "peers"])
    assert result.exit_code == 2 and "--against inductor" in result.stderr
    assert peers_of("inductor, eager,inductor") == ("inductor", "eager")


@pytest.mark.parametrize("name", peers.EXPORTING)
def test_an_exported_program_goes_through_a_runtime(name: str) -> None:
    missing = [p for p in peers.EXPORTING[name].needs if importlib.util.find_spec(p) is None]
    if missing:
        result = CliRunner().invoke(app, ["fuzz", "--against", name])
        assert result.exit_code == 2 and f"{name}: expected the packages" in result.stderr
        return
    program = peer_of(name).program(0)
    assert program.export and program.mode == "no_grad"
    assert judge(Case(0, name, Program(**{**vars(ROWS), "export": True}))) == ""

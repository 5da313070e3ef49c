"""Campaigns on several workers: what one found outlives it, and the corpus is shared."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from effcc.cli import app
from effcc.errors import InputError
from effcc.fuzz.campaign import Pace
from effcc.fuzz.distributed import STRIDE, Cluster, Hub, run_distributed
from effcc.fuzz.generate import generate
from effcc.fuzz.journal import Begun, Find, Journal, read_journal
from effcc.fuzz.mutated.corpus import Corpus
from effcc.fuzz.oracles import examine
from effcc.target import Target

HAS_RAY = importlib.util.find_spec("ray") is not None


def test_a_hub_gives_what_others_kept_once_and_all_to_one_that_begins_again() -> None:
    hub = Hub()
    hub.begin(0, 7)
    assert hub.exchange(0, [("1.ir", "a")]) == []
    assert hub.exchange(1, [("2.ir", "b")]) == [("1.ir", "a")] and hub.exchange(1, []) == []
    assert hub.exchange(0, []) == [("2.ir", "b")]
    hub.begin(1, 8)
    assert hub.exchange(1, []) == [("1.ir", "a")]
    hub.tell(1, b"line\n", {"repro.py": "text"})
    assert hub.take() == ([(1, b"line\n", {"repro.py": "text"})], {0: 7, 1: 8}) and hub.take()[0] == []


def test_a_journal_relays_its_lines_with_the_files_that_they_name(tmp_path: Path) -> None:
    told: list[tuple[bytes, tuple[str, ...]]] = []
    with Journal(tmp_path / "a", Begun(7, 1.0), relay=lambda line, files: told.append((line, tuple(files)))) as journal:
        journal.find(Find("graph", 9, {"step": "fuse"}, True, ("repro_9.py",)))
    assert [files for _, files in told] == [(), ("repro_9.py",), ()]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "journal.jsonl").write_bytes(b"".join(line for line, _ in told))
    assert read_journal(tmp_path / "b") == read_journal(tmp_path / "a") and read_journal(tmp_path / "b").finds


def test_two_corpora_exchange_what_they_keep(tmp_path: Path) -> None:
    hub = Hub()
    one = Corpus(tmp_path / "one", lambda kept: hub.exchange(0, kept))
    two = Corpus(tmp_path / "two", lambda kept: hub.exchange(1, kept))
    before = len(two)
    assert one.see(examine(generate(8), Target.detect()))
    one.read_shared()
    two.read_shared()
    assert len(two) == before + 1 and [p.name for p in (tmp_path / "two").iterdir()] == ["8.ir"]
    two.read_shared()
    assert len(two) == before + 1


def test_what_cannot_be_is_told(tmp_path: Path) -> None:
    if not HAS_RAY:
        with pytest.raises(InputError, match="expected the package ray; pip install"), Cluster("local", 2):
            pass
    result = CliRunner().invoke(app, ["fuzz", "--ray", "local", "--only", "programs", "-o", str(tmp_path)])
    assert result.exit_code == 2 and "--ray: expected all doors, graphs or mutated" in result.stderr


@pytest.mark.slow
@pytest.mark.skipif(not HAS_RAY, reason="ray is not installed")
def test_a_worker_that_is_killed_is_begun_again_and_loses_no_find(tmp_path: Path) -> None:
    """Two workers, of which the first is killed once it has told of a batch, as a find is put into its journal."""
    killed: list[int] = []

    def watch(processes: dict[int, int]) -> None:
        folder = tmp_path / "worker-0"
        with contextlib.suppress(InputError):  # nothing is told yet
            before = read_journal(folder)
            if 0 not in processes or killed or not before.graphs:
                return
            with Journal(folder, before.begun, before.began) as journal:
                journal.find(Find("graph", 4, {"step": "fuse", "kind": "wrong result", "message": "planted"}, True))
            os.kill(processes[0], signal.SIGKILL)
            killed.append(processes[0])

    pace = Pace(1, 0, False, False, False, mutants=1, rules=0, encoders=0, sizes=0)
    how = {"most": 4, "others": False, "reduce_seconds": 0}
    report = run_distributed(Begun(3, 10.0, "mutated"), tmp_path, "local", 2, pace, how, watch=watch)
    assert killed and report.restarts == 1 and not report.lost, str(report)
    first, second = (read_journal(tmp_path / f"worker-{k}") for k in range(2))
    assert first.begun.seed == 3 and second.begun.seed == 3 + STRIDE
    assert first.graphs["graphs"] == second.graphs["graphs"] == 4 and report.cases == Counter(graph=8)
    assert first.graphs["next"] == 7 and (4, "planted") in [(f.seed, f.facts["message"]) for f in report.failures]
    assert "1 begun again" in str(report) and report.as_json()["restarts"] == 1

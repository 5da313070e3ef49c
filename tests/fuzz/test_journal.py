"""Journals: a campaign that is killed goes on and loses no find; damaged lines are left out and counted."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from effcc import steps
from effcc.cli import app
from effcc.errors import InputError
from effcc.fuzz import beside, campaign
from effcc.fuzz.beside import Outcomes, recall, run_cases
from effcc.fuzz.campaign import Pace, Report
from effcc.fuzz.journal import NAME, Before, Begun, Door, Find, Journal, read_journal
from effcc.fuzz.oracles import Failure
from effcc.fuzz.programs.campaign import PROGRAMS, ProgramReport
from effcc.fuzz.programs.judge import Failure as ProgramFailure
from effcc.ir.graph import Graph
from effcc.passes.rules.engine import Rewritten, Trace

BEGUN = Begun(7, 2.0, "graphs")
GRAPHS_ALONE = Pace(2, 0, False, False, False, 0, 0, 0)
FIND = Find("graph", 9, {"step": "fuse", "kind": "wrong result", "message": "differs", "schedules": ""})


def _written(folder: Path) -> bytes:
    with Journal(folder, BEGUN) as journal:
        journal.done(1.0, {"next": 9, "graphs": 2}, {"program": Door(8, {"": 1})})
        journal.find(FIND)
        journal.done(2.0, {"next": 11, "graphs": 4}, {"program": Door(9, {"": 2})})
    return (folder / NAME).read_bytes()


def test_a_journal_says_what_was_done_and_found(tmp_path: Path) -> None:
    _written(tmp_path)
    before = read_journal(tmp_path)
    assert (before.begun, before.seconds, before.graphs, before.ended) == (BEGUN, 2.0, {"next": 11, "graphs": 4}, True)
    assert before.finds == [FIND] and before.doors == {"program": Door(9, {"": 2})}
    assert before.told() == "going on with the campaign of seed 7: 2 s done, 118 s left, 1 finds"


def test_of_a_journal_cut_anywhere_all_whole_lines_are_read(tmp_path: Path) -> None:
    content = _written(tmp_path)
    ends = [k + 1 for k, byte in enumerate(content) if byte == 10]
    for cut in range(ends[0], len(content)):
        (tmp_path / NAME).write_bytes(content[:cut])
        before = read_journal(tmp_path)
        whole = sum(end - 1 <= cut for end in ends)
        assert before.damaged == (0 if cut in ends or cut + 1 in ends else 1)
        assert (before.finds == [FIND]) == (whole >= 3) and len(before.history) == (whole >= 2) + (whole >= 4)
    (tmp_path / NAME).write_bytes(content[:-9])
    with Journal(tmp_path, before.begun, before.began) as journal:  # goes on behind the last, damaged line
        journal.find(Find("graph", 10, FIND.facts))
    again = read_journal(tmp_path)
    assert [f.seed for f in again.finds] == [9, 10] and again.damaged == 1


def test_damaged_lines_and_missing_files_are_told(tmp_path: Path) -> None:
    lines = _written(tmp_path).splitlines(keepends=True)
    lines[1] = lines[1].replace(b"1.0", b"7.0")  # its checksum is another one now
    (tmp_path / NAME).write_bytes(b"".join([*lines, b"\xff\x00\n", b"00000000 \n", b"[]\n"]))
    with Journal(tmp_path, BEGUN, read_journal(tmp_path).began) as journal:
        journal.find(Find("graph", 12, FIND.facts, True, ("repro_12.py",)))
    before = read_journal(tmp_path)
    assert before.damaged == 4 and before.missing == 1 and before.seconds == 2.0
    assert "4 damaged lines" in before.told() and "1 files of finds are missing" in before.told()


def test_what_is_no_journal_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["fuzz", "--resume", str(tmp_path)])
    assert result.exit_code == 2 and f"{NAME}: expected the journal of a campaign to go on with" in result.stderr
    (tmp_path / NAME).write_text("nothing\n")
    result = CliRunner().invoke(app, ["fuzz", "--resume", str(tmp_path)])
    assert result.exit_code == 2 and "1 of 1 lines are damaged" in result.stderr
    result = CliRunner().invoke(app, ["fuzz", "--only", "windows"])
    assert result.exit_code == 2 and "unknown door 'windows'" in result.stderr
    result = CliRunner().invoke(app, ["fuzz", "--only", "graphs", "--programs"])
    assert result.exit_code == 2 and "one door alone, got graphs, programs" in result.stderr


def test_two_campaigns_do_not_write_one_journal(tmp_path: Path) -> None:
    with Journal(tmp_path, BEGUN):
        child = os.fork()
        if child == 0:
            try:
                Journal(tmp_path, BEGUN)
            except InputError as error:
                os._exit(7 if "another campaign" in str(error) else 8)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def _run(folder: Path, before: Before | None, most: int) -> Report:
    with Journal(folder, BEGUN, before.began if before else None) as journal:
        return campaign.run(
            10, BEGUN.seed, folder, most=most, others=False, progress=False, pace=GRAPHS_ALONE, journal=journal,
            before=before,
        )  # fmt: skip


def test_a_campaign_that_is_killed_goes_on_and_loses_no_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: Graph, fast_math: bool, trace: Trace | None) -> Rewritten:
        if len(graph.nodes) % 2:
            raise RuntimeError("a planted error")
        return simplify(graph, fast_math, trace)

    def forever(failure: Failure, *_: object) -> Failure:
        if len(read_journal(tmp_path).finds) == 2:
            time.sleep(600)
        return failure

    simplify = steps.simplify_counted
    monkeypatch.setattr(steps, "simplify_counted", broken)
    monkeypatch.setattr(campaign, "reduce", forever)
    for made in ("native", "native_with_fault"):  # no compiled code: the error comes before
        monkeypatch.setattr(campaign, made, lambda examined: None)
    child = os.fork()
    if child == 0:
        _run(tmp_path, None, 100)
        os._exit(0)
    finds = 0
    while finds < 2:
        time.sleep(0.02)
        with contextlib.suppress(InputError):  # nothing is written yet
            finds = len(read_journal(tmp_path).finds)
    os.kill(child, signal.SIGKILL)  # while the second find is reduced
    os.waitpid(child, 0)

    killed = read_journal(tmp_path)
    assert not killed.ended and [f.reduced for f in killed.finds] == [True, False]
    assert all((tmp_path / f"repro_{f.seed}.py").is_file() for f in killed.finds)
    monkeypatch.setattr(campaign, "reduce", lambda failure, *_: failure)
    report = _run(tmp_path, killed, 8)
    seeds = [f.case.seed for f in report.failures]
    wrong = [n for n in range(7, 15) if any(f.seed == n for f in read_journal(tmp_path).finds)]
    assert report.graphs == 8 and seeds == wrong and len(set(seeds)) == len(seeds)
    assert {f.seed for f in killed.finds} < set(seeds)
    ended = read_journal(tmp_path)
    assert ended.ended and all(f.reduced for f in ended.finds) and ended.graphs["next"] == 15
    whole = _run(tmp_path / "whole", None, 8)
    assert [f.case.seed for f in whole.failures] == seeds and whole.ops == report.ops


def test_programs_that_failed_are_written_as_they_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        def __init__(self, kind: object) -> None: ...
        def __enter__(self) -> Wrong:
            return self

        def __exit__(self, *_: object) -> None: ...
        def judge(self, case: int) -> ProgramFailure | str:
            return ProgramFailure(PROGRAMS.draw(case), "values", "result 0: differs") if case % 2 else ""

    def killed(*_: object) -> ProgramFailure:
        raise KeyboardInterrupt

    monkeypatch.setattr(beside, "Isolated", Wrong)
    monkeypatch.setattr(beside, "reduce", killed)
    report: Outcomes[ProgramFailure] = ProgramReport(0)
    with pytest.raises(KeyboardInterrupt), Journal(tmp_path, Begun(0, 1.0, "programs")) as journal:
        run_cases(PROGRAMS, report, lambda: False, 1.0, 0, tmp_path, 1.0, journal)
    before = read_journal(tmp_path)
    assert [f.seed for f in before.finds] == [1] and (tmp_path / "program_1.py").is_file() and not before.ended

    again = ProgramReport(0)
    assert recall(PROGRAMS, again, before, tmp_path) == 1  # whose find is written, but it is not done
    monkeypatch.setattr(beside, "reduce", lambda kind, failure, judged, seconds: failure)
    report = ProgramReport(0)
    with Journal(tmp_path, before.begun, before.began) as journal:
        run_cases(PROGRAMS, report, lambda: report.programs >= 4, 1.0, 0, tmp_path, 1.0, journal, before)
    assert [f.case.seed for f in report.failures] == [1, 3] and report.counts["failed"] == 2
    assert [f.name for f in report.files] == ["program_1.py", "program_3.py"]


@pytest.mark.parametrize("begun", [BEGUN, Begun(7, 2.0, "programs", operators="shipped")])
def test_a_journal_says_how_its_campaign_was_called(begun: Begun, tmp_path: Path) -> None:
    with Journal(tmp_path, begun):
        pass
    assert read_journal(tmp_path).begun == begun

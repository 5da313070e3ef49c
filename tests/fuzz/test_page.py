"""The page of a campaign: from its journal alone, while it goes on and when it has ended, and in a browser."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from effcc.cli import app
from effcc.errors import InputError
from effcc.fuzz import branches, campaign
from effcc.fuzz.campaign import Pace
from effcc.fuzz.journal import NAME, Begun, Door, Find, Journal, read_journal
from effcc.fuzz.page import Pages, page_text, write_page
from tests.page.test_browser import BROWSER, browse

FINDS = (
    Find("graph", 9, {"step": "fuse", "kind": "wrong result", "message": "a < b"}, True, ("fuzz_9.ir", "repro_9.py")),
    Find("graph", 11, {"step": "fuse", "kind": "wrong result", "message": "again"}, True),
    Find("program", 3, {"kind": "bits", "message": "differs"}),
    Find("peer", 4, {"kind": "values", "message": "of a peer"}, True, ("peer_4.py",)),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    new = iter([[1, 2], [2, 5, 7]])
    monkeypatch.setattr(branches, "marking", lambda: True)
    monkeypatch.setattr(branches, "fresh", lambda: next(new))
    with Journal(tmp_path, Begun(7, 1.0, "all", ("inductor",))) as journal:
        graphs = {"next": 9, "graphs": 40, "ops": {"exp": 3, "add": 2}}
        journal.done(60.0, graphs, {"program": Door(8, {"": 5, "refused": 1})}, [("exp", "add")])
        for find in FINDS:
            journal.find(find)
        more = {"next": 19, "graphs": 90, "ops": {"exp": 3, "add": 4, "sum": 1}}
        journal.done(120.0, more, {"program": Door(12, {"": 9, "refused": 1})}, [("add", "sum")])
    return tmp_path


def test_the_page_says_what_was_reached_and_found(folder: Path) -> None:
    before = read_journal(folder)
    assert [(m.branches, m.ops, m.pairs, m.cases) for m in before.history] == [
        (2, 2, 1, {"graph": 40, "program": 6}),
        (4, 3, 2, {"graph": 90, "program": 10}),
    ]
    text = page_text(before)
    assert f"4 of {branches.total():,}" in text and "2 pairs, 3 operators" in text
    assert "<td>90</td><td>45.0</td><td>2</td>" in text and "<td>10</td><td>5.0</td><td>1</td>" in text
    assert "1 refused" in text and "a &lt; b" in text and "repro_9.py" in text and "a < b" not in text
    failures, divergences = text.split('id="failures"')[1].split('id="divergences"')
    assert "<td>2</td>" in failures and "of a peer" not in failures and "of a peer" in divergences
    assert 'http-equiv="refresh"' not in text and "2.0 minutes, ended" in text


def test_a_page_of_a_campaign_that_goes_on_loads_itself_again(folder: Path) -> None:
    with Journal(folder, Begun(7, 1.0), read_journal(folder).began):
        assert 'http-equiv="refresh" content="30"' in write_page(folder, folder / "page.html").read_text()
    (folder / NAME).write_bytes((folder / NAME).read_bytes() + b"half a li")
    assert "1 damaged lines of the journal left out" in page_text(read_journal(folder))


def test_pages_are_written_every_now_and_then_and_at_the_end(folder: Path) -> None:
    path = folder / "page.html"
    with Pages(folder, path, every=0.01):
        path.unlink()
        while not path.is_file():
            time.sleep(0.01)
        path.unlink()
    assert path.read_text().endswith("</html>\n")
    with pytest.raises(InputError, match="expected a file that can be written"), Pages(folder, folder / "no" / "p"):
        pass


def test_a_campaign_writes_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "Pace", lambda **_: Pace(1, 0, False, False, False, rules=0, encoders=0, sizes=0))
    command = [
        "fuzz",
        "--only",
        "graphs",
        "--minutes",
        "0",
        "--seed",
        "8",
        "-o",
        str(tmp_path),
        "--html",
        str(tmp_path / "p.html"),
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "p.html").read_text()
    assert "<th>graph</th><td>1</td>" in text and "ended" in text
    assert f"{len(read_journal(tmp_path).pairs)} pairs" in text and read_journal(tmp_path).pairs


SEEN = """
const seen = {};
seen.back = getComputedStyle(document.body).backgroundColor;
seen.wider = document.documentElement.scrollWidth - innerWidth;
seen.heights = [...document.querySelectorAll("path.curve")].map((e) => Math.round(e.getBBox().height));
seen.squares = document.querySelectorAll(".matrix rect").length;
seen.inks = [getComputedStyle(document.querySelector("path.curve")).stroke, getComputedStyle(document.body).color];
document.title = JSON.stringify(seen);
"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium on the path")
@pytest.mark.parametrize(("width", "dark"), [(1600, False), (600, True)])
def test_the_page_in_a_browser(folder: Path, width: int, dark: bool) -> None:
    page = write_page(folder, folder / "page.html")
    page.write_text(page.read_text().replace("style-src", "script-src 'unsafe-inline'; style-src"))
    seen = browse(page, SEEN, width, dark=dark)
    light = sum(int(n) for n in seen["back"][4:-1].split(",")[:3]) / 3
    assert light < 60 if dark else light > 200
    assert seen["wider"] <= 0 and seen["squares"] == 2
    assert seen["heights"] == [100] * 4  # each curve goes from nothing to the top
    assert len({*seen["inks"], seen["back"]}) == 3

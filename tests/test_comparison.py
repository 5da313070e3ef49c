"""A comparison pairs kernels by what they compute, and tells what differs and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from effcc.cli import app
from effcc.comparison import MOST_LINES, compare, difference
from effcc.explanation import Explanation, explain_file
from effcc.page import page_text
from effcc.target import generic

ONE = """graph @one(%x: f32[64,32], weight %w: f32[48,32]) {
  %p = linear %x, %w : f32[64,48]
  %y = softmax %p {axis=1, safe=false} : f32[64,48]
  return %y
}"""
TWO = """graph @two(%x: f32[64,32], weight %w: f32[48,32], weight %v: f32[16,48]) {
  %p = linear %x, %w : f32[64,48]
  %y = softmax %p {axis=1, safe=false} : f32[64,48]
  %z = linear %y, %v : f32[64,16]
  return %z
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("compared")
    (made / "one.ir").write_text(ONE)
    (made / "two.ir").write_text(TWO)
    return made


def explained(folder: Path, name: str, target: str = "avx512") -> Explanation:
    return explain_file(folder / f"{name}.ir", target=generic(target), measure=False)


def test_a_compile_does_not_differ_from_itself(folder: Path) -> None:
    one = explained(folder, "one")
    (program,) = compare(one, explained(folder, "one")).programs
    assert len(program.pairs) == 2 and program.graph == ""
    assert all(p.before == p.after and not p.changes for p in program.pairs)
    assert all(a == b for a, b in program.figures.values())


def test_another_target_changes_schedules_and_code_and_not_the_graph(folder: Path) -> None:
    (program,) = compare(explained(folder, "one", "avx2"), explained(folder, "one")).programs
    assert [p.before for p in program.pairs] == [p.after for p in program.pairs]
    product = next(p for p in program.pairs if p.after == "linear")
    assert product.changes.keys() >= {"schedule", "C++"}
    assert "f32x<16>" in product.changes["C++"] and "f32x<8>" in product.changes["C++"]
    assert program.graph == ""
    assert "avx2" in program.before and "avx512" in program.after


def test_a_kernel_that_is_new_has_no_partner(folder: Path) -> None:
    one, two = explained(folder, "one"), explained(folder, "two")
    (program,) = compare(one, two).programs
    assert len(two.programs[0].kernels) == 3
    assert [bool(p.before) for p in program.pairs].count(False) == 1
    assert "+%z = linear %y" in program.graph
    (program,) = compare(two, one).programs
    assert [bool(p.after) for p in program.pairs].count(False) == 1
    gone = compare(one, replace(one, programs=())).programs[0]
    assert gone.after == "" and all(not p.after for p in gone.pairs)


def test_times_are_told_before_and_after(folder: Path) -> None:
    one = explained(folder, "one")
    (program,) = one.programs

    def timed(seconds: float) -> Explanation:
        kernels = tuple(replace(k, measured=seconds) for k in program.kernels)
        steps = tuple(replace(s, measured=seconds) for s in program.steps)
        return replace(one, programs=(replace(program, kernels=kernels, steps=steps),))

    comparison = compare(timed(4e-6), timed(1e-6))
    assert comparison.programs[0].figures["seconds"] == (8e-6, 2e-6)
    text = str(comparison)
    assert "seconds (us): 8.0 -> 2.0" in text and "@linear -> @linear: 4.0 -> 1.0 us" in text
    page = page_text(timed(1e-6), timed(4e-6))
    assert "<td>8.0 us</td><td>2.0 us</td><td>0.25</td>" in page


def test_long_differences_end_with_how_much_is_left_out() -> None:
    before = "\n".join(f"a{n}" for n in range(1000))
    text = difference(before, before.replace("a", "b")).splitlines()
    assert len(text) == MOST_LINES + 1 and text[-1] == f"... {2001 - MOST_LINES} lines more"


@pytest.mark.parametrize("options", [["--against", "two.ir"], ["--against-target", "scalar"], ["--against-fast-math"]])
def test_the_command_compares(folder: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    monkeypatch.chdir(folder)
    arguments = ["explain", "one.ir", "--no-measure", *options]
    printed = CliRunner().invoke(app, arguments)
    assert printed.exit_code == 0, printed.output
    assert printed.stdout.startswith("before: ")
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert {p["after"] for p in found["programs"][0]["pairs"]} >= {"linear"}
    assert CliRunner().invoke(app, [*arguments, "--html", "page.html"]).exit_code == 0
    assert "Before and after" in Path("page.html").read_text()

"""Mutants: each change gives a case that runs, changed passes compute what they did, and what is new is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner

from effcc.cli import app
from effcc.fuzz import campaign
from effcc.fuzz import changed_passes as passes
from effcc.fuzz.campaign import Pace
from effcc.fuzz.changed_passes import draw_passes, steps_of
from effcc.fuzz.generate import Case, case_of, generate
from effcc.fuzz.journal import read_journal
from effcc.fuzz.mutated.corpus import Corpus, features
from effcc.fuzz.mutated.draft import Draft
from effcc.fuzz.mutated.graphs import CHANGES, NO_CASE, mutant
from effcc.fuzz.oracles import Failure, examine
from effcc.fuzz.reduce import reduce
from effcc.fuzz.repro import write_failure
from effcc.fuzz.thresholds import THRESHOLDS, draw_thresholds, thresholds
from effcc.ir.kernel import Kernel
from effcc.ir.parser import parse_graph
from effcc.ir.printer import print_graph
from effcc.ir.table import movement
from effcc.ir.verifier import verify_graph
from effcc.steps import STEPS, passes_of
from effcc.target import Target

PARENT = """graph @g(%x: f32[4,6], weight %w: f32[5,6], %i: i64[3]) {
  %t = tanh %x : f32[4,6]
  %l = linear %t, %w : f32[4,5]
  %a = sub %t, %x : f32[4,6]
  %p = index_select %a, %i {axis=0} : f32[3,6]
  %s = sum %a {axes=[1], keepdim=false} : f32[4]
  return %s, %l, %p
}"""


def _other() -> Case:
    return case_of(parse_graph("graph @o(%a: f32[4,6], %b: f32[6]) { %m = mul %a, %b : f32[4,6] return %m }"))


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_gives_other_cases_that_run(name: str) -> None:
    parent = case_of(parse_graph(PARENT))
    texts = set()
    for seed in range(25):
        draft = Draft.of(parent, seed)
        try:
            CHANGES[name](draft, Random(seed), _other)
            case = draft.built(Random(seed))
        except NO_CASE:
            continue
        verify_graph(case.graph)
        assert len(case.run()) == len(case.graph.results) and case.seed == seed
        texts.add(print_graph(replace(case.graph, name="g")))
    assert len(texts - {print_graph(parent.graph)}) >= 2


def test_positions_stay_inside() -> None:
    parent = case_of(parse_graph(PARENT))
    for seed in range(40):
        case, _ = mutant(parent, seed, Random(seed), _other)
        for node in case.graph.nodes:
            if node.op == "index_select" and node.operands[1] in case.graph.params:
                held = case.inputs[case.graph.params.index(node.operands[1])]
                size = node.operands[0].type.shape[node.attrs["axis"]]
                assert not held.size or 0 <= held.min() <= held.max() < size


def test_a_mutant_of_a_seed_is_one(tmp_path: Path) -> None:
    one, two = Corpus().draw(5), Corpus().draw(5)
    assert print_graph(one.graph) == print_graph(two.graph) and one.passes == two.passes


def test_every_change_of_passes_names_passes_that_there_are() -> None:
    known = [name for step in STEPS for name in passes_of(step)]
    assert {*passes.OPTIONAL, *passes.REPEATED, *passes.SWAPPED} <= set(known) and passes.AFTER in STEPS
    drawn = {change for seed in range(300) for change in draw_passes(Random(seed))}
    ways = (("drop", passes.OPTIONAL), ("again", passes.REPEATED), ("swap", passes.SWAPPED))
    assert drawn == {f"{way} {name}" for way, names in ways for name in names} | set(passes.KERNELS)
    assert steps_of((), 0) is STEPS
    changed = steps_of(("drop share_rows", "again inline", "swap share_inputs", "commute"), 0)
    assert list(changed["arrange"].passes)[4:] == ["widen_rows", "cut_long_spans", "share_inputs", "turn_columns"]
    assert list(changed["inline"].passes) == ["inline", "inline again"]
    assert list(changed)[list(changed).index("fuse") + 1] == "commute"


@pytest.mark.parametrize("change", [("commute", "reorder"), ("drop simplify", "drop inline", "drop online")])
def test_changed_passes_compute_what_they_did(change: tuple[str, ...]) -> None:
    case = replace(case_of(parse_graph(PARENT), seed=1), passes=change)
    examined = examine(case, Target.detect())
    assert examined.failure is None
    plain = examine(replace(case, passes=()), Target.detect())
    assert str(examined.state.source) != str(plain.state.source)


def test_a_bug_behind_a_changed_pass_is_found_and_reduced_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(kernel: Kernel, random: Random) -> Kernel:
        statements = kernel.statements
        return replace(kernel, statements=(*statements[:-1], replace(statements[-1], axes=statements[-1].axes[::-1])))

    monkeypatch.setitem(passes._KERNEL_CHANGES, "reorder", wrong)
    square = parse_graph("graph @g(%x: f32[4,4]) { %t = tanh %x : f32[4,4] %e = exp %t : f32[4,4] return %e }")
    case = replace(case_of(square, seed=1), passes=("commute", "drop online", "reorder"))

    def check(case: Case) -> Failure | None:
        return examine(case, Target.detect()).failure

    failure = check(case)
    assert failure is not None and failure.step == "reorder"
    small = reduce(failure, check, 20)
    assert small.case.passes == ("reorder",) and len(small.case.graph.nodes) == 1
    ir, _ = write_failure(small, tmp_path)
    assert "# with these passes: reorder" in ir.read_text()


def test_what_reaches_something_new_is_kept_and_read_again(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    before = len(corpus)
    examined = examine(generate(8), Target.detect())
    assert features(examined) and corpus.see(examined) and not corpus.see(examined)
    assert len(corpus) == before + 1 and [p.name for p in tmp_path.iterdir()] == ["8.ir"]
    (tmp_path / "broken.ir").write_text("graph @g(%x: f32[3]) { return %y }")
    (tmp_path / "binary.ir").write_bytes(b"\xff\xfe\x00")
    again = Corpus(tmp_path)
    assert len(again) == before + 1
    assert sorted(told.split(":")[0] for told in again.damaged) == ["binary.ir", "broken.ir"]


def test_the_door_of_mutants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "Pace", lambda **how: Pace(batch=2, **how))
    monkeypatch.setattr(campaign, "native", lambda examined: None)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "broken.ir").write_text("nothing")
    result = CliRunner().invoke(app, ["fuzz", "--only", "mutated", "--minutes", "0", "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    graphs = read_journal(tmp_path).graphs
    assert graphs["mutants"] == graphs["graphs"] > 0
    assert "1 files of the corpus are damaged and left out" in result.stdout and "broken.ir" in result.stdout
    assert list((tmp_path / "corpus").glob("[0-9]*.ir"))


def test_every_threshold_is_one_and_is_left_as_it_was() -> None:
    drawn = {c.partition("=")[0] for seed in range(60) for c in draw_thresholds(Random(seed))}
    assert drawn == {f"set {name}" for name in THRESHOLDS}
    with thresholds(tuple(f"set {name}={values[0]}" for name, values in THRESHOLDS.items())):
        assert movement.MOST_PIECES == 2
        with thresholds(("set ir.table.movement.MOST_PIECES=3",)):
            assert movement.MOST_PIECES == 3
        assert movement.MOST_PIECES == 2
    assert movement.MOST_PIECES == 16


def test_a_threshold_changes_what_is_made_and_not_what_it_computes() -> None:
    operands = ", ".join(f"%x{k}: f32[1]" for k in range(7))
    names = ", ".join(f"%x{k}" for k in range(7))
    graph = parse_graph(f"graph @joined({operands}) {{ %y = concat {names} {{axis=0}} : f32[7] return %y }}")
    case = case_of(graph, seed=2)
    plain = examine(case, Target.detect())
    grouped = examine(replace(case, passes=("set ir.table.movement.MOST_PIECES=2",)), Target.detect())
    assert plain.failure is None and grouped.failure is None
    assert str(plain.state.source) != str(grouped.state.source)

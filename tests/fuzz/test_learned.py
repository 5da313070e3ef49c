"""Learned operators: rules are inferred from records, trivial ones are not taken, files are read as far as they are
whole, and programs drawn from rules are such as eager runs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from effcc.cli import app
from effcc.fuzz.learned.dtypes import infer_types
from effcc.fuzz.learned.explore import explore, left_out
from effcc.fuzz.learned.formula import FormulaError, Undefined, broadcast, check, holds, value
from effcc.fuzz.learned.infer import Learned, infer
from effcc.fuzz.learned.record import Array, DamagedError, Name, Record
from effcc.fuzz.learned.record_file import read_records, write_records
from effcc.fuzz.learned.rule import Concrete, Rule
from effcc.fuzz.learned.rule_file import SHIPPED, OperatorsError, read_operators, text_of
from effcc.fuzz.learned.structure import key, slots
from effcc.fuzz.learned.tracing import UnknownSourceError, trace
from effcc.fuzz.programs import learned as programs
from effcc.fuzz.programs.calling import Seen, eager, observe
from effcc.fuzz.programs.draw import LEARNED_EVERY, draw

Shape = tuple[int, ...]


def record(operator: str, given: dict[str, Any], gives: Callable[[], Shape | None]) -> Record:
    """A record of a call whose tensors have these shapes; `gives` says the result's, or None if it is refused."""
    arguments = {n: Array("f32", v) if isinstance(v, tuple) else v for n, v in given.items()}
    shape = gives()
    return Record(operator, arguments, None if shape is None else (Array("f32", shape),))


def matmuls() -> Iterator[Record]:
    for n, k, m, other in itertools.product((1, 2, 5), (2, 3), (1, 4, 6), (0, 1)):
        given = {"self": (n, k), "mat2": (k + other, m)}
        yield record("aten.mm.default", given, lambda n=n, m=m, o=other: None if o else (n, m))


def sums() -> Iterator[Record]:
    shapes = [(), (1,), (3,), (4,), (2, 3), (2, 1), (1, 3), (4, 3), (2, 4, 3), (1, 1, 4), (2, 1, 1)]
    for a, b in itertools.product(shapes, repeat=2):
        yield record("aten.add.Tensor", {"self": a, "other": b}, lambda a=a, b=b: _broadcast(a, b))


def _broadcast(*shapes: Shape) -> Shape | None:
    try:
        return broadcast(*shapes)
    except Undefined:
        return None


def cats() -> Iterator[Record]:
    for a, b, c, d in itertools.product((1, 2, 4), (3, 5), (1, 2, 6), (3, 5)):
        arguments = {"tensors": (Array("f32", (a, b)), Array("f32", (c, d)))}
        results = (Array("f32", (a + c, b)),) if b == d else None
        yield Record("aten.cat.default", arguments, results)


def convolutions() -> Iterator[Record]:
    for size, kernel, stride, padding, wrong in itertools.product((4, 7, 9), (1, 3, 5), (1, 2, 3), (0, 1, 2), (0, 1)):
        given = {"input": (2, 3, size), "weight": (size - 2, 3 + wrong, kernel), "stride": (stride,)}
        arguments: dict[str, Any] = {n: Array("f32", s) for n, s in given.items() if n != "stride"}
        arguments |= {"stride": (stride,), "padding": (padding,)}
        width = (size + 2 * padding - kernel) // stride + 1
        accepted = not wrong and size + 2 * padding >= kernel
        results = (Array("f32", (2, size - 2, width)),) if accepted else None
        yield Record("aten.conv1d.default", arguments, results)


def only_rule(found: Learned) -> Rule:
    assert len(found.rules) == 1 and not found.concrete
    return found.rules[0]


def test_matmul_needs_equal_inner_sizes() -> None:
    rule = only_rule(infer("aten.mm.default", matmuls()))
    assert rule.needs == ("self_1 == mat2_0",) and rule.gives == ("[self_0, mat2_1]",)


def test_broadcasting_is_found_for_any_rank() -> None:
    rule = only_rule(infer("aten.add.Tensor", sums()))
    assert rule.any_rank and rule.needs == ("broadcastable(self, other)",) and rule.gives == ("broadcast(self, other)",)


def test_cat_adds_sizes_up() -> None:
    rule = only_rule(infer("aten.cat.default", cats()))
    assert rule.gives == ("[tensors_0_0 + tensors_1_0, tensors_0_1]",)
    assert rule.needs == ("tensors_0_1 == tensors_1_1",)


def test_windows_of_convolutions_are_found() -> None:
    rule = only_rule(infer("aten.conv1d.default", convolutions()))
    # A kernel, stride and padding that none of the records has.
    given = {"input_0": 2, "input_1": 3, "input_2": 50, "weight_0": 8, "weight_1": 3, "weight_2": 11, "stride_0": 4}
    assert value(rule.gives[0], {**given, "padding_0": 5})[2] == (50 + 10 - 11) // 4 + 1
    facts = {**given, "padding_0": 0, "input": (2, 3, 50), "weight": (8, 3, 11)}
    assert rule.accepts(facts)
    assert not rule.accepts({**facts, "weight_1": 4, "weight": (8, 4, 11)})
    assert not rule.accepts({**facts, "input_2": 9, "input": (2, 3, 9)})


def test_a_rule_that_refuses_nothing_does_not_stand_where_eager_does() -> None:
    """Whether these are accepted depends on nothing that is recorded."""
    calls = [({"self": (n, m)}, (n + m) % 2 or (n, m) == (2, 2)) for n in range(1, 9) for m in range(1, 9)]
    chance = iter("0110100110010110" * 8)
    records = [record("aten.neg.default", g, lambda s=g["self"]: s if next(chance) == "1" else None) for g, _ in calls]
    assert {r.accepted for r in records} == {True, False}
    found = infer("aten.neg.default", records)
    assert not found.rules and len(found.concrete) == 1


def test_rules_are_judged_on_records_that_they_were_not_inferred_from() -> None:
    found = infer("aten.mm.default", matmuls())
    assert (found.score.of_valid, found.score.of_invalid) == (5, 5)
    assert found.score.valid == 5 and found.score.invalid == 5


def test_of_numbers_that_are_no_sizes_those_accepted_are_told() -> None:
    """Of an operator that refuses negative slopes."""
    calls = itertools.product(range(1, 8), range(1, 4), (0.5, 2.0, -1.0))
    records = [record("aten.leaky_relu.default", {"self": (n, m), "negative_slope": p},
                      lambda n=n, m=m, p=p: (n, m) if p > 0 else None) for n, m, p in calls]  # fmt: skip
    rule = only_rule(infer("aten.leaky_relu.default", records))
    assert dict(rule.slots)["negative_slope"].literal == (0.5, 2.0) and not rule.needs


def test_dtypes_go_together_as_eager_accepts_them() -> None:
    def called(a: str, b: str, result: str | None) -> Record:
        arguments = {"self": Array(a, (2, 2)), "mat2": Array(b, (2, 2))}
        return Record("aten.mm.default", arguments, result and (Array(result, (2, 2)),))  # type: ignore[arg-type]

    alike = infer_types([called("f32", "f32", "f32"), called("i64", "i64", "i64"), called("f32", "i64", None)])
    assert (
        alike is not None
        and alike.allowed == (("self", ("f32", "i64")), ("mat2", "self"))
        and alike.results == ("self",)
    )
    mixed = infer_types([called("f32", "f32", "f32"), called("f32", "f64", "f64"), called("f64", "f32", "f64")])
    assert mixed is not None and mixed.results == ("promoted",)


# Exploring ------------------------------------------------------------------------------------------------------------


def test_an_explored_operator_has_a_rule_that_eager_agrees_with() -> None:
    seed = {"self": Array("f32", (2, 3, 4)), "mat2": Array("f32", (2, 4, 3))}
    explored = explore("aten.bmm.default", {key(slots("aten.bmm.default", seed)): [seed]}, tries=60)
    assert any(not r.accepted for r in explored.records) and not explored.left_out
    rule = infer("aten.bmm.default", explored.records).rules[0]
    assert set(rule.needs) == {"self_0 == mat2_0", "self_2 == mat2_1"} and rule.gives == ("[self_0, self_1, mat2_2]",)


@pytest.mark.parametrize(
    ("operator", "why"),
    [
        ("aten.rand_like.default", "random"), ("aten.nonzero.default", "sizes of the result depend on values"),
        ("aten.empty_like.default", "contents undefined"), ("aten.add.out", "the `out=` form of another"),
        ("aten.no_such_thing.default", "not in this PyTorch"), ("aten.add.Tensor", ""),
    ],
)  # fmt: skip
def test_operators_are_left_out_for_a_reason(operator: str, why: str) -> None:
    assert left_out(operator) == why


def test_a_call_that_gives_other_values_each_time_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from effcc.fuzz.learned import explore as exploring

    monkeypatch.setattr(exploring, "call", lambda operator, given: torch.rand(3))
    found = explore("aten.neg.default", {(): [{"self": Array("f32", (3,))}]}, tries=2)
    assert found.left_out == "gives other values each time" and not found.records


# Files ----------------------------------------------------------------------------------------------------------------


def test_a_record_is_read_back_as_it_was() -> None:
    arguments = {
        "self": Array("bf16", (2, 3), (1, 2), "unit"), "tensors": (Array("i64", ()), None), "dim": (0, -1), "p": 0.5,
        "dtype": Name("torch.float32"), "mode": "sum", "keepdim": True,
    }  # fmt: skip
    for results in (None, (Array("f32", (0,)),)):
        one = Record("aten.add.Tensor", arguments, results, base=True)
        assert Record.parse(one.text) == one
    with pytest.raises(DamagedError):
        Record.parse(one.text.replace("bf16", "f32"))


def test_what_is_damaged_of_a_trace_is_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "calls.trace"
    records = list(matmuls())[:6]
    write_records(path, records)
    assert read_records(path).records == records
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace("[2,1]", "[3,1]", 1).replace("[", "{", 1)
    path.write_text("\n".join(lines)[:-9])  # the last one is cut off
    read = read_records(path)
    assert read.records == [records[0], *records[2:5]] and read.damaged == 2 and not read.skipped


@pytest.mark.parametrize(
    ("head", "told"),
    [("effcc trace, version 0", "is a trace of version 0, expected version 1"), ("PK\x03", "expected a trace")],
)
def test_a_trace_of_another_version_is_skipped_and_told(tmp_path: Path, head: str, told: str) -> None:
    path = tmp_path / "old.trace"
    write_records(path, matmuls())
    path.write_text("\n".join([head, *path.read_text().splitlines()[1:]]))
    read = read_records(path)
    assert not read.records and told in read.skipped
    found = trace([str(path)])
    assert not found.records and found.skipped == [read.skipped]


def test_a_trace_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "calls.trace"
    path.write_text("before")

    def broken() -> Iterator[Record]:
        yield next(matmuls())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_records(path, broken())
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(UnknownSourceError, match=r"expected opdb, models, or the file"):
        trace(["opbd"])


def test_learned_operators_are_read_back_as_they_were(tmp_path: Path) -> None:
    rules = [*infer("aten.mm.default", matmuls()).rules, *infer("aten.cat.default", cats()).rules]
    call = Concrete("aten.sum.dim_IntList", {"self": Array("f32", (2, 3), (1, 2)), "dim": (0,)}, (Array("f32", (3,)),))
    path = tmp_path / "operators.txt"
    path.write_text(text_of(rules, [call], "by hand"))
    found = read_operators(path)
    assert found.rules == rules and found.concrete == [call] and not found.damaged
    path.write_text(path.read_text().replace("self_1 == mat2_0", "__import__('os').abort()"))
    assert len(read_operators(path).rules) == 1 and "a formula has" in read_operators(path).damaged[0]
    path.write_text("something else")
    with pytest.raises(OperatorsError, match="expected learned operators of version 1"):
        read_operators(path)


@pytest.mark.parametrize("text", ["().__class__", "open('x')", "[n for n in self]", "lambda: 1", "1 +", "'a'", "2.5"])
def test_a_formula_is_no_program(text: str) -> None:
    with pytest.raises(FormulaError):
        check(text)


def test_a_condition_without_a_value_does_not_hold() -> None:
    assert not holds("self_0 // groups >= 0", {"self_0": 3, "groups": 0})
    assert not holds("missing == 1", {})


# Programs -------------------------------------------------------------------------------------------------------------


def test_the_shipped_operators_are_enough_and_whole() -> None:
    found = read_operators(SHIPPED)
    named = {one.operator for one in (*found.rules, *found.concrete)}
    assert len(named) >= 400 and len({r.operator for r in found.rules}) >= 400 and not found.damaged
    assert SHIPPED.read_text().splitlines()[1].startswith("# effcc fuzz trace --from opdb,models")


def test_programs_of_learned_operators_are_such_as_eager_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any("torch.ops.aten." in line for line in draw(LEARNED_EVERY - 1).lines), "nobody asked for them"
    monkeypatch.setenv(programs.FILE, str(SHIPPED))
    called = 0
    for seed in range(LEARNED_EVERY - 1, 12 * LEARNED_EVERY, LEARNED_EVERY):
        case = draw(seed)
        assert case == draw(seed)
        called += sum("torch.ops.aten." in line for line in case.lines)
        mode = "autocast" if case.mode.startswith("autocast") else "no_grad"
        forward = replace(case, mode=mode, learned=())  # not every gradient exists
        assert len(case.calls) > 1 or all(isinstance(s, Seen) for s in observe(forward, forward.load(), eager))
    assert called >= 30


def test_most_calls_drawn_from_rules_are_accepted() -> None:
    """Of rules without conditions on values; what eager refuses is drawn again."""
    from random import Random

    from effcc.fuzz.programs import draw as drawing

    drawn = accepted = 0
    for number, of_one in enumerate(programs.by_operator()[::7]):
        one = drawing._Draw(Random(number), number)
        one.mode, one.way, one.export, one.calm = "no_grad", "traced", False, True
        one.envs, one.sizes = [dict(drawing._NAMES, self=None)], [{}]
        drawn += 1
        with torch.no_grad():
            accepted += any(one.learned_line(of_one[0]) for _ in range(4))
    assert drawn > 50 and accepted >= 0.85 * drawn


def test_another_file_of_operators_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(text_of(infer("aten.mm.default", matmuls()).rules, [], "by hand"))
    monkeypatch.setenv(programs.FILE, "")
    try:
        programs.use(path)
        assert [one[0].operator for one in programs.by_operator()] == ["aten.mm.default"]
        lines = [line for seed in (2, 5, 8) for line in draw(seed).lines]
        assert any("torch.ops.aten.mm.default(" in line for line in lines)
    finally:
        monkeypatch.undo()
        programs.forget()


def test_the_command_traces_and_tells_what_came_of_it(tmp_path: Path) -> None:
    trace_file, rules = tmp_path / "calls.trace", tmp_path / "operators.txt"
    asked = ["fuzz", "trace", "--only", "bilinear", "--from", "models", "-o", str(trace_file), "--tries", "40"]
    result = CliRunner().invoke(app, [*asked, "--operators", str(rules), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["with_rule"] >= 1 and told["left_out"] and told["refused"] > 0
    assert "aten.bilinear.default(input1: T" in rules.read_text()
    assert len(read_records(trace_file).records) == told["records"]
    result = CliRunner().invoke(app, [*asked[:2], "--from", str(trace_file), "-o", str(tmp_path / "again"), "--json"])
    assert {**json.loads(result.stdout), "left_out": {}} == {**told, "left_out": {}}
    result = CliRunner().invoke(app, ["fuzz", "trace", "-o", str(trace_file), "--from", "opbd"])
    assert result.exit_code == 2 and "unknown source 'opbd'" in result.output
    result = CliRunner().invoke(app, ["fuzz", "--operators", str(trace_file), "--minutes", "0.001", "--programs"])
    assert result.exit_code == 2 and "expected learned operators" in result.output

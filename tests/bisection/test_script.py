"""`effcc bisect` on whole scripts. All but those that crash run in the test's own process: starting Python and PyTorch
takes longer than all else."""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

import effcc.passes.simplify
from effcc.bisection.script import OUTCOME, Settings, run
from effcc.bisection.search import Search, search
from effcc.errors import InputError
from effcc.passes.rules.language import RuleSet
from effcc.passes.rules.reader import parse

MODEL = """
import sys
import torch

def model(x, y):
    return x - (-y), torch.softmax(x, -1)

compiled = torch.compile(model, backend="effcc")
assert sys.argv[1:] == ["--size", "7"]
x, y = torch.randn(3, 7), torch.randn(3, 7)
"""
TEXT = """# It adds.
rule subtract_negated [exact]:
    sub(%x, neg(%y))  =>  mul(%x, %y)
"""


def bisected(folder: Path, text: str) -> Search:
    script = folder / "script.py"
    script.write_text(text)
    return search(script, ["--size", "7"], folder / "out", None, 10)


def run_here(folder: Path, settings: Settings, script: Path, arguments: list[str]) -> int:
    """A run of the script in this process."""
    (folder / OUTCOME).write_text(json.dumps(asdict(run(folder, settings, str(script), arguments))))
    return 0


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts run in this process."""
    monkeypatch.setattr(sys, "argv", ["effcc"])
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setattr("effcc.bisection.search._run", run_here)


@pytest.mark.usefixtures("here")
def test_a_right_script_is_told_to_be_right(tmp_path: Path) -> None:
    found = bisected(tmp_path, f"{MODEL}\nfor _ in range(3): compiled(x, y)\n")
    assert found.is_right
    assert str(found) == "all right: 3 calls of 1 programs compared"
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("here")
def test_a_wrong_rule_is_found_and_can_be_shown_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as planted:
        wrong = RuleSet(parse(TEXT, "identities").rules)
        planted.setattr(effcc.passes.simplify, "load_safe", lambda: wrong)
        found = bisected(tmp_path, f"{MODEL}\ntry:\n    compiled(x, y)\nexcept Exception:\n    pass\n")
    assert not found.is_right
    assert (found.outcome.kind, found.outcome.rule) == ("rule", "subtract_negated")
    assert "model line: script.py" in str(found)
    assert "return x - (-y), torch.softmax(x, -1)" in str(found)
    out = tmp_path / "out"
    assert "sub %x, %neg" in (out / "reduced.ir").read_text()
    assert "softmax" not in (out / "reduced.ir").read_text()
    assert shown(out) == 0
    assert "right" in capsys.readouterr().out
    monkeypatch.setattr(effcc.passes.simplify, "load_safe", lambda: wrong)
    assert shown(out) == 1
    said = capsys.readouterr().out
    assert "largest error" in said and "compiled" in said and "interpreted" in said
    assert "wrong: result 0" in said


def shown(folder: Path) -> object:
    """How the script of a folder ends, in this process."""
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(folder / "repro.py"), run_name="__main__")
    return end.value.code


EXPORTS = """
import sys
import torch
import effcc

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.randn(7))
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x, y):
        self.calls.add_(1)
        return self.scale * x - (-y)

model = Model().eval()
shapes = {"x": {0: torch.export.Dim("n")}, "y": {0: torch.export.Dim("n")}}
effcc.export(model, (torch.randn(3, 7), torch.randn(3, 7)), "model.effcc", dynamic_shapes=shapes)
assert model.calls.item() == 0
"""


@pytest.mark.usefixtures("here")
def test_an_exported_program_is_called_with_its_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = bisected(tmp_path, EXPORTS)
    assert str(found) == "all right: 1 calls of 1 programs compared"
    assert Path("model.effcc").is_file()
    wrong = RuleSet(parse(TEXT, "identities").rules)
    monkeypatch.setattr(effcc.passes.simplify, "load_safe", lambda: wrong)
    assert bisected(tmp_path, EXPORTS).outcome.rule == "subtract_negated"


CRASH = """
from dataclasses import replace
import effcc.steps as steps

right = steps.kernel_unit

def wrong(*given):
    unit = right(*given)
    return replace(unit, text=unit.text.replace("= exp(", "= (*(volatile float*)8) * exp("))

steps.kernel_unit = wrong
"""


def test_a_crash_is_followed_to_its_kernel(tmp_path: Path) -> None:
    found = bisected(tmp_path, f"{CRASH}\n{MODEL}\ncompiled(x, y)\n")
    assert found.outcome.kind == "crash"
    assert found.outcome.kernel
    assert "crashed with signal 11" in str(found)


ASSERTS = """
import torch

def first(x):
    return x + 1

def second(x, y):
    return torch.tanh(x), x - (-y)

x, y = torch.randn(50), torch.randn(50)
first, second = (torch.compile(f, backend="effcc") for f in (first, second))
assert torch.equal(first(x), x + 1)
assert torch.equal(second(x, y)[1], x + y)
"""


@pytest.mark.usefixtures("here")
def test_a_script_that_asks_for_equal_bits_is_its_own_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    near = parse(TEXT.replace("mul(%x, %y)", "add(%y, mul(%x, 1.0000001))"), "identities")
    monkeypatch.setattr(effcc.passes.simplify, "load_safe", lambda: RuleSet(near.rules))
    found = bisected(tmp_path, ASSERTS)
    assert (found.outcome.kind, found.outcome.step, found.outcome.rule) == ("script", "simplify", "subtract_negated")
    assert "as soon as it runs compiled: program 2" in str(found)
    assert "application 1 of 1" in str(found)


@pytest.mark.usefixtures("here")
def test_a_script_that_fails_by_itself_is_told_so(tmp_path: Path) -> None:
    found = bisected(tmp_path, ASSERTS + "\nraise SystemExit(3)\n")
    assert found.outcome.status == "failed"
    assert "fails (exit code 3), also where PyTorch runs every graph" in str(found)


def test_what_is_no_script_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a Python script, found a folder"):
        search(tmp_path, [], tmp_path / "out", None, 10)

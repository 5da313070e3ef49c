"""`effcc bisect` on whole scripts, each in a process of its own, as users run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from effcc.bisection.search import Search, search
from effcc.errors import InputError

MODEL = """
import sys
import torch

def model(x, y):
    return x - (-y), torch.softmax(x, -1)

compiled = torch.compile(model, backend="effcc")
assert sys.argv[1:] == ["--size", "7"]
x, y = torch.randn(3, 7), torch.randn(3, 7)
"""
PLANT = """
import effcc.passes.simplify as simplify
from effcc.passes.rules.language import RuleSet
from effcc.passes.rules.reader import parse

TEXT = '''# It adds.
rule subtract_negated [exact]:
    sub(%x, neg(%y))  =>  mul(%x, %y)
'''
simplify.load_safe = lambda: RuleSet(parse(TEXT, "identities").rules)
"""


def bisected(folder: Path, text: str) -> Search:
    script = folder / "script.py"
    script.write_text(text)
    return search(script, ["--size", "7"], folder / "out", None, 10)


def test_a_right_script_is_told_to_be_right(tmp_path: Path) -> None:
    found = bisected(tmp_path, f"{MODEL}\nfor _ in range(3): compiled(x, y)\n")
    assert found.is_right
    assert str(found) == "all right: 3 calls of 1 programs compared"
    assert not (tmp_path / "out").exists()


def test_a_wrong_rule_is_found_and_can_be_shown_again(tmp_path: Path) -> None:
    found = bisected(tmp_path, f"{PLANT}\n{MODEL}\ntry:\n    compiled(x, y)\nexcept Exception:\n    pass\n")
    assert not found.is_right
    assert (found.outcome.kind, found.outcome.rule) == ("rule", "subtract_negated")
    assert "model line: script.py" in str(found)
    assert "return x - (-y), torch.softmax(x, -1)" in str(found)
    out = tmp_path / "out"
    assert "sub %x, %neg" in (out / "reduced.ir").read_text()
    assert "softmax" not in (out / "reduced.ir").read_text()
    planted = out / "planted.py"
    planted.write_text(f"{PLANT}\n{(out / 'repro.py').read_text()}")
    shown = {
        f: subprocess.run([sys.executable, f], text=True, capture_output=True) for f in (planted, out / "repro.py")
    }
    assert [s.returncode for s in shown.values()] == [1, 0]
    assert "wrong: result 0" in shown[planted].stdout
    assert "compiled" in shown[planted].stdout and "interpreted" in shown[planted].stdout


def test_what_is_no_script_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a Python script, found a folder"):
        search(tmp_path, [], tmp_path / "out", None, 10)

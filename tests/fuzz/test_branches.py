"""Branches of passes and codegen: those that are taken are marked, in modules that compute what they did without."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import effcc.driver
from effcc.fuzz import branches

TEXT = """
def f(x):
    "Told."
    if x:
        y = 1
    for k in range(x):
        if k == 2:
            break
    try:
        return 3 // x
    except ZeroDivisionError:
        y = 2
    match x:
        case 0:
            y = 3
        case _:
            y = 4
    while y:
        y -= 1
    return y
"""


def test_a_block_is_taken_when_it_runs() -> None:
    marked = branches._Marked(0)
    taken = bytearray(100)
    names: dict[str, object] = {branches._NAME: taken}
    exec(compile(ast.fix_missing_locations(marked.visit(ast.parse(TEXT))), "t", "exec"), names)
    f = names["f"]
    assert callable(f) and f.__doc__ == "Told."

    def reached(x: int) -> set[str]:
        taken[:] = bytes(100)
        assert f(x) == (3 // x if x else 0)
        return {f"{k // 2}{'-' if k % 2 else ''}" for k in branches._ones(bytes(taken))}

    assert reached(0) == {"4", "4-", "6-", "12", "15", "19", "18-"}
    assert reached(1) == {"4", "5", "7", "7-", "6-"}
    assert reached(3) == {"4", "5", "7", "7-", "8"}
    assert len(marked.numbers) == 12


SCRIPT = """
import json
from effcc.fuzz import branches
branches.begin()
from effcc.ir.parser import parse_graph
from effcc.passes.dead_code import remove_dead_code
graph = parse_graph("graph @g(%x: f32[3]) { %a = exp %x : f32[3] %b = sin %x : f32[3] return %b }")
first = branches.fresh()
nodes = [n.op for n in remove_dead_code(graph).nodes]
new, none = branches.fresh(), (remove_dead_code(graph), branches.fresh())[1]
path, offset = branches._layout()[0]["effcc.passes.dead_code"]
lines = [(n - offset) // 2 for n in new if offset <= n < offset + 2 * path.read_text().count("\\n")]
print(json.dumps([nodes, lines, none, branches.total(), branches.layout()]))
"""


def test_what_a_pass_takes_is_seen_once() -> None:
    said = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=True)
    nodes, lines, none, total, layout = json.loads(said.stdout)
    assert nodes == ["sin"] and none == []
    assert total > 5_000 and layout == branches.layout()
    text = Path(effcc.__file__).parent.joinpath("passes", "dead_code.py").read_text().splitlines()
    assert {text[line - 1].split()[0] for line in lines} == {"live:", "for", "if", "live.update(node.operands)"}


def test_modules_that_are_imported_cannot_be_marked() -> None:
    with pytest.raises(RuntimeError, match="expected to begin before effcc"):
        branches.begin()
    assert not branches.marking() and branches.fresh() == []

"""Levels and values are closed: what differs between them is a method, so nothing outside of their home asks which."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from effcc.ir.encodings.levels import Levels
from effcc.ir.encodings.values import Values

HOME = "effcc/ir/encodings/"
KINDS = {kind.__name__ for base in (Levels, Values) for kind in base.__subclasses__()}  # type: ignore[type-abstract]
ROOT = Path(__file__).parents[2]
ROOMS = ("effcc", "passes", "codegen", "runtime", "fuzz", "benchmarks")


def told_apart(text: str) -> Iterator[str]:
    """The kinds of levels and values that a module imports or reaches through their home, with the line."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.ImportFrom(module=str(module), names=names) if module.startswith("effcc.ir.encodings"):
                yield from (f"{node.lineno}: {n.name}" for n in names if n.name in {*KINDS, "levels", "values", "*"})
            case ast.Import(names=names):
                yield from (f"{node.lineno}: {n.name}" for n in names if n.name.startswith("effcc.ir.encodings"))


@pytest.mark.parametrize("text", ["from effcc.ir.encodings.levels import Block", "import effcc.ir.encodings.values",
                                  "from effcc.ir.encodings import levels"])  # fmt: skip
def test_a_module_that_tells_them_apart_is_seen(text: str) -> None:
    assert list(told_apart(text))


def test_nothing_outside_of_their_home_tells_them_apart() -> None:
    paths = {p.resolve() for room in ROOMS for p in (ROOT / room).rglob("*.py")}
    texts = {str(p.relative_to(ROOT)): p.read_text() for p in sorted(paths)}
    assert len(texts) > 300 and any(name.startswith(HOME) for name in texts) and len(KINDS) >= 4
    found = {name: list(told_apart(text)) for name, text in texts.items() if not name.startswith(HOME)}
    assert not {name: where for name, where in found.items() if where}


def test_at_home_only_what_is_written_decides_which() -> None:
    """The one place that knows all kinds makes them from a scheme's text; nothing asks an object what it is."""
    for path in (ROOT / HOME).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="isinstance"), args=[_, kind]):
                    assert not {n.id for n in ast.walk(kind) if isinstance(n, ast.Name)} & KINDS, (path, node.lineno)
                case ast.MatchClass(cls=ast.Name(id=name)):
                    assert name not in KINDS, (path, node.lineno)

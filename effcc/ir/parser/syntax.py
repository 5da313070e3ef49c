"""Text to syntax tree: the grammar's one page, and errors that show the line and a caret."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import NoReturn

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedInput
from lark.lexer import PatternStr

from effcc.errors import EffccError, IRSyntaxError

Syntax = Tree[Token]
Place = Syntax | Token
STARTS = ["graph", "kernel", "loops", "vectors", "program", "schedule", "encoding", "type", "expression"]
_READABLE = {
    "NAME": "a name", "VALUE": "a %value", "AT": "an @name", "INT": "an integer", "FLOAT": "a number",
    "STRING": "a string", "SPECIAL": "", "SIZE": "", "TYPED": "", "MINUS": "'-'", "COMBINE": "add=", "$END": "the end",
    "TOGETHER": "lanes, unroll, block or packed", "SPACE": "local, registers or tiles",
    "_AND": "'and'", "_OR": "'or'", "_FOR": "'for'", "_RESCALE": "'rescale'",
}  # fmt: skip


@cache
def _grammar() -> Lark:
    text = files("effcc.ir").joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", start=STARTS, propagate_positions=True, maybe_placeholders=True)


class Source:
    """A text being read, and where it came from."""

    def __init__(self, text: str, path: str = "<text>") -> None:
        self.text = text
        self.path = path

    def tree(self, start: str) -> Syntax:
        """The syntax tree of the whole text; raises IRSyntaxError."""
        try:
            return _grammar().parse(self.text, start=start)
        except UnexpectedInput as error:
            raise self._syntax_error(error) from None

    def line(self, number: int) -> str:
        lines = self.text.splitlines()
        return lines[number - 1] if 0 < number <= len(lines) else ""

    def fail(self, message: str, place: Place) -> NoReturn:
        """Raise IRSyntaxError at a place of the tree."""
        line, column = position(place)
        raise IRSyntaxError(message, line, column, self.line(line), self.path)

    def fail_at(self, message: str, offset: int) -> NoReturn:
        """Raise IRSyntaxError at an offset of the text."""
        line = self.text.count("\n", 0, offset) + 1
        raise IRSyntaxError(message, line, offset - self.text.rfind("\n", 0, offset), self.line(line), self.path)

    @contextmanager
    def at(self, place: Place) -> Iterator[None]:
        """Errors raised inside say this place, unless they already say a closer one."""
        try:
            yield
        except EffccError as error:
            if not hasattr(error, "line"):
                line, column = position(place)
                vars(error).update(line=line, column=column)
                caret = " " * (column - 1) + "^"
                error.args = (f"{self.path}:{line}:{column}: {error}\n  {self.line(line)}\n  {caret}",)
            raise

    def _syntax_error(self, error: UnexpectedInput) -> IRSyntaxError:
        line, column = error.line, error.column
        names: set[str]
        if isinstance(error, UnexpectedCharacters):
            found = repr(self.text[error.pos_in_stream or 0])
            names = set(error.allowed or ())
        else:
            token = getattr(error, "token", None)
            names = set(getattr(error, "accepts", None) or getattr(error, "expected", None) or ())
            at_end = token is None or token.type == "$END"
            found = "the end of the text" if at_end else repr(str(token))
            if at_end:
                lines = self.text.rstrip().splitlines() or [""]
                line, column = len(lines), len(lines[-1]) + 1
        expected = sorted({shown for name in names if (shown := _readable(name))})
        message = f"unexpected {found}; expected {_listed(expected)}"
        return IRSyntaxError(message, line, column, self.line(line), self.path)


def position(place: Place) -> tuple[int, int]:
    """Line and column, from 1, where a token or a tree begins (an empty tree: the beginning)."""
    line = place.line if isinstance(place, Token) else getattr(place.meta, "line", 1)
    column = place.column if isinstance(place, Token) else getattr(place.meta, "column", 1)
    return line or 1, column or 1


def trees(parent: Syntax, *names: str) -> list[Syntax]:
    """The subtrees directly below `parent` (of these kinds, if any are named)."""
    return [c for c in parent.children if isinstance(c, Tree) and (not names or c.data in names)]


def tokens(parent: Syntax) -> list[Token]:
    """The tokens directly below `parent`."""
    return [c for c in parent.children if isinstance(c, Token)]


def _readable(terminal: str) -> str:
    if terminal in _READABLE:
        return _READABLE[terminal]
    pattern = _grammar().get_terminal(terminal).pattern
    return f"'{pattern.value}'" if isinstance(pattern, PatternStr) else terminal.lower()


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"

"""Text back into the languages. The grammar, on one page, is `effcc/ir/grammar.lark`.

    >>> parse_type("f32[s0,384]").rank
    2
    >>> print(parse_encoding("block(4, 1).int8(group=32)"))
    block(4,1) . int8(group=32)
    >>> parse_expression("max(2, 3 * 4)", {})
    Traceback (most recent call last):
    ...
    effcc.errors.IRTypeError: <text>:1:1: a reduction is written max(axis: value); for two values use maximum or minimum
      max(2, 3 * 4)
      ^

All of these raise IRSyntaxError where the text does not parse, and IRTypeError or UnknownNameError where it does but
makes no sense; each message has the path, line, column, the line itself and a caret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from effcc.ir.dtypes import DType
from effcc.ir.encoding import Encoding
from effcc.ir.expr import Expr
from effcc.ir.graph import Graph
from effcc.ir.kernel import Kernel
from effcc.ir.loops import LoopNest
from effcc.ir.parser.expressions import ExpressionReader
from effcc.ir.parser.graphs import read_graph
from effcc.ir.parser.kernels import read_kernel
from effcc.ir.parser.limits import shallow
from effcc.ir.parser.loops import read_loops
from effcc.ir.parser.programs import read_program
from effcc.ir.parser.schedules import WrittenSchedule, read_schedule
from effcc.ir.parser.syntax import Source
from effcc.ir.parser.types import read_encoding, read_type
from effcc.ir.parser.vectors import read_vectors
from effcc.ir.program import Program
from effcc.ir.types import TensorType
from effcc.ir.vectors import Function


def parse_graph(text: str, path: str = "<text>") -> Graph:
    """The graph that `text` states."""
    source = Source(text, path)
    with shallow(path):
        return read_graph(source, source.tree("graph"))


def parse_kernel(text: str, path: str = "<text>") -> Kernel:
    """The kernel that `text` states."""
    source = Source(text, path)
    with shallow(path):
        return read_kernel(source, source.tree("kernel"))


def parse_loops(text: str, path: str = "<text>") -> LoopNest:
    """The loop nest that `text` states."""
    source = Source(text, path)
    with shallow(path):
        return read_loops(source, source.tree("loops"))


def parse_schedule(text: str, path: str = "<text>") -> WrittenSchedule:
    """The schedule that `text` states, with the places of its nodes, which errors show when it is checked."""
    source = Source(text, path)
    with shallow(path):
        return read_schedule(source, source.tree("schedule"))


def parse_vectors(text: str, path: str = "<text>") -> Function:
    """The function of vectors that `text` states."""
    source = Source(text, path)
    with shallow(path):
        return read_vectors(source, source.tree("vectors"))


def parse_program(text: str, path: str = "<text>") -> Program:
    """The program that `text` states."""
    source = Source(text, path)
    with shallow(path):
        return read_program(source, source.tree("program"))


def parse_any(text: str, path: str = "<text>") -> Graph | Kernel | LoopNest | Function | Program | WrittenSchedule:
    """Whatever `text` states: its first word says which language it is in."""
    first = re.match(r"(?:\s|#[^\n]*)*+", text)
    start = first.end() if first else 0
    match re.split(r"\W", text[start:], maxsplit=1)[0]:
        case "kernel":
            return parse_kernel(text, path)
        case "loops":
            return parse_loops(text, path)
        case "vectors":
            return parse_vectors(text, path)
        case "program":
            return parse_program(text, path)
        case "graph":
            return parse_graph(text, path)
        case "schedule":
            return parse_schedule(text, path)
    return Source(text, path).fail_at(
        "expected one of 'graph', 'kernel', 'loops', 'program', 'schedule', 'vectors'", start
    )


def parts(text: str) -> list[str]:
    """The graphs, programs, schedules, ... of a text, each preceded by as many empty lines as stand before it."""
    starts = [
        m.start() for m in re.finditer(r"^(?=(?:graph|program|kernel|loops|schedule|vectors)\b)", text, re.MULTILINE)
    ]
    if len(starts) < 2:
        return [text]
    ends = [*starts[1:], len(text)]
    return ["\n" * text.count("\n", 0, start) + text[start:end] for start, end in zip(starts, ends, strict=True)]


def parse_schedules(text: str, path: str = "<text>") -> dict[str, WrittenSchedule]:
    """The schedules that `text` states, by the names of their kernels; programs beside them are passed over.

    Raises IRSyntaxError where a kernel has two.
    """
    found: dict[str, WrittenSchedule] = {}
    for part in parts(text):
        if not re.match(r"(?:\s|#[^\n]*)*+schedule\b", part):
            continue
        written = parse_schedule(part, path)
        if written.kernel in found:
            written.source.fail(f"kernel @{written.kernel} has a schedule already", written.places[()])
        found[written.kernel] = written
    return found


def parse_encoding(text: str, path: str = "<text>") -> Encoding:
    """An encoding: `block(4,1) . int8(per="channel")`."""
    source = Source(text, path)
    with shallow(path):
        return read_encoding(source, source.tree("encoding"))


def encoding_of(given: Encoding | str) -> Encoding:
    """An encoding as it is, or the one that its notation states."""
    return _noted(given) if isinstance(given, str) else given


@lru_cache(maxsize=256)
def _noted(text: str) -> Encoding:
    """The encoding that a notation states: a model names the same few for each of its layers, at every capture."""
    return parse_encoding(text, "<encoding>")


def parse_type(text: str, path: str = "<text>") -> TensorType:
    """A tensor type: `f32[s0,384]`."""
    source = Source(text, path)
    with shallow(path):
        return read_type(source, source.tree("type"))


def parse_expression(
    text: str,
    buffers: Mapping[str, tuple[DType, int]],
    axes: Iterable[str] = (),
    symbols: Iterable[str] = (),
    expected: DType | None = None,
) -> Expr:
    """A scalar expression over buffers (name to dtype and rank), axes and size symbols."""
    source = Source(text)
    with shallow(source.path):
        return ExpressionReader(source, axes, buffers, symbols).read(source.tree("expression"), expected)

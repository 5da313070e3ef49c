"""Every error a user of effcc can meet.

Each error says what was expected, what came, where, and what to do. Catching `EffccError` catches all of them; the
command line turns them into exit code 2 and one message without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class EffccError(Exception):
    """Base of every error that effcc raises on purpose."""


class InputError(EffccError):
    """A call's argument has the wrong dtype, rank, size, device or count."""


class UnknownNameError(EffccError):
    """An op, option, target, encoding, step or backend that does not exist; the message lists the near misses."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        options = sorted(known)
        near = difflib.get_close_matches(name, options, n=3, cutoff=0.5)
        choice = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else f"known: {', '.join(options)}"
        super().__init__(f"unknown {kind} {name!r}; {choice}" + (f" {hint}" if hint else ""))
        self.name = name
        self.near = near


class IRSyntaxError(EffccError):
    """A text that does not parse as one of the languages; carries the line, column and the offending line itself."""

    def __init__(self, message: str, line: int, column: int, source_line: str = "", path: str = "<text>") -> None:
        self.line, self.column = line, column
        caret = " " * (max(column, 1) - 1) + "^"
        shown = f"\n  {source_line}\n  {caret}" if source_line else ""
        super().__init__(f"{path}:{line}:{column}: {message}{shown}")


class IRTypeError(EffccError):
    """An op applied to operands whose types do not fit, or a graph, kernel or loop nest the verifier refuses."""


class EncodingError(EffccError):
    """An encoding that does not parse, does not fit a shape or dtype, or components that do not fit the encoding."""


class BudgetError(EffccError):
    """A budget that no choice of encodings keeps; says what the least possible is."""


class CaptureError(EffccError):
    """The model could not be captured as one functional graph, or a `.pt2` file is not one."""


class UnsupportedError(EffccError):
    """Something effcc cannot compile on this path; says which op or feature and what can be done instead."""


class ToolchainError(EffccError):
    """No usable C++ compiler, or the compiler failed or ran out of time; carries its output."""


class CacheError(EffccError):
    """The compile cache cannot be used: its folder is unsafe, full, or not writable."""


class PackageError(EffccError):
    """A `.effcc` package that is damaged, foreign, not signed as asked, or made for another machine or version."""


class CheckpointError(EffccError):
    """Weights in a file that is damaged, holds what effcc does not know, or is for another model; says where."""


class ScheduleError(EffccError):
    """No schedule satisfies the constraints of a kernel on a target."""


class OutOfRangeError(EffccError, IndexError, RuntimeError):
    """An index that the model computed lies outside the tensor it reads or writes.

    Eager raises IndexError for some operations and RuntimeError for others; this is both.
    """


class ZeroDivisorError(EffccError, ZeroDivisionError, RuntimeError):
    """An integer divided by zero; eager raises RuntimeError("ZeroDivisionError")."""


class RefusedValueError(EffccError, RuntimeError):
    """A value that the model computed is one that an operator, or an assertion of the model's, refuses."""


class NumericsError(EffccError):
    """A compiled result differs from its reference by more than the documented bound."""


class FaultWarning(UserWarning):
    """A part of a model runs in PyTorch because of a fault of effcc's; names the file to send."""


_FACTS = "effcc_facts"


@contextmanager
def noting(**facts: Any) -> Iterator[None]:
    """Errors raised inside carry these facts: which part of the model was being compiled, and what it looked like.

    What is known further outside replaces what was known inside.

    >>> try:
    ...     with noting(location="model.py:3: y = f(x)"):
    ...         1 // 0
    ... except ZeroDivisionError as error:
    ...     print(facts_of(error)["location"])
    model.py:3: y = f(x)
    """
    try:
        yield
    except Exception as error:
        error.__dict__.setdefault(_FACTS, {}).update(facts)
        raise


def facts_of(error: BaseException) -> Mapping[str, Any]:
    """What `noting` noted."""
    found: Mapping[str, Any] = error.__dict__.get(_FACTS, {})
    return found

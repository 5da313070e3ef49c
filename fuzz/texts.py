"""Texts of cases as Python modules."""

from __future__ import annotations

import itertools
import linecache
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

_NUMBERS = itertools.count()


def module_of(text: str, what: str) -> Any:
    """A text as a Python module of a name of its own, `what` and a number: it can be pickled by name, and tracebacks
    show its lines."""
    name = f"fuzzed_{what}_{next(_NUMBERS)}"
    made = ModuleType(name)
    made.__file__ = f"<{name}>"
    linecache.cache[made.__file__] = (len(text), None, text.splitlines(keepends=True), made.__file__)
    sys.modules[name] = made
    exec(compile(text, made.__file__, "exec"), made.__dict__)
    return made


def indented(lines: Iterable[str], spaces: int) -> str:
    """Lines of a text, so far to the right."""
    return "\n".join(" " * spaces + line for line in lines)


__all__ = ["indented", "module_of"]

"""A program's translation units: one for each distinct kernel, and one with the entry points.

A kernel's text says nothing of the program: it is the same wherever its nest is the same, in other layers, programs and
models, so that it is compiled once. Its function is `run` in a namespace named after the text's digest, hidden in the
library that it is linked into. The entry points' unit declares that namespace and calls it by the kernel's own name:

    namespace kernel_0f3a91c2d4e5 { void run(const f32* X, f32* O, worker& me); }
    namespace softmax = kernel_0f3a91c2d4e5;

All units of a program, one after the other, are a source as well: that is what people read.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from effcc.codegen.cpp.calls_together import calls_at_once
from effcc.codegen.cpp.printer import print_called, print_called_at_once, print_declaration, print_function
from effcc.ir.vectors import Function

RUN = "run"
"""The name of every kernel's function, in its namespace."""

_ORDER = ("exp_log.h", "erf.h", "trig.h", "pow.h", "permute.h", "dot.h", "tile.h", "sizes.h", "copy.h")
_DIGITS = 12
_HIDDEN = '__attribute__((visibility("hidden")))'


@dataclass(frozen=True)
class Unit:
    """The translation unit of a kernel.

    text: what is compiled; namespace: where its function is; declaration: of that function; comment: what people read
    above the text, which may differ between programs; kernels: those of the program that it computes.
    """

    text: str
    namespace: str
    declaration: str
    comment: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A program as C++: its kernels' units, and the text of its entry points. `str` of it is all of them as one.

    ticks: where threads read the clock after each step, what each reading ends: the step's kernel, `wait` for the other
    threads, `copy`, or `begin` for the first of an entry point.
    """

    entry: str = ""
    kernels: tuple[Unit, ...] = ()
    ticks: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = []
        for unit in self.kernels:
            parts += [*(f"// {line}".rstrip() for line in unit.comment), unit.text]
        return "\n".join([*parts, self.entry])


NOTHING_EMITTED = Source()


def kernel_unit(function: Function, place: tuple[str, int] | None = None) -> Unit:
    """The unit of a vectorized nest, without what is said of it in a program.

    place: the file and the line of the model that debuggers and profilers shall show for the function's code.
    """
    called = sorted([*map(print_called, function.called), *map(print_called_at_once, calls_at_once(function))])
    printed = print_function(function)
    text = printed.text if place is None else mapped(printed.text, *place)
    body = "\n".join([*called, *([""] if called else []), text])
    includes = "\n".join(include(h) for h in (
        "vec.h", "guarded.h",
        *(["checks.h"] if function.checks else []),
        *(h for h in _ORDER if h in printed.headers),
        "worker.h",
    ))  # fmt: skip
    digest = hashlib.sha256("\n".join([includes, *_pragmas(function), body]).encode()).hexdigest()
    namespace = f"kernel_{digest[:_DIGITS]}"
    inside = [opened(namespace), "", *_pragmas(function), body, "", f"}}  // namespace {namespace}"]
    text = "\n".join([includes, "", "namespace effcc {", *inside, "}  // namespace effcc", ""])
    return Unit(text, namespace, print_declaration(function))


def mapped(text: str, file: str, line: int) -> str:
    """C++ of which every line counts as one line of another file.

    >>> print(mapped("int f() {\\n  return 1; }", "model.py", 7))
    #line 7 "model.py"
    int f() {
    #line 7 "model.py"
      return 1; }
    """
    escaped = file.replace("\\", "\\\\").replace('"', '\\"')
    return "\n".join(f'#line {line} "{escaped}"\n{each}' for each in text.splitlines())


def _pragmas(function: Function) -> list[str]:
    """What the compiler should leave alone where sizes are known at run time only: conditions of borders are many then,
    a loop is copied for each of them and each of its tiles, and its copies take longer to compile than they save."""
    varies = any(isinstance(size, str) for _, size in function.sizes)
    return ['#pragma GCC optimize ("no-unswitch-loops")', ""] if varies else []


def include(header: str) -> str:
    """The line that includes a header of ours."""
    return f'#include "effcc/{header}"'


def opened(namespace: str) -> str:
    """The line that opens a kernel's namespace."""
    return f"namespace {namespace} {_HIDDEN} {{"


def declared(unit: Unit) -> str:
    """A unit's function, declared for those who call it."""
    return f"{opened(unit.namespace)} {unit.declaration} }}"

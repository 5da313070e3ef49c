"""The vector form: what a loop nest becomes before it is printed. Named registers, plain loops, barriers.

Every value has a name and a C++ type; its right side is one C++ expression over names. All decisions have been made by
then (lanes, unrolling, masks, where a value is computed): the printer only lays out text.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Let:
    """`const type name = value;`"""

    type: str
    name: str
    value: str


@dataclass(frozen=True)
class Registers:
    """Variables of one type, all beginning as `value`."""

    type: str
    names: tuple[str, ...]
    value: str


@dataclass(frozen=True)
class Array:
    """Scratch memory of one thread: `length` elements, aligned for vectors."""

    type: str
    name: str
    length: int


@dataclass(frozen=True)
class Do:
    """A statement: an assignment or a store."""

    text: str


@dataclass(frozen=True)
class Loop:
    """`for (i64 name = start; name < stop; name += step)`."""

    name: str
    start: str
    stop: str
    step: int
    body: tuple[Line, ...]


@dataclass(frozen=True)
class Branch:
    """`if (condition) body else orelse`."""

    condition: str
    body: tuple[Line, ...]
    orelse: tuple[Line, ...] = ()


@dataclass(frozen=True)
class Block:
    """A scope of its own, with a comment."""

    body: tuple[Line, ...]
    comment: str = ""


@dataclass(frozen=True)
class Shared:
    """`body` for `name` in 0 .. `count` - 1, in pieces that the threads of the team take; with a comment."""

    name: str
    count: str
    body: tuple[Line, ...]
    comment: str


@dataclass(frozen=True)
class Note:
    """A comment."""

    text: str


@dataclass(frozen=True)
class Barrier:
    """Every thread waits for all others."""


Line = Let | Registers | Array | Do | Loop | Branch | Block | Shared | Note | Barrier


@dataclass(frozen=True)
class Parameter:
    """A function's parameter: its C++ type and name, and the buffer or size symbol of the nest that it is."""

    type: str
    name: str
    stands_for: str


@dataclass(frozen=True)
class Function:
    """One vectorized nest. `sizes` are the size symbols it takes, `headers` what it includes.

    `outlined` are the functions (name, type) that it calls instead of inlining them. It takes the thread as `me`, and
    with `checks` where to add the run-time checks that fail.
    """

    name: str
    buffers: tuple[Parameter, ...]
    sizes: tuple[Parameter, ...]
    body: tuple[Line, ...]
    headers: tuple[str, ...] = ()
    outlined: tuple[tuple[str, str], ...] = ()
    checks: bool = False

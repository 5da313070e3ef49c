"""Schemes by name: what a notation may say. Each scheme declares itself; nothing else lists them.

A declaration says which arguments and options a scheme has, and makes the levels or values that it stands for. Parsing,
errors, documentation and the fuzzer read the registry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from effcc.errors import EncodingError, UnknownNameError
from effcc.ir.encoding import Argument, Scheme, show_argument


@dataclass(frozen=True)
class Option:
    """One argument of a scheme: its name, what it is where nothing is said, and what it may be.

    allowed: the values it may have, or a condition on them that `expected` words.
    """

    name: str
    default: Argument | None
    allowed: tuple[Argument, ...] | Callable[[Argument], bool]
    expected: str = ""

    def fits(self, value: Argument) -> bool:
        """Whether the option may have this value; `true` is no number."""
        if callable(self.allowed):
            return self.allowed(value)
        return any(type(value) is type(a) and value == a for a in self.allowed)

    @property
    def words(self) -> str:
        if self.expected or callable(self.allowed):
            return self.expected
        return " or ".join(show_argument(a) for a in self.allowed)


@dataclass(frozen=True)
class Declaration:
    """A scheme: its name, what kind of thing it is, its arguments, and how it is made of them.

    make: takes all arguments by name. For values it returns `Values`; for levels also `shape` and `count`, `Levels`;
        for products also `shape`, `dtype`, and what makes a `factor` of a shape.
    samples: notations that tests and the fuzzer draw, the first of them the plainest.
    summary: one line for documentation.
    settle: fills in what some arguments imply of others, and says what is wrong with them together, if anything is.
    kept: of levels whose `count` the notation leaves open, how many are kept of a `shape` at a `density`; takes those
        and all arguments by name. counted: of which component the size of which dimension is that count.
    whole: of levels, whether every element is stored; such a level may stand before values in `effcc.quantize`.
    """

    name: str
    kind: Literal["level", "values", "product"]
    make: Callable[..., Any]
    summary: str
    samples: tuple[str, ...]
    arguments: tuple[Option, ...] = ()
    options: tuple[Option, ...] = ()
    settle: Callable[[dict[str, Any]], str | None] = field(default=lambda given: None)
    kept: Callable[..., int] | None = None
    counted: tuple[int, int] | None = None
    whole: bool = False

    @property
    def usage(self) -> str:
        """What the notation may say, for errors: `int4(per="tensor" or "channel", group=16 to 1024)`."""
        parts = [o.words for o in self.arguments] + [f"{o.name}={o.words}" for o in self.options]
        return f"{self.name}({', '.join(parts)})" if parts else self.name

    def given(self, scheme: Scheme) -> dict[str, Argument | None]:
        """All arguments by name, defaults filled in. Raises EncodingError or UnknownNameError where they do not fit."""
        if len(scheme.args) > len(self.arguments):
            raise EncodingError(f"{scheme}: expected {self.usage}")
        found: dict[str, Argument | None] = {o.name: o.default for o in (*self.arguments, *self.options)}
        known = {o.name: o for o in (*self.arguments, *self.options)}
        stated = (*zip((o.name for o in self.arguments), scheme.args, strict=False), *scheme.options)
        for name, value in stated:
            if name not in known:
                if not known:
                    raise EncodingError(f"{scheme}: {self.name} takes no arguments")
                raise UnknownNameError(f"option of {self.name}", name, known)
            if not known[name].fits(value):
                raise EncodingError(f"{scheme}: expected {name}={known[name].words}, as in {self.usage}")
            found[name] = value
        missing = [o for o in self.arguments if found[o.name] is None]
        if missing:
            raise EncodingError(f"{scheme}: expected {self.usage}, got no {missing[0].name}")
        wrong = self.settle(found)
        if wrong:
            raise EncodingError(f"{scheme}: {wrong}")
        return found

    def canonical(self, scheme: Scheme) -> Scheme:
        """The scheme with arguments in order, and without options that say nothing new."""
        found = self.given(scheme)
        args = tuple(value for o in self.arguments if (value := found[o.name]) is not None)
        options = tuple(
            (o.name, value) for o in self.options if (value := found[o.name]) is not None and value != o.default
        )
        return Scheme(self.name, args, options)


def positive(value: object) -> bool:
    """Whether an argument is a positive integer."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


DECLARATIONS: dict[str, Declaration] = {}
"""All schemes by name."""


def declare(declaration: Declaration) -> Declaration:
    """Enter a scheme into the registry; a name is taken once."""
    assert declaration.name not in DECLARATIONS, declaration.name
    DECLARATIONS[declaration.name] = declaration
    return declaration


def declared(name: str) -> Declaration:
    """The scheme called `name`; raises UnknownNameError with near misses."""
    if name not in DECLARATIONS:
        raise UnknownNameError("encoding scheme", name, DECLARATIONS)
    return DECLARATIONS[name]


def names(kind: Literal["level", "values", "product"]) -> tuple[str, ...]:
    """The names of all levels, or of all kinds of values."""
    return tuple(d.name for d in DECLARATIONS.values() if d.kind == kind)


def foreign() -> tuple[str, ...]:
    """The names of schemes that others than effcc declared."""
    return tuple(d.name for d in DECLARATIONS.values() if not d.make.__module__.startswith("effcc."))

"""How a weight is stored, as a value: the notation only. What an encoding means is in `effcc.ir.encodings`.

    int8(per="channel")                    one scheme
    block(4,1) . int8(per="channel")       composed: levels say which coordinates are stored, values how
    low_rank(16) + int3(group=64)          a sum of encodings is an encoding

`effcc.ir.parser.parse_encoding` reads it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

Argument = int | float | str | bool


@dataclass(frozen=True)
class Scheme:
    """One named scheme with its arguments: `block(4,1)`, `int4(group=32)`."""

    name: str
    args: tuple[Argument, ...] = ()
    options: tuple[tuple[str, Argument], ...] = ()

    def option(self, key: str, default: Argument) -> Argument:
        return dict(self.options).get(key, default)

    def __str__(self) -> str:
        parts = [show_argument(a) for a in self.args] + [f"{k}={show_argument(v)}" for k, v in self.options]
        return f"{self.name}({','.join(parts)})" if parts else self.name


@dataclass(frozen=True)
class Encoding:
    """A sum of composed chains: `terms[i]` is read from levels (left) to values (right)."""

    terms: tuple[tuple[Scheme, ...], ...]

    def __str__(self) -> str:
        return " + ".join(" . ".join(str(s) for s in chain) for chain in self.terms)


def show_argument(value: Argument) -> str:
    """An argument as the grammar reads it back."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, str) else repr(value)

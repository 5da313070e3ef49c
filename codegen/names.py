"""Identifiers for generated text: unique in their function, valid in the language, close to the name in the IR."""

from __future__ import annotations

import re
from collections.abc import Iterable

_FOREIGN = re.compile(r"[^0-9A-Za-z_]+")


def identifier(name: str) -> str:
    """`name` with everything that an identifier cannot hold replaced by underscores.

    >>> identifier("%layer.0.weight")
    'layer_0_weight'
    """
    text = _FOREIGN.sub("_", name.replace("'", "_new")).strip("_")
    return text if text and not text[0].isdigit() else f"v{text}"


class Names:
    """Hands out identifiers, each once. `reserved` are words of the language and of its library.

    >>> names = Names({"exp"})
    >>> names.fresh("exp"), names.fresh("x"), names.fresh("x")
    ('exp_1', 'x', 'x_1')
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self._taken = set(reserved)
        self._counts: dict[str, int] = {}

    def fresh(self, name: str) -> str:
        """An identifier not handed out before, as near to `name` as that allows."""
        base = candidate = identifier(name)
        while candidate in self._taken:
            self._counts[base] = self._counts.get(base, 0) + 1
            candidate = f"{base}_{self._counts[base]}"
        self._taken.add(candidate)
        return candidate

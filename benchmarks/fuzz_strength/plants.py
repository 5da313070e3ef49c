"""Planted bugs: patches of a few tokens, as data. The files `plants/*.toml` hold them by room, `plants/late/*.toml`
those that were planted after the fuzzer had been tuned to the first list.

    [[plant]]
    name = "share-remainder"
    room = "threads"
    breaks = "tasks that do not divide among threads are left out"
    file = "runtime/include/effcc/share.h"
    old = "return {begin, begin + each + (thread < more)};"
    new = "return {begin, begin + each};"

`struck` says why a plant counts no more: no valid program can show it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random

FOLDER = Path(__file__).parent / "plants"
LISTS = {"first": FOLDER, "late": FOLDER / "late"}


class StaleError(Exception):
    """The text that a plant replaces does not occur exactly once: the list must follow the sources."""


@dataclass(frozen=True)
class Plant:
    """One bug: in `file`, `old`, which occurs there once, becomes `new`."""

    name: str
    room: str
    breaks: str
    file: str
    old: str
    new: str
    struck: str = ""

    @property
    def digest(self) -> str:
        """Of the patch: results belong to it alone."""
        return sha256("\0".join((self.file, self.old, self.new)).encode()).hexdigest()[:12]

    def apply(self, root: Path) -> None:
        """Plant it in the sources under `root`. Raises StaleError, and changes nothing, where it does not fit."""
        file = root / self.file
        text = file.read_text() if file.is_file() else ""
        if text.count(self.old) != 1:
            raise StaleError(f"{self.name}: {self.file} has the text to replace {text.count(self.old)} times, not once")
        file.write_text(text.replace(self.old, self.new))


def read_plants(folder: Path = FOLDER) -> list[Plant]:
    """All plants that are not struck out. Raises ValueError where two have one name."""
    found = [
        Plant(**given) for file in sorted(folder.glob("*.toml")) for given in tomllib.loads(file.read_text())["plant"]
    ]
    names = [p.name for p in found]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(f"two plants are called {twice[0]}")
    return [p for p in found if not p.struck]


def sample(plants: Sequence[Plant], count: int, seed: int = 0) -> list[Plant]:
    """`count` of the plants, always the same ones, in an order in which rooms come in turn."""
    random, rooms = Random(seed), dict[str, list[Plant]]()
    for plant in random.sample(list(plants), len(plants)):
        rooms.setdefault(plant.room, []).append(plant)
    waiting, chosen = list(rooms.values()), list[Plant]()
    while waiting and len(chosen) < count:
        for room in waiting:
            chosen.append(room.pop())
        waiting = [room for room in waiting if room]
    return chosen[:count]

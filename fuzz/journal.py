"""A campaign's journal: what was done and found, a line each, so that one that is killed goes on and loses no find.

    DIR/journal.jsonl

A line is a checksum and a JSON object. It is appended in one write, so that it is whole or no line: what a killed
campaign, a full disk or an editor left of one has another checksum. Such lines are left out when a journal is read,
and counted. Every line of progress says all that was done until then, so that a damaged one costs nothing once another
follows it; every find has a line of its own, written before the find is reduced.

Line kinds: `begun` (how the campaign was called), `done` (progress), `find`, `ended`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any

from effcc.errors import InputError
from effcc.fuzz import branches

NAME = "journal.jsonl"
VERSION = 1


@dataclass(frozen=True)
class Begun:
    """How a campaign was called. door: the one door it goes through, or `all`. against: peers, by name. operators: the
    file of learned operators that programs are drawn with, `shipped` for effcc's own; empty for none."""

    seed: int
    minutes: float
    door: str = "all"
    against: tuple[str, ...] = ()
    operators: str = ""

    def as_json(self) -> dict[str, Any]:
        """For a line."""
        return asdict(self)


@dataclass(frozen=True)
class Find:
    """A failure. door: where it came from (`graph`, `module`, `program`, `package`). facts: the fields of the failure
    besides its case. reduced: whether it is as small as it gets. files: names in the campaign's folder."""

    door: str
    seed: int
    facts: Mapping[str, Any]
    reduced: bool = False
    files: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[Any, ...]:
        """What a find has in common with itself found once more, or reduced."""
        return self.door, self.seed, self.facts.get("step"), self.facts.get("kind")


@dataclass(frozen=True)
class Door:
    """Before through one door: the next seed, and what became of the cases."""

    next: int
    counts: Mapping[str, int]
    seconds: float = 0.0


@dataclass(frozen=True)
class Moment:
    """How far a campaign had come after some seconds: cases by door, and what they had reached."""

    seconds: float
    cases: Mapping[str, int]
    branches: int
    ops: int
    pairs: int


@dataclass
class Before:
    """What a journal says of its last campaign.

    seconds: how long it ran. graphs: what `done` lines say of graphs, without which there is none. doors: progress
    through the others. pairs: operators of which one reads what the other gives. branches: those of passes and codegen
    that were taken, by their numbers in a layout (`effcc.fuzz.branches`), of `all_branches`. history: how it came so
    far. damaged: how many lines could not be read. missing: how many files of finds are not there any more.
    """

    begun: Begun
    began: float
    seconds: float = 0.0
    graphs: Mapping[str, Any] = field(default_factory=dict)
    doors: dict[str, Door] = field(default_factory=dict)
    finds: list[Find] = field(default_factory=list)
    pairs: set[tuple[str, str]] = field(default_factory=set)
    branches: set[int] = field(default_factory=set)
    all_branches: int = 0
    layout: int = 0
    history: list[Moment] = field(default_factory=list)
    ended: bool = False
    damaged: int = 0
    missing: int = 0

    def of(self, door: str) -> list[Find]:
        """The finds behind one door."""
        return [f for f in self.finds if f.door == door]

    def cases(self) -> dict[str, int]:
        """How many cases went through each door."""
        graphs = {"graph": int(self.graphs["graphs"])} if self.graphs else {}
        return {**graphs, **{n: sum(d.counts.values()) for n, d in self.doors.items()}}

    def told(self) -> str:
        """In a line, with what is damaged."""
        begun = self.begun
        left = max(0.0, begun.minutes * 60 - self.seconds)
        said = [
            f"going on with the campaign of seed {begun.seed}: {self.seconds:.0f} s done, {left:.0f} s left, "
            f"{len(self.finds)} finds"
        ]
        if self.damaged:
            said.append(f"{self.damaged} damaged lines of {NAME} left out")
        if self.missing:
            said.append(f"{self.missing} files of finds are missing")
        return "; ".join(said)


class Journal:
    """Appends to the journal of a folder, which is made; use it as a context manager.

    began: which campaign is gone on with; a new one begins otherwise. relay: called with every line once it is written,
    and with the names of files that it names. Raises InputError where another process is
    writing to it, or it cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        begun: Begun,
        began: float | None = None,
        relay: Callable[[bytes, Sequence[str]], None] | None = None,
    ) -> None:
        self.folder, self._relay = folder, relay
        self._lock = Lock()
        path = folder / NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise InputError(f"{path}: expected a file that can be written, for the journal: {error}") from error
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                os.close(self._file)
                raise InputError(
                    f"{path}: another campaign is writing to it; expected a folder of this one's own (--output)"
                ) from None
        self.began = time.time() if began is None else began
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")  # what was killed while it wrote
        self._write({"what": "begun", "version": VERSION, **begun.as_json()})

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._write({"what": "ended"})
        with self._lock:
            os.close(self._file)

    def done(
        self,
        seconds: float,
        graphs: Mapping[str, Any] | None = None,
        doors: Mapping[str, Door] | None = None,
        pairs: Iterable[tuple[str, str]] = (),
    ) -> None:
        """All that was done until now; pairs: those that are new. Branches that are new are added."""
        marked = None
        if branches.marking():
            marked = {"layout": branches.layout(), "all": branches.total(), "new": branches.fresh()}
        more = {"pairs": [list(p) for p in pairs], "branches": marked}
        told = {n: {"next": d.next, "counts": d.counts, "seconds": d.seconds} for n, d in (doors or {}).items()}
        self._write({"what": "done", "seconds": seconds, "graphs": graphs, "doors": told, **more})

    def find(self, find: Find) -> None:
        """A failure as it was found, or once more when it is reduced; it is on disk after that."""
        facts = {"door": find.door, "seed": find.seed, "facts": dict(find.facts)}
        self._write({"what": "find", **facts, "reduced": find.reduced, "files": list(find.files)})
        os.fsync(self._file)

    def _write(self, entry: Mapping[str, Any]) -> None:
        line = _line({"began": self.began, **entry})
        with self._lock:
            try:
                os.write(self._file, line)
            except OSError as error:
                raise InputError(f"{self.folder / NAME} cannot be written: {error}") from error
        if self._relay is not None:
            self._relay(line, entry.get("files", ()))


def read_journal(folder: Path) -> Before:
    """What the journal of a folder says of its last campaign. Raises InputError where there is none, or nothing in it
    can be read."""
    path = folder / NAME
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: expected the journal of a campaign to go on with: {error.strerror}") from None
    entries: list[Mapping[str, Any]] = []
    damaged = 0
    for line in content.split(b"\n"):
        entry = _entry(line) if line else None
        if entry is not None:
            entries.append(entry)
        elif line:
            damaged += 1
    begins = [e for e in entries if e["what"] == "begun"]
    if not begins:
        raise InputError(
            f"{path}: expected a line that says how the campaign was called; {damaged} of {damaged + len(entries)} "
            "lines are damaged; begin another campaign (--output)"
        )
    last = begins[-1]
    began = last["began"]
    begun = Begun(last["seed"], last["minutes"], last["door"], tuple(last["against"]), last.get("operators", ""))
    before = Before(begun, began, damaged=damaged)
    finds: dict[tuple[Any, ...], Find] = {}
    for entry in (e for e in entries if e["began"] == began):
        match entry["what"]:
            case "begun":
                before.ended = False
            case "ended":
                before.ended = True
            case "done":
                before.seconds = entry["seconds"]
                before.graphs = entry["graphs"] or {}
                before.doors |= {n: Door(d["next"], d["counts"], d["seconds"]) for n, d in entry["doors"].items()}
                before.pairs |= {(a, b) for a, b in entry["pairs"]}
                marked = entry["branches"]
                if marked is not None:
                    known = before.branches if marked["layout"] == before.layout else set()
                    before.branches = known | set(marked["new"])
                    before.layout, before.all_branches = marked["layout"], marked["all"]
                ops = len(before.graphs.get("ops", ()))
                before.history.append(
                    Moment(before.seconds, before.cases(), len(before.branches), ops, len(before.pairs))
                )
            case "find":
                found = Find(entry["door"], entry["seed"], entry["facts"], entry["reduced"], tuple(entry["files"]))
                earlier = finds.get(found.key)
                if earlier is None or not earlier.reduced or found.reduced:
                    finds[found.key] = found
    before.finds = list(finds.values())
    before.missing = sum(not (folder / name).is_file() for f in before.finds for name in f.files)
    return before


def counted(counts: Mapping[str, int]) -> Counter[str]:
    """Counts as they are gone on with."""
    return Counter(dict(counts))


def paths(folder: Path, finds: Sequence[Find]) -> list[Path]:
    """The files of finds that are there."""
    return [folder / n for f in finds for n in f.files if (folder / n).is_file()]


def _line(entry: Mapping[str, Any]) -> bytes:
    text = json.dumps(entry, separators=(",", ":")).encode()
    return f"{zlib.crc32(text):08x} ".encode() + text + b"\n"


_FIELDS: Mapping[str, Mapping[str, type | tuple[type, ...]]] = {
    "begun": {"seed": int, "minutes": (int, float), "door": str, "against": list},
    "done": {"seconds": (int, float), "graphs": (dict, type(None)), "doors": dict, "pairs": list},
    "find": {"door": str, "seed": int, "facts": dict, "reduced": bool, "files": list},
    "ended": {},
}


def _entry(line: bytes) -> Mapping[str, Any] | None:
    """A line's object; None where its checksum or its fields are others."""
    head, _, text = line.partition(b" ")
    with contextlib.suppress(ValueError):
        if len(head) == 8 and int(head, 16) == zlib.crc32(text):
            entry = json.loads(text)
            fields = _FIELDS.get(str(entry.get("what"))) if isinstance(entry, dict) else None
            if fields is not None and all(isinstance(entry.get(n), t) for n, t in fields.items()) and "began" in entry:
                return dict(entry)
    return None

"""A file of records: a line that says its version, then one record a line, each with its checksum."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from effcc.fuzz.learned.record import DamagedError, Record

VERSION = 1
_HEAD = "effcc trace, version "


@dataclass
class Read:
    """What was in a file: its records, how many lines were damaged, and why the whole file was skipped, if it was."""

    records: list[Record] = field(default_factory=list)
    damaged: int = 0
    skipped: str = ""


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number, staged = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(number, "w") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(staged, 0o666 & ~umask)  # mkstemp lets nobody else read
        os.replace(staged, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(staged)
        raise


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write a trace whole or not at all."""
    write_whole(path, "".join(f"{line}\n" for line in (f"{_HEAD}{VERSION}", *(r.text for r in records))))


def read_records(path: Path) -> Read:
    """The records of a trace. What is damaged is skipped and counted, as is a file of another version or kind."""
    found = Read()
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        found.skipped = f"{path}: cannot be read: {error.strerror}"
        return found
    head = lines[0] if lines else ""
    if not head.startswith(_HEAD):
        found.skipped = f"{path}: expected a trace, whose first line is '{_HEAD}{VERSION}'; got '{head[:60]}'"
        return found
    if head != f"{_HEAD}{VERSION}":
        told = head[len(_HEAD) :][:20]
        found.skipped = f"{path}: is a trace of version {told}, expected version {VERSION}: trace again"
        return found
    for line in lines[1:]:
        try:
            found.records.append(Record.parse(line))
        except DamagedError:
            found.damaged += 1
    return found

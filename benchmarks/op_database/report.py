"""What was found: kept as lines of JSON, counted, and as a table of operators."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.op_database.calls import DTYPES, KINDS
from benchmarks.op_database.outcome import FAILED, STATUSES, Outcome
from benchmarks.op_database.workers import Task

Found = Mapping[Task, Sequence[Outcome]]

_WORST_FIRST = (*FAILED, "refused", "capture", "broken", "extern", "native", "skipped")
_MARKS = {
    "native": "n", "extern": "e", "broken": "b", "refused": "r", "capture": "c", "skipped": ".", "": " ",
    "values": "VALUES", "layout": "LAYOUT", "error": "ERROR", "crash": "CRASH",
}  # fmt: skip

LEGEND = """# PyTorch's operator database, compiled

Each operator is what its worst call came to: `n` native; `e` right, PyTorch runs part of it; `b` right, in several
graphs, since torch.compile traces none as one; `r` refused by a typed error; `c` capture alone differs from eager,
whatever the backend; `.` no call, or eager refuses it; a word in capitals is a failure; nothing: not run.
"""


def line(task: Task, outcomes: Sequence[Outcome]) -> str:
    """A task and its outcomes as a line of JSON."""
    return json.dumps({"task": dataclasses.asdict(task), "outcomes": [dataclasses.asdict(o) for o in outcomes]}) + "\n"


def read(path: Path) -> dict[Task, list[Outcome]]:
    """What `line` wrote into a file; a last line that was cut off is left out, and of a task done twice the last one
    counts."""
    found: dict[Task, list[Outcome]] = {}
    for text in path.read_text().splitlines(keepends=True):
        if text.endswith("\n"):
            fields = json.loads(text)
            outcomes = [Outcome(**{**o, "externs": tuple(o["externs"])}) for o in fields["outcomes"]]
            found[Task(**fields["task"])] = outcomes
    return found


def worst(outcomes: Sequence[Outcome]) -> str:
    """An operator is what its worst call is."""
    return min((o.status for o in outcomes), key=_WORST_FIRST.index, default="skipped")


def counts(found: Found) -> str:
    """Operators by what their worst call came to, a row for each kind and dtype."""
    rows: dict[tuple[str, str], collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for task, outcomes in found.items():
        rows[task.kind, task.dtype][worst(outcomes)] += 1
        rows[task.kind, task.dtype]["calls"] += len(outcomes)
    columns = [*STATUSES, "calls"]
    lines = [f"{'operators':20}" + "".join(f"{c:>10}" for c in columns)]
    for (kind, dtype), row in rows.items():
        lines.append(f"{kind + ' ' + dtype:20}" + "".join(f"{row[c]:>10}" for c in columns))
    return "\n".join(lines)


def reasons(found: Found) -> str:
    """The ops that PyTorch runs, by the number of operators in whose calls it does."""
    users: dict[str, set[str]] = collections.defaultdict(set)
    for task, outcomes in found.items():
        for op in {op for o in outcomes for op in o.externs}:
            users[op].add(task.name)
    lines = sorted(((len(names), op) for op, names in users.items()), key=lambda item: (-item[0], item[1]))
    return "\n".join(f"{count:5} {op}" for count, op in lines)


def table(found: Found) -> str:
    """Operators by kinds and dtypes in Markdown: each is what its worst call came to."""
    columns = [
        (kind, dtype) for kind in KINDS for dtype in DTYPES if any((t.kind, t.dtype) == (kind, dtype) for t in found)
    ]
    cells = {(t.name, t.kind, t.dtype): worst(outcomes) for t, outcomes in found.items()}
    lines = [
        "| operator | " + " | ".join(f"{kind} {dtype}" for kind, dtype in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for name in dict.fromkeys(t.name for t in found):
        marks = [_MARKS[cells.get((name, kind, dtype), "")] for kind, dtype in columns]
        lines.append(f"| {name} | " + " | ".join(marks) + " |")
    return "\n".join(lines) + "\n"

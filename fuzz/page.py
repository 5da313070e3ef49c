"""A campaign as a page: one HTML file that loads nothing, made from the journal alone, while it goes on and at the end.

Branches of passes and codegen over time, operators and pairs of operators reached, cases a minute by door, failures by
kind, and divergences of peers apart. A page of a campaign that goes on reloads itself.
"""

from __future__ import annotations

import string
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from types import TracebackType
from typing import Any

from effcc.errors import InputError
from effcc.fuzz.journal import Before, Find, Moment, read_journal
from effcc.ir.ops import TABLE
from effcc.page import style
from effcc.runtime.files import write_whole

EVERY = 30.0  # seconds between two pages of a campaign that goes on
_WIDTH, _HEIGHT = 1000.0, 100.0
_MOMENTS = 400  # of a curve
_PAGE = string.Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
$again<title>$title</title>
<style>
$style
svg { cursor: default; }
svg path.curve { stroke: var(--water); stroke-width: 2; fill: none; vector-effect: non-scaling-stroke; }
svg path.second { stroke: var(--hot); }
.ends i.curve { background: var(--water); }
.ends i.second { background: var(--hot); }
.matrix { height: auto; aspect-ratio: 1; width: 100%; max-width: 60em; }
.matrix rect { fill: var(--filled); stroke: none; }
.names { columns: 11em; font: 12px/1.5 ui-monospace, monospace; }
.names .none { color: var(--hot); }
.wide table { width: auto; }
tbody tr { cursor: default; }
td.words { white-space: pre-wrap; overflow-wrap: anywhere; }
</style>
</head>
<body>
<header><h1>$title</h1><span id="state">$state</span></header>
<main>
$body
</main>
</body>
</html>
""")


def page_text(before: Before) -> str:
    """The page of what a journal says."""
    state = f"{before.seconds / 60:.1f} minutes, {'ended' if before.ended else 'goes on'}"
    if before.damaged:
        state += f"; {before.damaged} damaged lines of the journal left out"
    mine = [f for f in before.finds if f.door != "peer"]
    body = [
        '<section class="plots">', *_curves(before), "</section>",
        _doors(before), _failures("Failures", mine), _failures("Divergences of peers", before.of("peer")),
        _operators(before.graphs.get("ops", {}), before.pairs) if before.graphs else "",
    ]  # fmt: skip
    return _PAGE.substitute(
        title=f"effcc fuzz: seed {before.begun.seed}, {escape(before.begun.door)}",
        again="" if before.ended else f'<meta http-equiv="refresh" content="{EVERY:.0f}">\n',
        state=escape(state),
        style=style(),
        body="\n".join(body),
    )


def write_page(folder: Path, path: Path) -> Path:
    """Write the page of a campaign's folder, whole or not at all. Raises InputError where it cannot be written, or
    there is no journal."""
    text = page_text(read_journal(folder))
    try:
        return write_whole(path, text)
    except OSError as error:
        raise InputError(f"{path}: expected a file that can be written, for the page: {error}") from error


class Pages:
    """Writes the page of a campaign's folder every now and then, and at the end; use it as a context manager."""

    def __init__(self, folder: Path, path: Path, every: float = EVERY) -> None:
        self._folder, self._path, self._every = folder, path, every
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)

    def __enter__(self) -> Pages:
        write_page(self._folder, self._path)  # which says at once what is wrong with the path
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        write_page(self._folder, self._path)

    def _go_on(self) -> None:
        while not self._ended.wait(self._every):
            write_page(self._folder, self._path)


# Parts ----------------------------------------------------------------------------------------------------------------


def _curves(before: Before) -> Iterable[str]:
    history = before.history
    if before.all_branches:
        share = len(before.branches) / before.all_branches
        note = f"{len(before.branches):,} of {before.all_branches:,}, {share:.1%}"
        points = [(m.seconds, m.branches) for m in history]
        yield _figure("branches", "Branches of passes and codegen", [("curve", "taken", points)], note, before.seconds)
    if before.graphs:
        pairs = [(m.seconds, m.pairs) for m in history]
        note = f"{len(before.pairs):,} pairs, {len(before.graphs.get('ops', ()))} operators"
        yield _figure("pairs", "Pairs of operators", [("curve", "pairs", pairs)], note, before.seconds)
        ops = [(m.seconds, m.ops) for m in history]
        yield _figure("ops", "Operators", [("curve", "operators", ops)], note, before.seconds)
    cases = [(m.seconds, sum(m.cases.values())) for m in history]
    yield _figure("cases", "Cases", [("curve", "all doors", cases)], f"{_last(cases):,.0f} cases", before.seconds)


def _last(points: Sequence[tuple[float, float]]) -> float:
    return points[-1][1] if points else 0.0


def _figure(
    name: str, title: str, curves: Sequence[tuple[str, str, Sequence[tuple[float, float]]]], note: str, end: float
) -> str:
    """Curves over time, from nothing; each with its class and what it shows."""
    top = max([1.0, *(y for _, _, points in curves for _, y in points)])
    shapes = []
    for kind, told, points in curves:
        some = [*points[:: max(1, len(points) // _MOMENTS)], *points[-1:]]
        line = "".join(f"L{_WIDTH * x / max(end, 1e-9):.1f} {_HEIGHT * (1 - y / top):.2f}" for x, y in some)
        shapes.append(f'<path class="{kind}" d="M0 {_HEIGHT:g}{line}"><title>{escape(told)}</title></path>')
    grid = "".join(f'<path class="grid" d="M0 {_HEIGHT * s:g}H{_WIDTH:g}"/>' for s in (0.25, 0.5, 0.75))
    return (
        f'<figure id="{name}"><figcaption>{escape(title)}</figcaption><div class="plot">'
        f'<div class="ticks"><span>{top:,.0f}</span><span>{top / 2:,.0f}</span><span>0</span></div>'
        f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" preserveAspectRatio="none" role="img" aria-label="{escape(title)}">'
        f"{grid}{''.join(shapes)}</svg></div>"
        f'<div class="ends"><span>0</span><span>{escape(note)}</span><span>{end / 60:.1f} min</span></div></figure>'
    )


def _doors(before: Before) -> str:
    finds = Counter(f.door for f in before.finds)
    rows = []
    for door, cases in before.cases().items():
        counts = before.doors[door].counts if door in before.doors else {}
        apart = ", ".join(f"{count} {name}" for name, count in counts.items() if name)
        rows.append((door, f"{cases:,}", f"{_rate(before.history, door):.1f}", str(finds[door]), apart))
    return _table("doors", "Doors", ("door", "cases", "a minute", "failures", "of these"), rows)


def _rate(history: Sequence[Moment], door: str) -> float:
    last = history[-1] if history else None
    return last.cases.get(door, 0) / last.seconds * 60 if last is not None and last.seconds else 0.0


def _failures(title: str, finds: Sequence[Find]) -> str:
    if not finds:
        return f'<section class="program"><h2>{escape(title)}</h2><p>none</p></section>'
    kinds: dict[tuple[str, str, str], list[Find]] = {}
    for find in finds:
        kinds.setdefault((find.door, str(find.facts.get("step", "")), str(find.facts.get("kind", ""))), []).append(find)
    rows = []
    for (door, step, kind), alike in sorted(kinds.items(), key=lambda item: -len(item[1])):
        first = str(alike[0].facts.get("message", "")).splitlines() or [""]
        files = ", ".join(name for f in alike[:3] for name in f.files if name.endswith(".py"))
        rows.append((door, step, kind, str(len(alike)), files, first[0][:200]))
    name = title.split()[0].lower()
    return _table(name, title, ("door", "step", "kind", "count", "scripts", "the first"), rows)


def _table(name: str, title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(h)}</th>" for h in heads)
    lines = [
        f"<tr><th>{escape(row[0])}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:-1])}"
        f'<td class="words">{escape(row[-1])}</td></tr>'
        for row in rows
    ]
    return (
        f'<section id="{name}"><h2>{escape(title)}</h2><div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div></section>"
    )


def _operators(ops: Mapping[str, Any], pairs: set[tuple[str, str]]) -> str:
    """Every operator with how often it came, and which reads what which gives: producers downwards."""
    known = [op.name for op in TABLE.values() if op.reference is not None and op.kind not in ("control", "opaque")]
    names = "".join(
        f"<div>{escape(n)} {ops[n]:,}</div>" if n in ops else f'<div class="none">{escape(n)} 0</div>' for n in known
    )
    at = {name: k for k, name in enumerate(known)}
    squares = "".join(
        f'<rect x="{at[b]}" y="{at[a]}" width="1" height="1"><title>{escape(a)} &gt; {escape(b)}</title></rect>'
        for a, b in sorted(pairs)
        if a in at and b in at
    )
    return (
        f'<section id="operators"><h2>Operators: {len(ops)} of {len(known)}</h2><div class="names">{names}</div>'
        f"<h2>Pairs: what a row gives, a column reads</h2>"
        f'<svg class="matrix" viewBox="0 0 {len(known)} {len(known)}" role="img" aria-label="pairs of operators">'
        f"{squares}</svg></section>"
    )

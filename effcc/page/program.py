"""One program on the page: its table of kernels, and the panes that show it in every language.

Kernels, and calls to PyTorch after them, are numbered; what belongs to number 3 says so: `data-k="3"`. By that the
script finds what to select, and colours it. Each has an entry in every pane: `p0-cascade-3` is that of the first
program's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from effcc.explanation_text import about
from effcc.page.compared import compared
from effcc.page.plots import plots

if TYPE_CHECKING:
    from effcc.comparison import ProgramComparison
    from effcc.explanation import ExternReport, KernelReport, ProgramReport

PANES = {"model": "Model", "graph": "Graph", "cascade": "Cascade", "schedule": "Schedule", "code": "C++"}
_LOCATION = re.compile(r"(?P<file>.*?):(?P<line>\d+):(?P<code>.*)", re.DOTALL)
_WORD = re.compile(r"[A-Za-z_]\w*")
_DEFINED = re.compile(r"\s*(\w+)\[.*?\] (?:\w+)?= |\s*(\w+) = ")


class Program:
    """A program's report, its number on the page, and how it differs from another compile's, where one is given."""

    def __init__(self, report: ProgramReport, number: int, change: ProgramComparison | None = None) -> None:
        self.report = report
        self.number = number
        self.change = change
        kernels = {kernel.name: k for k, kernel in enumerate(report.kernels)}
        self._of_step = [
            kernels.get(s.kernel, None if s.extern is None else len(kernels) + s.extern) for s in report.steps
        ]
        self.names = [f"@{k.name}" for k in report.kernels] + [e.operator for e in report.externs]

    def html(self) -> str:
        """The program's section of the page."""
        report = self.report
        panes = {
            "model": self._model(),
            "graph": self._graph(),
            "cascade": self._each(self._cascade, self._extern),
            "schedule": self._each(self._schedule, lambda e: _lines([f"run by PyTorch: {e.reason}"])),
            "code": self._code(),
        }
        shown = "\n".join(
            f'<section class="pane {name}" aria-label="{PANES[name]}"><h3>{PANES[name]}</h3>'
            f'<div class="body" tabindex="0">{inside}</div></section>'
            for name, inside in panes.items()
        )
        change = compared(self.change, {k.name: n for n, k in enumerate(report.kernels)}) if self.change else ""
        launches = sum(k.launches for k in report.kernels)
        head = f"for {report.target}: {len(report.kernels)} kernels, {launches} launches a call"
        head += "".join(f"; {n} = {v}" for n, v in report.sizes.items())
        head += f"; nothing was measured: {report.problem}" if report.problem else ""
        return (
            f'<section class="program" data-p="{self.number}"><h2>program {escape(report.name)}</h2>'
            f"<p>{escape(head)}</p>"
            f'{self._table()}{plots(report)}<p class="chosen" aria-live="polite">Choose a kernel or a line.</p>'
            f'<div class="panes">{shown}</div>{change}'
            f'<pre class="about">{escape(chr(10).join(about(report)))}</pre></section>'
        )

    def data(self) -> dict[str, Any]:
        """What the script needs to know: of each kernel and call, by number, its figures and what they are to read."""
        kernels, externs = self.report.kernels, self.report.externs
        none: list[float | None] = [None] * len(externs)
        return {
            "names": self.names,
            "time": [k.measured for k in kernels] + [e.measured for e in externs],
            "share": [k.roofline / k.measured if k.measured else None for k in kernels] + none,
            "error": [k.deviation.rms if k.deviation and not k.deviation.skipped else None for k in kernels] + none,
            "bytes": [k.bytes for k in kernels] + none,
        }

    # The table --------------------------------------------------------------------------------------------------------

    def _table(self) -> str:
        headings = "".join(
            f"<th>{h}</th>"
            for h in ("kernel", "launches", "time", "limit", "share", "MFLOP", "MB", "predicted", "error", "verdict")
        )
        rows = []
        for k, kernel in enumerate(self.report.kernels):
            share = f"{100 * kernel.roofline / kernel.measured:.0f} %" if kernel.measured else "-"
            cells = [
                str(kernel.launches), micro(kernel.measured), micro(kernel.roofline), share,
                f"{kernel.flops / 1e6:.2f}", f"{kernel.bytes / 1e6:.3f}", micro(kernel.predicted),
                _error(kernel), kernel.verdict,
            ]  # fmt: skip
            rows.append((kernel.measured or kernel.roofline, self._row(k, cells)))
        for k, extern in enumerate(self.report.externs, len(self.report.kernels)):
            cells = ["1", micro(extern.measured), "-", "-", "-", "-", "-", "-", f"run by PyTorch: {extern.reason}"]
            rows.append((extern.measured or 0.0, self._row(k, cells)))
        body = "".join(row for _, row in sorted(rows, key=lambda r: -r[0]))
        return f'<div class="wide"><table><thead><tr>{headings}</tr></thead><tbody>{body}</tbody></table></div>'

    def _row(self, k: int, cells: Sequence[str]) -> str:
        name = f'<th scope="row" class="heat">{self._link(k)}</th>'
        *figures, words = map(escape, cells)
        shown = "".join(f"<td>{f}</td>" for f in figures)
        return f'<tr id="{self._id("row", k)}" data-k="{k}">{name}{shown}<td class="words">{words}</td></tr>'

    # Panes ------------------------------------------------------------------------------------------------------------

    def _model(self) -> str:
        """The model's lines, each with the kernels that compute something of it."""
        found: dict[tuple[str, int, str], set[int]] = {}
        unknown: set[int] = set(range(len(self.names)))
        for node in self.report.nodes:
            place = _LOCATION.match(node.location)
            if place is not None:
                ks = self._kernels(node.steps)
                key = (place["file"], int(place["line"]), place["code"].strip())
                found.setdefault(key, set()).update(ks)
                unknown -= ks
        files: dict[str, list[str]] = {}
        for (file, line, code), ks in sorted(found.items()):
            files.setdefault(file, []).append(
                f'<div class="ln heat" data-k="{_joined(ks)}"><b>{line}</b> {escape(code)}</div>'
            )
        shown = "".join(f"<h4>{escape(file)}</h4>{''.join(lines)}" for file, lines in files.items())
        return shown + self._without(unknown, "without a line of the model")

    def _graph(self) -> str:
        """The graph, a line a node."""
        shown: set[int] = set()
        lines = []
        for node in self.report.nodes:
            ks = self._kernels(node.steps)
            shown |= ks
            lines.append(
                f'<div class="ln heat" data-k="{_joined(ks)}" data-s="{escape(node.op)}">{escape(node.text)}</div>'
            )
        head, _, end = self.report.head.partition("\n")
        rest = set(range(len(self.names))) - shown
        if not self.report.nodes:
            return self._without(rest, "compiled from a program, without a graph")
        return (
            f'<div class="ln">{escape(head)}</div>{"".join(lines)}{_lines(end.splitlines())}'
            f"{self._without(rest, 'not of the graph: made by the compiler')}"
        )

    def _without(self, ks: Iterable[int], why: str) -> str:
        links = "".join(f'<div class="ln heat" data-k="{k}">{escape(self.names[k])}</div>' for k in sorted(ks))
        return f"<h4>{escape(why)}</h4>{links}" if links else ""

    def _each(self, kernel: Any, extern: Any) -> str:
        """An entry for each kernel and call."""
        pane = kernel.__name__.strip("_")
        reports = [*map(kernel, self.report.kernels), *map(extern, self.report.externs)]
        return "".join(
            f'<section class="entry" id="{self._id(pane, k)}" data-k="{k}">'
            f'<h4 class="heat" data-k="{k}">{escape(self.names[k])}</h4>{inside}</section>'
            for k, inside in enumerate(reports)
        )

    def _cascade(self, kernel: KernelReport) -> str:
        """The cascade, how it came to be, and the loops that it became."""
        targets = _targets(kernel)
        before, steps = [""], []
        for step, text in kernel.history:
            lines = text.splitlines()
            steps.append(
                f"<details><summary>after {escape(step)}</summary>{_lines(lines, targets, known=before)}</details>"
            )
            before = lines
        final = _lines(kernel.text.splitlines(), targets)
        notes = "".join(f"<p>{escape(n)}</p>" for n in kernel.notes)
        loops = f'<details><summary>loops</summary><pre class="text">{escape(kernel.loops)}</pre></details>'
        return f"{final}{notes}{''.join(steps) if len(steps) > 1 else ''}{loops}"

    def _schedule(self, kernel: KernelReport) -> str:
        return _lines(kernel.schedule.splitlines(), _targets(kernel))

    def _extern(self, extern: ExternReport) -> str:
        return _lines([f"extern {extern.operator}", f"because {extern.reason}", *_known(extern.location)])

    def _code(self) -> str:
        """The C++: equal kernels share an entry."""
        users: dict[str, list[int]] = {}
        for k, kernel in enumerate(self.report.kernels):
            users.setdefault(kernel.unit, []).append(k)
        entries = [
            f'<section class="entry" id="{self._id("code", min(ks))}" data-k="{_joined(ks)}">'
            f"<h4>{', '.join(self._label(k) for k in ks)}</h4>"
            f'<pre class="text">{escape(self.report.code.get(unit, ""))}</pre></section>'
            for unit, ks in users.items()
        ]
        for k, extern in enumerate(self.report.externs, len(self.report.kernels)):
            entries.append(
                f'<section class="entry" id="{self._id("code", k)}" data-k="{k}"><h4>{self._label(k)}</h4>'
                f"{_lines([f'run by PyTorch: {extern.reason}'])}</section>"
            )
        return "".join(entries)

    # What they share --------------------------------------------------------------------------------------------------

    def _id(self, pane: str, k: int) -> str:
        return f"p{self.number}-{pane}-{k}"

    def _link(self, k: int) -> str:
        return f'<a href="#{self._id("cascade", k)}">{escape(self.names[k])}</a>'

    def _label(self, k: int) -> str:
        return f'<span class="heat" data-k="{k}">{escape(self.names[k])}</span>'

    def _kernels(self, steps: Iterable[int]) -> set[int]:
        return {k for s in steps if (k := self._of_step[s]) is not None}


def micro(seconds: float | None) -> str:
    """Seconds as microseconds, with their unit."""
    return "-" if seconds is None else f"{seconds * 1e6:,.1f} us"


def _error(kernel: KernelReport) -> str:
    """The root mean square error beside the results'."""
    if kernel.deviation is None:
        return "-"
    return "not compared" if kernel.deviation.skipped else f"{kernel.deviation.rms:.1e}"


def _known(location: str) -> list[str]:
    return [location] if location else []


def _joined(numbers: Iterable[int]) -> str:
    return " ".join(map(str, sorted(numbers)))


def _targets(kernel: KernelReport) -> set[str]:
    """What the kernel's statements define."""
    found = (_DEFINED.match(line) for line in kernel.text.splitlines()[1:])
    return {m[1] or m[2] for m in found if m}


def _lines(lines: Iterable[str], targets: set[str] | None = None, known: Sequence[str] | None = None) -> str:
    """Lines of text. targets: names to which a line belongs that holds them, a definition only to the one defined;
    known: lines that are not new."""
    shown = []
    for line in lines:
        names: list[str] = []
        if targets:
            defined = _DEFINED.match(line)
            names = [defined[1] or defined[2]] if defined else [w for w in _WORD.findall(line) if w in targets]
        belongs = f' data-s="{escape(" ".join(dict.fromkeys(names)))}"' if names else ""
        kind = "ln" if known is None or line in known else "ln new"
        shown.append(f'<div class="{kind}"{belongs}>{escape(line)}</div>')
    return "".join(shown)

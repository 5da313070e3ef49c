"""An explanation as a page: one HTML file with its style and script inside, which loads nothing.

Model lines, graph, cascades, schedules and C++ stand side by side; whoever chooses a kernel or a line in one of them
sees what belongs to it in the others.
"""

from __future__ import annotations

import json
import string
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcc.comparison import compare
from effcc.compression.report import layers_text
from effcc.errors import InputError
from effcc.page.compared import compared
from effcc.page.program import Program
from effcc.runtime.files import write_whole

if TYPE_CHECKING:
    from effcc.explanation import Explanation

_FOLDER = Path(__file__).absolute().parent


def page_text(explanation: Explanation, against: Explanation | None = None, title: str = "") -> str:
    """The page as text. against: another compile, that this one is compared with. title: of the page; default: the
    programs' names."""
    changes = compare(against, explanation).programs if against is not None else ()
    programs = [Program(report, n, *changes[n : n + 1]) for n, report in enumerate(explanation.programs)]
    title = title or ", ".join(p.report.name for p in programs) or "nothing compiled"
    return string.Template(_part("page.html")).substitute(
        title=escape(f"effcc: {title}"),
        style=_part("page.css"),
        script=_part("page.js"),
        programs="\n".join([*(p.html() for p in programs), *(compared(c, {}) for c in changes[len(programs) :])]),
        layers=_layers(explanation),
        breaks=_breaks(explanation),
        data=_as_script([p.data() for p in programs]),
    )


def write_page(explanation: Explanation, path: Path, against: Explanation | None = None, title: str = "") -> Path:
    """Write the page to a file, which is whole or absent. Raises InputError where it cannot be written."""
    text = page_text(explanation, against, title)
    try:
        write_whole(path, text)
    except OSError as error:
        raise InputError(f"{path}: expected a file that can be written, for the page: {error}") from error
    return path


def style() -> str:
    """The pages' style sheet, light and dark, for other pages."""
    return _part("page.css")


def _part(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _layers(explanation: Explanation) -> str:
    """How the model's weights are stored, where it was asked to store some."""
    if not explanation.layers:
        return ""
    return (
        f'<section><h2>Stored weights</h2><pre class="about">{escape(layers_text(explanation.layers))}</pre></section>'
    )


def _breaks(explanation: Explanation) -> str:
    if not explanation.graph_breaks:
        return ""
    rows = "".join(f"<li>{count} x {escape(reason)}</li>" for reason, count in explanation.graph_breaks.items())
    return f"<section><h2>Graph breaks in this process</h2><ul>{rows}</ul></section>"


def _as_script(value: Any) -> str:
    """JSON that may stand in a script element: nothing in it ends the element or opens a comment."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")

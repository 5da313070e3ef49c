"""A comparison on the page: figures, then every kernel before and after, with what differs."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effcc.comparison import Pair, ProgramComparison

_KINDS = {"+": "ln new", "-": "ln gone", "@": "ln place"}


def compared(comparison: ProgramComparison, numbers: Mapping[str, int]) -> str:
    """The section of a program. numbers: of the kernels on the page, by name: they are what the rows choose."""
    figures = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{_figure(name, a)}</td><td>{_figure(name, b)}</td>'
        f"<td>{_ratio(a, b)}</td></tr>"
        for name, (a, b) in comparison.figures.items()
    )
    rows = "".join(_row(pair, numbers) for pair in comparison.pairs)
    graph = f"<details><summary>the graph differs</summary>{_diff(comparison.graph)}</details>"
    return (
        f'<section class="compared"><h2>Before and after</h2>'
        f"<p>before: {escape(comparison.before or 'nothing')}; after: {escape(comparison.after or 'nothing')}</p>"
        f'<div class="wide"><table><thead><tr><th>a call</th><th>before</th><th>after</th><th>after / before</th></tr>'
        f"</thead><tbody>{figures}</tbody></table></div>{graph if comparison.graph else ''}"
        f'<div class="wide"><table><thead><tr><th>kernel</th><th>before</th><th>time before</th><th>time after</th>'
        f"<th>after / before</th><th>differs in</th></tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _row(pair: Pair, numbers: Mapping[str, int]) -> str:
    k = numbers.get(pair.after)
    chooses = f' data-k="{k}"' if k is not None else ""
    if not pair.before or not pair.after:
        differs = "only after" if pair.after else "only before"
    else:
        differs = "".join(
            f"<details><summary>{escape(what)}</summary>{_diff(text)}</details>" for what, text in pair.changes.items()
        )
    name, before = (f"@{escape(n)}" if n else "-" for n in (pair.after, pair.before))
    seconds = [_figure("seconds", s) for s in (pair.before_seconds, pair.after_seconds)]
    return (
        f'<tr{chooses}><th scope="row">{name}</th><td>{before}</td><td>{seconds[0]}</td><td>{seconds[1]}</td>'
        f"<td>{_ratio(pair.before_seconds, pair.after_seconds)}</td><td>{differs or 'nothing'}</td></tr>"
    )


def _diff(text: str) -> str:
    lines = (f'<div class="{_KINDS.get(line[:1], "ln")}">{escape(line)}</div>' for line in text.splitlines())
    return f'<div class="diff">{"".join(lines)}</div>'


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1e6:,.1f} us" if name == "seconds" else f"{value:,.0f}"


def _ratio(before: float | None, after: float | None) -> str:
    return f"{after / before:.2f}" if before and after is not None else "-"

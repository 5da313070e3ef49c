"""Figures as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import rich.console
import rich.table

from benchmarks.peers import Peer


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table whose first column names the row."""
    table = rich.table.Table(title=title, title_justify="left")
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position == 0 else "right")
    for row in rows:
        table.add_row(*row)
    rich.console.Console(width=None if rich.console.Console().is_terminal else 160).print(table)


def counts(items: Mapping[str, int]) -> str:
    """`{"aten::sort": 2}` as `aten::sort x2`; "none" where it is empty."""
    return ", ".join(f"{name} x{count}" for name, count in items.items()) or "none"


def skip_missing(peer: Peer) -> bool:
    """Say which packages a peer lacks, if any, and whether to leave it out."""
    if peer.missing:
        print(f"{peer.name} is left out: pip install {' '.join(peer.missing)}")
    return bool(peer.missing)

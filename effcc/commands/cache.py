"""`effcc cache`: look into the compile cache, shrink it, empty it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import typer

from effcc.commands.output import format_bytes, print_json, print_table
from effcc.runtime.cache import CompileCache, Entry, parse_size

app = typer.Typer(no_args_is_help=True, help="List, prune or clear the compiled libraries and kernels in the cache.")
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list", epilog="Example: effcc cache list --json")
def list_entries(json: Json = False) -> None:
    """List what the cache holds, the most recently used first."""
    cache = CompileCache.default()
    entries = cache.entries()
    if json:
        print_json({"folder": str(cache.folder), "limit": cache.limit, "entries": [_as_json(e) for e in entries]})
        return
    total = sum(entry.size for entry in entries)
    used, limit = format_bytes(total), format_bytes(cache.limit)
    print(f"{cache.folder}: {_counted(entries)}, {used} of {limit}")
    if entries:
        rows = [(e.key, e.kind, format_bytes(e.size), time.strftime("%Y-%m-%d %H:%M", time.localtime(e.last_used)))
                for e in entries]  # fmt: skip
        print_table(("key", "kind", "size", "last used"), rows, right=("size",))


@app.command(epilog="Example: effcc cache prune --limit 500MB")
def prune(
    limit: Annotated[
        str, typer.Option(help="Bytes to keep, such as 500MB or 2GiB; the cache's own limit if left out.")
    ] = "",
    json: Json = False,
) -> None:
    """Remove what was used least recently until the cache is within a limit."""
    cache = CompileCache.default()
    _report(cache.prune(parse_size(limit) if limit else None), json)


@app.command(epilog="Example: effcc cache clear")
def clear(json: Json = False) -> None:
    """Remove everything that no other process is loading at the moment."""
    _report(CompileCache.default().clear(), json)


def _report(removed: list[Entry], json: bool) -> None:
    if json:
        print_json({"removed": [_as_json(entry) for entry in removed]})
    else:
        print(f"removed {_counted(removed)}, {format_bytes(sum(entry.size for entry in removed))}")


def _counted(entries: Sequence[Entry]) -> str:
    count = Counter(entry.kind for entry in entries)
    return f"{count['library']} libraries, {count['object']} objects of kernels and {count['program']} programs"


def _as_json(entry: Entry) -> dict[str, object]:
    named = {"key": entry.key, "kind": entry.kind, "file": str(entry.file)}
    return {**named, "bytes": entry.size, "last_used": entry.last_used}

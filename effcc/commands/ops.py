"""`effcc ops`: what becomes of each of PyTorch's core operators, and the ops of effcc's own language."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from effcc.commands.output import print_json, print_table
from effcc.errors import UnknownNameError
from effcc.ir.ops import TABLE

STATUSES = ("native", "extern", "missing")


def ops(
    own: Annotated[bool, typer.Option("--own", help="List effcc's own ops instead.")] = False,
    status: Annotated[str, typer.Option(help="Only overloads that are native, extern or missing.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every operator overload that PyTorch's dispatcher tags core: native, extern with the reason, or missing."""
    if status and status not in STATUSES:
        raise UnknownNameError("status", status, STATUSES)
    if own:
        _list_own(json)
        return
    from effcc.frontend.coverage import coverage

    found = coverage()
    count = Counter(row.status for row in found)
    shown = [row for row in found if not status or row.status == status]
    if json:
        overloads = [{"overload": row.overload, "status": row.status, "reason": row.reason} for row in shown]
        print_json({"count": {name: count[name] for name in STATUSES}, "overloads": overloads})
        return
    print_table(("overload", "status", "why"), [(row.overload, row.status, row.reason) for row in shown])
    print(f"\n{len(found)} core overloads: " + ", ".join(f"{count[name]} {name}" for name in STATUSES))


def _list_own(json: bool) -> None:
    if json:
        print_json([{"op": op.name, "kind": op.kind, "summary": op.summary} for op in TABLE.values()])
    else:
        print_table(("op", "kind", "what it computes"), [(op.name, op.kind, op.summary) for op in TABLE.values()])
        print(f"\n{len(TABLE)} ops")

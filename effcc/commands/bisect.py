"""`effcc bisect`: which pass, rule or kernel makes a result of a script's wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effcc.commands.output import print_json


def bisect(
    script: Annotated[Path, typer.Argument(help="A Python script that compiles with effcc.", show_default=False)],
    arguments: Annotated[list[str] | None, typer.Argument(help="The script's own arguments.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The folder to write; bisect-SCRIPT if left out.", show_default=False),
    ] = None,
    calls: Annotated[
        int | None, typer.Option(min=1, help="Compare only so many calls of each program; all if left out.")
    ] = None,
    reduce: Annotated[float, typer.Option(min=0.0, help="Seconds for reducing the program; 0 leaves it whole.")] = 60,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run a script, compare every call of every program that effcc compiles in it with eager PyTorch and a float64
    reference, and find what makes the first wrong one wrong: the step of the compiler, the pass, the rewrite rule, the
    kernel, a race, or memory that buffers share.

    Options stand before the script. Exit code 0: all is right; 1: something is wrong, and the folder holds the reduced
    IR, its inputs, and repro.py, which shows it.
    """
    from effcc.bisection.search import search

    found = search(script, arguments or [], output or Path(f"bisect-{script.stem}"), calls, reduce)
    if json:
        print_json(found.as_json())
    else:
        print(found)
    if not found.is_right:
        raise typer.Exit(1)

"""`effcc run`: a compiled package on tensors from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effcc.commands.output import print_json


def run(
    package: Annotated[Path, typer.Argument(help="What `effcc compile` wrote.")],
    inputs: Annotated[Path, typer.Argument(help="A safetensors file that holds the inputs by name.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the results to this safetensors file.")
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Run so many times, and report the median time.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run a compiled package, and print the shapes and ranges of its results and the time it took."""
    from effcc.driver import run_package

    report = run_package(package, inputs, output, repeat=repeat)
    if json:
        print_json(report.as_json())
    else:
        print(report)

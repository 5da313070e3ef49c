"""`effcc explain`: what the compiler made of a model, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effcc.commands.output import print_json, progress_console
from effcc.target import parse


def explain(
    model: Annotated[Path, typer.Argument(help="A .pt2 file of torch.export, or a printed IR.")],
    target: Annotated[str, typer.Option(help="host, or a generic machine: amx, avx512, avx2 or scalar.")] = "host",
    source: Annotated[bool, typer.Option("--source", help="Print the generated code as well.")] = False,
    measure: Annotated[bool, typer.Option(help="Run each kernel and print its time beside the prediction.")] = True,
    fast_math: Annotated[
        bool, typer.Option("--fast-math", help="Rewrite also where results may differ by more than roundings.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a page for a browser: model, graph, cascade, schedule and C++ side by side."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a model's kernels: what fused, which schedule and why, time against the roofline, what PyTorch runs."""
    machine = parse(target)
    from effcc.explanation import explain_file

    with progress_console.status(f"compiling {model} ..."):
        report = explain_file(
            model, target=machine, measure=measure, source=source, fast_math=fast_math, details=html is not None
        )
    if html is not None:
        progress_console.print(f"wrote {report.html(html)}", markup=False)
    if json:
        print_json(report.as_json())
    elif html is None:
        print(report)

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
        typer.Option(
            help="Write a page for a browser instead of printing: model, graph, cascade, schedule and C++ side by "
            "side, each kernel's error against float64, and plots of where the time goes."
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(help="Write when each thread ran each kernel in one call, for ui.perfetto.dev."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Compare with this model (as it was before), compiled with the same options."),
    ] = None,
    against_target: Annotated[
        str | None, typer.Option(help="The target to compare with; of the same model without --against.")
    ] = None,
    against_fast_math: Annotated[
        bool | None,
        typer.Option("--against-fast-math/--against-no-fast-math", help="Compare with fast math on, or off."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a model's kernels: what fused, which schedule and why, time against the roofline, what PyTorch runs.

    With --against, --against-target or --against-fast-math: what differs from another compile.
    """
    machine = parse(target)
    other_machine = parse(against_target) if against_target is not None else machine
    from effcc.comparison import compare
    from effcc.explanation import explain_file

    compares = not (against is None and against_target is None and against_fast_math is None)
    other = None
    with progress_console.status(f"compiling {model} ..."):
        report = explain_file(
            model,
            target=machine,
            measure=measure,
            source=source,
            fast_math=fast_math,
            details=html is not None,
            trace=trace is not None,
        )
        if compares:
            other = explain_file(
                against or model,
                target=other_machine,
                measure=measure,
                fast_math=fast_math if against_fast_math is None else against_fast_math,
            )
    if html is not None:
        title = model.name if against is None else f"{model.name} against {against.name}"
        progress_console.print(f"wrote {report.html(html, other, title)}", markup=False)
    if trace is not None:
        progress_console.print(f"wrote {report.trace(trace)}", markup=False)
    if json:
        print_json(report.as_json() if other is None else compare(other, report).as_json())
    elif html is None:
        print(report if other is None else compare(other, report))

"""`effcc fuzz`: random programs against the interpreter and eager."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from effcc.commands.output import print_json


def fuzz(
    minutes: Annotated[float, typer.Option(min=0.0, help="How long to go on.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Where the random programs start.")] = 0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder that failures are written to, reduced.")
    ] = Path("fuzz-failures"),
    packages: Annotated[
        bool, typer.Option("--packages", help="Load hostile packages instead: damaged ones, and ones that lie.")
    ] = False,
    modules: Annotated[
        bool, typer.Option("--modules", help="Modules whose weights are stored, in every way they are called, alone.")
    ] = False,
    programs: Annotated[
        bool, typer.Option("--programs", help="PyTorch programs, called in every way that users call them, alone.")
    ] = False,
    stop_after: Annotated[int | None, typer.Option(min=1, help="End after so many failures.")] = None,
    reduce: Annotated[float, typer.Option(min=0.0, help="Seconds for reducing a failure; 0 leaves it as found.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compile random programs and compare them with the interpreter in float64 and with eager PyTorch.

    Exit code 1 if any of them failed; each is then reduced and written as an IR file and a Python script.
    """
    from effcc.fuzz import campaign
    from effcc.fuzz.modules.campaign import run_modules
    from effcc.fuzz.packages import run_packages, sample
    from effcc.fuzz.programs.campaign import run_programs

    report: Any
    if packages:
        report = run_packages(sample(), minutes=minutes, seed=seed, output=output)
    elif modules:
        report = run_modules(minutes, seed, output)
    elif programs:
        report = run_programs(minutes, seed, output)
    else:
        report = campaign.run(
            minutes=minutes, seed=seed, output=output, reduce_seconds=reduce, stop_after=stop_after, progress=not json
        )
    if json:
        print_json(report.as_json())
    else:
        print(report)
    alone = packages or modules or programs
    beside = () if alone else (report.modules, report.programs, report.packages)
    if report.failures or any(part.failures for part in beside):
        raise typer.Exit(1)

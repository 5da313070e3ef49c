"""`effcc fuzz`: random programs against the interpreter and eager."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effcc.commands.output import print_json, print_note
from effcc.commands.trace import trace
from effcc.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from effcc.fuzz.journal import Before, Begun

DOORS = ("all", "graphs", "programs", "modules", "packages", "peers", "mutated")

app = typer.Typer(invoke_without_command=True)
app.command(epilog="Example: effcc fuzz trace -o calls.trace --operators operators.txt")(trace)


@app.callback()
def fuzz(
    context: typer.Context,
    minutes: Annotated[
        float | None, typer.Option(min=0.0, help="How long to go on; default: 1, or what is left of --resume's.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Where the random programs start.")] = 0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder that failures are written to, reduced, and the journal.")
    ] = Path("fuzz-failures"),
    resume: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Go on with the campaign whose folder this is, as its journal says."),
    ] = None,
    only: Annotated[str, typer.Option(metavar="DOOR", help=f"One door alone: {', '.join(DOORS)}.")] = "all",
    against: Annotated[
        str,
        typer.Option(
            metavar="PEERS",
            help="Other compilers that get PyTorch programs, too: backends of torch.compile, onnxruntime, openvino.",
        ),
    ] = "",
    packages: Annotated[
        bool, typer.Option("--packages", help="Load hostile packages instead: damaged ones, and ones that lie.")
    ] = False,
    modules: Annotated[
        bool, typer.Option("--modules", help="Modules whose weights are stored, in every way they are called, alone.")
    ] = False,
    programs: Annotated[
        bool, typer.Option("--programs", help="PyTorch programs, called in every way that users call them, alone.")
    ] = False,
    operators: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Draw every third program with operators that `effcc fuzz trace` learned; "
            "`shipped`: those that come with effcc.",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page: branches, operators and pairs reached, failures by kind."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run on a Ray cluster; local: on one that is begun here."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="How many campaigns run at once, with --ray.")] = 2,
    stop_after: Annotated[int | None, typer.Option(min=1, help="End after so many failures.")] = None,
    reduce: Annotated[float, typer.Option(min=0.0, help="Seconds for reducing a failure; 0 leaves it as found.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compile random programs and compare them with the interpreter in float64 and with eager PyTorch.

    Exit code 1 if any of them failed (peers' divergences do not count); each is then reduced and written as an IR file
    and a Python script. What was done and found is in the folder's journal at once: a campaign that was killed goes on
    with --resume.
    """
    if context.invoked_subcommand is not None:
        return
    from effcc.fuzz import branches

    if html is not None or only == "mutated":
        with contextlib.suppress(RuntimeError):  # in a process that has imported the compiler, none are marked
            branches.begin()
    from effcc.fuzz.journal import Begun, Journal, read_journal

    asked = [name for name, wanted in _flags(packages, modules, programs).items() if wanted]
    door = _door(only, asked)
    peers: tuple[str, ...] = ()
    if against:
        from effcc.fuzz.peers import peers_of

        peers = peers_of(against)
    if bool(peers) != (door == "peers") and door != "all":
        raise InputError("expected peers (--against inductor, say) with --only peers, or with all doors")
    drawn = operators if operators in (None, "shipped") else str(Path(operators).resolve())
    begun = Begun(seed, 1.0 if minutes is None else minutes, door, peers, drawn or "")
    before: Before | None = None
    if resume is not None:
        before = read_journal(resume)
        branches.recall(before.branches, before.layout)
        begun, output = before.begun, resume
        if minutes is not None:
            begun = replace(begun, minutes=before.seconds / 60 + minutes)
        if drawn is not None:
            begun = replace(begun, operators=drawn)
        print_note(before.told())
    if begun.operators:
        from effcc.fuzz.learned.rule_file import SHIPPED
        from effcc.fuzz.programs.learned import use

        use(SHIPPED if begun.operators == "shipped" else Path(begun.operators))
    if ray is not None and (html is not None or door not in ("all", "graphs", "mutated") or stop_after is not None):
        raise InputError("--ray: expected all doors, graphs or mutated, without --html and --stop-after")
    with contextlib.ExitStack() as pages:
        pages.callback(branches.end)
        with Journal(output, begun, before.began if before is not None else None) as journal:
            if html is not None:
                from effcc.fuzz.page import Pages

                pages.enter_context(Pages(output, html))  # whose last one is written when the journal is ended
            if ray is not None:
                from effcc.fuzz.distributed import run_distributed

                how = {"reduce_seconds": reduce}
                report = run_distributed(begun, output, ray, workers, _pace(begun), how, resume is not None)
            else:
                report = _runs(begun, output, stop_after, reduce, not json)(journal=journal, before=before)
    if json:
        print_json(report.as_json())
    else:
        print(report)
    graphs = begun.door in ("all", "graphs", "mutated") and ray is None
    beside = [getattr(report, part) for part in ("modules", "programs", "packages") if graphs]
    if (report.failures and begun.door != "peers") or any(part.failures for part in beside):
        raise typer.Exit(1)


def _flags(packages: bool, modules: bool, programs: bool) -> dict[str, bool]:
    return {"packages": packages, "modules": modules, "programs": programs}


def _door(only: str, asked: list[str]) -> str:
    """The door that is asked for. Raises UnknownNameError and InputError."""
    if only not in DOORS:
        raise UnknownNameError("door", only, DOORS, "(--only)")
    doors = {*asked, *([only] if only != "all" else [])}
    if len(doors) > 1:
        raise InputError(f"expected one door alone, got {', '.join(sorted(doors))}")
    return next(iter(doors), "all")


def _runs(begun: Begun, output: Path, stop_after: int | None, reduce: float, shown: bool) -> Callable[..., Any]:
    """What runs a campaign through its door; it takes the journal and the before of before."""
    from functools import partial

    from effcc.fuzz import campaign
    from effcc.fuzz.modules.campaign import run_modules
    from effcc.fuzz.packages import run_packages, sample
    from effcc.fuzz.peers import run_peers
    from effcc.fuzz.programs.campaign import run_programs

    how: dict[str, Any] = {"minutes": begun.minutes, "seed": begun.seed, "output": output}
    if begun.door == "packages":
        return partial(run_packages, sample(), **how)
    if begun.door == "modules":
        return partial(run_modules, **how)
    if begun.door == "programs":
        return partial(run_programs, **how)
    if begun.door == "peers":
        return partial(run_peers, names=begun.against, **how)
    pace = _pace(begun)
    return partial(campaign.run, **how, reduce_seconds=reduce, stop_after=stop_after, progress=shown, pace=pace)


def _pace(begun: Begun) -> Any:
    """What a campaign of graphs has beside them."""
    from effcc.fuzz.campaign import Pace

    pace = Pace(against=begun.against)
    if begun.door == "all":
        return pace
    pace = replace(pace, modules=False, programs=False, packages=False)
    if begun.door == "mutated":
        return replace(pace, mutants=pace.batch, deployed=0, rules=0, encoders=0, sizes=0)
    return pace

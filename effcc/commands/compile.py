"""`effcc compile`: an exported program, or a printed IR, ahead of time to a package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effcc.commands.output import print_json, progress_console
from effcc.gpu import machine as machine_named


def compile_model(
    model: Annotated[Path, typer.Argument(help="A .pt2 file of torch.export, or a printed IR to go on from.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The package to write; the model's name with .effcc if left out."),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help="host, a generic CPU (amx, avx512, avx2, scalar), or a GPU to print code for: sm_80, sm_90, ..."
        ),
    ] = "host",
    print_after: Annotated[
        list[str] | None,
        typer.Option(
            help="Print what comes out of a step, and stop there without --output; may be repeated. The steps: "
            "simplify, hoist, encode, cascade, read_encoded, inline, group, cluster, split, codes, online, fuse, "
            "both_ways, in_place, arrange, control, settle, tile, place, lower, vectorize, emit."
        ),
    ] = None,
    from_step: Annotated[
        str | None,
        typer.Option(
            "--from", help="Go on after the step that printed the given IR: simplify to encode, cluster to place."
        ),
    ] = None,
    schedules: Annotated[
        Path | None,
        typer.Option(help="Follow the schedules in this file, as --print-after tile prints them, instead of choosing."),
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option(
            help="Sign the package with this Ed25519 key, a PEM file: openssl genpkey -algorithm ed25519 -out key.pem"
        ),
    ] = None,
    fast_math: Annotated[
        bool, typer.Option("--fast-math", help="Rewrite also where results may differ by more than roundings.")
    ] = False,
    mode: Annotated[
        str | None,
        typer.Option(help="max-autotune: time the best few schedules of each kernel on this machine, and remember."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Compile an exported program ahead of time, into a package that needs no torch."""
    machine = machine_named(target)
    from effcc.ahead import compile_file

    steps = print_after or []
    written = output or (None if steps else model.parent / f"{model.stem}.effcc")
    with progress_console.status(f"compiling {model} ..."):
        printed = compile_file(
            model,
            written,
            target=machine,
            print_after=steps,
            from_step=from_step,
            sign=sign,
            fast_math=fast_math,
            schedules=schedules,
            mode=mode,
        )
    if json:
        print_json({"output": str(written) if written else None, "printed": dict(printed)})
        return
    for text in printed.values():
        print(text)
    if written:
        progress_console.print(f"wrote {written}", markup=False)

"""`effcc fuzz trace`: learn from calls which arguments operators accept and what they give."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effcc.commands.output import print_json


def trace(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file that calls are written to.")],
    sources: Annotated[
        str, typer.Option("--from", help="What is run: opdb, models, or files of earlier traces; with commas.")
    ] = "opdb,models",
    operators: Annotated[
        Path | None, typer.Option(help="The file that learned operators are written to; default: beside, .operators.")
    ] = None,
    tries: Annotated[int, typer.Option(min=1, help="Changed calls of each kind of a call.")] = 100,
    only: Annotated[str, typer.Option(help="Only samples and models of these names; with commas.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Record calls of PyTorch's operators, as they are and changed, and infer rules for `effcc fuzz --operators`."""
    from rich.console import Console

    from effcc.fuzz.learned.infer import infer
    from effcc.fuzz.learned.record_file import write_records, write_whole
    from effcc.fuzz.learned.report import Report
    from effcc.fuzz.learned.rule_file import text_of
    from effcc.fuzz.learned.tracing import trace as traced

    written = operators or output.with_suffix(".operators")
    names = frozenset(name for name in only.split(",") if name)
    with Console(stderr=True).status("running samples and models") as status:
        found = traced(
            [s.strip() for s in sources.split(",") if s.strip()],
            names or None,
            tries,
            lambda operator: status.update(f"calling {operator}"),
        )
        write_records(output, (r for records in found.records.values() for r in records))
        learned = []
        for operator, records in found.records.items():
            status.update(f"inferring {operator}")
            learned.append(infer(operator, records))
    report = Report(found, learned)
    command = f"effcc fuzz trace --from {sources} -o {output.name} --operators {written.name}"
    command += f" --tries {tries}" * (tries != 100) + f" --only {only}" * bool(only)
    told = f"{command}\n\n{report}"
    rules, concrete = [r for one in learned for r in one.rules], [c for one in learned for c in one.concrete]
    write_whole(written, text_of(rules, concrete, told))
    if json:
        print_json(report.as_json())
    else:
        print(f"{report}\n\nwritten: {output}, {written}")

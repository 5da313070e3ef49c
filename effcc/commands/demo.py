"""`effcc demo`: a trained sentence encoder, eager beside effcc."""

from __future__ import annotations

from typing import Annotated

import typer

from effcc.commands.output import print_json


def demo(
    peers: Annotated[bool, typer.Option("--peers", help="Time Inductor as well.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compile a trained MiniLM sentence encoder, compare it with eager PyTorch, and show where the time went."""
    from effcc.demo import run_demo

    report = run_demo(peers=peers)
    if json:
        print_json(report.as_json())
    else:
        print(report)

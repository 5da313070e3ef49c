"""The command line: names, examples and errors; what a command does is in `effcc.commands`.

An EffccError becomes one message on standard error and exit code 2, as a wrong option does; `--debug` shows the
traceback. Anything else is a bug of effcc and shows its traceback as it is.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from effcc.commands import cache, fuzz
from effcc.commands.bisect import bisect
from effcc.commands.compile import compile_model
from effcc.commands.demo import demo
from effcc.commands.doctor import doctor
from effcc.commands.explain import explain
from effcc.commands.ops import ops
from effcc.commands.output import print_error
from effcc.commands.run import run
from effcc.commands.version import version
from effcc.errors import EffccError


class _Group(TyperGroup):
    """The commands of effcc, whose expected errors are messages."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EffccError as error:
            if ctx.params.get("debug"):
                raise
            print_error(str(error))
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="effcc compiles PyTorch models whose weights may be stored in any encoding.",
)


def _show_version(asked: bool) -> None:
    if asked:
        version()
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", envvar="EFFCC_DEBUG", help="Show the traceback of errors.")] = False,
    asked: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="As `effcc version`.")
    ] = False,
) -> None:
    """What stands before the command: `_Group` reads `debug`, a callback has answered `--version`."""


app.command("compile", epilog="Example: effcc compile model.pt2 -o model.effcc")(compile_model)
app.command(epilog="Example: effcc run model.effcc inputs.safetensors -o outputs.safetensors")(run)
app.command(epilog="Example: effcc explain model.pt2 --html model.html")(explain)
app.command(epilog="Example: effcc ops --status missing")(ops)
app.command(epilog="Example: effcc doctor --json")(doctor)
app.add_typer(cache.app, name="cache", epilog="Example: effcc cache list")
app.command(epilog="Example: effcc demo --peers")(demo)
app.add_typer(fuzz.app, name="fuzz", epilog="Example: effcc fuzz --minutes 10 --seed 1")
app.command(
    epilog="Example: effcc bisect train.py --epochs 1",
    context_settings={"allow_interspersed_args": False},
)(bisect)
app.command(epilog="Example: effcc version --json")(version)


def main() -> None:
    """The `effcc` script."""
    app()


if __name__ == "__main__":
    main()

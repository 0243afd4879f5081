"""The root command and its table of subcommands."""

from __future__ import annotations

import difflib
import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

COMMANDS: dict[str, tuple[str, str]] = {
    "detect": ("tellsign.cli.detect:detect", "Say of each picture whether it is authentic, AI-made or tampered with."),
    "plugins": ("tellsign.cli.plugins:app", "List the installed detectors, start one of your own, and check one."),
    "models": ("tellsign.cli.models:app", "List and fetch the larger weights."),
    "doctor": ("tellsign.cli.doctor:doctor", "Check this installation and name what is wrong and how to cure it."),
    "eval": ("tellsign.cli.eval:command", "Measure the detectors on labelled pictures."),
    "compare": ("tellsign.cli.compare:command", "Compare two reports of eval, picture by picture."),
    "audit": ("tellsign.cli.audit:command", "Measure what moves each detector: traces or meaning."),
    "forge": ("tellsign.cli.forge:command", "Make labelled forgeries of photographs, to train and measure on."),
    "tune": ("tellsign.cli.tune:command", "Tune the fusion on your own labelled pictures."),
    "fusion": ("tellsign.cli.fusion:app", "Look into a fusion bundle, compare two, check one against here."),
    "monitor": ("tellsign.cli.monitor:command", "Tell whether scores still look like the calibration's."),
    "bench": ("tellsign.cli.bench:command", "Measure what the package costs on top of its models."),
}
"""Name -> where the function or the typer app is, and its line in the help."""


class LazyGroup(TyperGroup):
    """Imports a subcommand when it is called or completed; for the overview its line from the table is enough."""

    _overview = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The subcommand called `cmd_name`, None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        target, line = COMMANDS[cmd_name]
        return TyperCommand(cmd_name, help=line) if self._overview else load(cmd_name, target, line)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As typer's, with a hint for a misspelt name."""
        near = difflib.get_close_matches(args[0], COMMANDS, n=1)
        if args[0] not in COMMANDS and near:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the overview without importing any subcommand."""
        self._overview = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._overview = False


def load(name: str, target: str, line: str) -> Any:
    """Import `target` ("module:attribute", a function or a typer app) and make the command `name` of it."""
    module, _, attribute = target.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        single = typer.Typer(add_completion=False)
        single.command(name)(found)
        found = single
    command = typer.main.get_command(found)
    command.name = name
    command.help = command.help or line
    return command


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from tellsign import __version__

        typer.echo(f"tellsign {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Tell whether a picture is authentic, AI-generated, AI-edited or tampered with, and show why and where."""

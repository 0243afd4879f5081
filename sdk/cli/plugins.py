"""`tellsign plugins`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import devkit
from .common import console, told_errors

if TYPE_CHECKING:
    from tellsign.host import PluginRecord

app = typer.Typer(no_args_is_help=True, add_completion=False)

_COLOURS = {"ok": "green", "disabled": "dim", "failed": "red", "incompatible": "red", "duplicate": "red"}


@app.callback()
def plugins() -> None:
    """List the installed detectors, start one of your own, and check one."""


app.command("new")(devkit.new)
app.command("check")(devkit.check)


@app.command("list")
def list_plugins(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False,
) -> None:
    """List every detector that is installed, from its declaration alone: no detector is imported.

    Ends with 0 even when some do not load; `tellsign doctor` ends with 1 then.
    """
    from tellsign.host import discover

    with told_errors():
        records = discover()
        if as_json:
            import json

            typer.echo(json.dumps([describe(r) for r in records], indent=2))
        elif not records:
            console().print("No detectors are installed or allowed (TELLSIGN_PLUGINS, TELLSIGN_DISABLED_PLUGINS).")
        else:
            _table(records)


def describe(record: PluginRecord) -> dict[str, Any]:
    """A record as JSON; what only a declaration knows is None where there is none."""
    from tellsign.schemas.codec import to_json

    declared = record.declaration
    return {
        "name": record.name,
        "state": record.state,
        "reason": record.reason or None,
        "distribution": record.distribution,
        "distribution_version": record.version,
        "module": record.module,
        "version": declared.version if declared else None,
        "task": declared.task.value if declared else None,
        "summary": declared.summary if declared else None,
        "columns": [to_json(c) for c in declared.columns] if declared else None,
        "code_licence": declared.code_licence if declared else None,
        "weights_licence": declared.weights_licence if declared else None,
        "commercial_use": declared.commercial_use if declared else None,
        "shared_weights": list(declared.shared_weights) if declared else None,
    }


def _table(records: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    from tellsign.report.words import printable

    out = console()
    wide = out.width >= 90
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("name", "state", "task", "version", *(("from", "licence: code / weights") if wide else ())):
        table.add_column(heading, overflow="fold")
    for record in records:
        told = describe(record)
        licence = f"{told['code_licence']} / {told['weights_licence']}" if record.declaration else "-"
        licence += "" if told["commercial_use"] in (True, None) else " (no commercial use)"
        row = [record.name, record.state, told["task"] or "-", told["version"] or "-"]
        row += [f"{record.distribution} {record.version}", licence] if wide else []
        cells = [Text(printable(str(cell))) for cell in row]
        cells[1].stylize(_COLOURS.get(record.state, ""))
        table.add_row(*cells)
    out.print(table)
    for record in records:
        if record.declaration is not None:
            columns = ", ".join(f"{record.declaration.name}.{c.name}" for c in record.declaration.columns) or "none"
            out.print()
            out.print(Text(printable(f"{record.name}: {record.declaration.summary}")))
            out.print(Text(f"  columns for the fusion: {columns}", style="dim"))
            if record.declaration.shared_weights:
                shared = ", ".join(record.declaration.shared_weights)
                out.print(Text(f"  weights that it shares: {shared} (tellsign models list)", style="dim"))
        if record.reason:
            out.print(Text(printable(f"{record.name} is {record.state}: {record.reason}"), style="yellow"))

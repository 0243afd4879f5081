"""`tellsign fusion show|diff|check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import console, told_errors

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Look into a fusion bundle, compare two, check one against here."
)

BundleArgument = Annotated[
    Path | None, typer.Argument(metavar="[BUNDLE]", help="Folder; default the shipped bundle.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Everything as JSON.")]


@app.command()
def show(bundle: BundleArgument = None, as_json: AsJson = False) -> None:
    """Print what a bundle weighs, which labels it can rule out, and where it comes from."""
    from tellsign.fusion.bundle import Bundle
    from tellsign.fusion.edit import described

    with told_errors():
        told = described(Bundle.load(bundle))
    if as_json:
        typer.echo(json.dumps(told, indent=1))
        return
    _show(told)


@app.command()
def diff(
    old: Annotated[Path, typer.Argument(help='Folder; "default" is the shipped bundle.')],
    new: Annotated[Path, typer.Argument(help="Folder.")],
    as_json: AsJson = False,
) -> None:
    """Print what differs between two bundles. Exit status 1 where something does."""
    import attrs

    from tellsign.fusion.edit import differences

    with told_errors():
        found = differences(_load(old), _load(new))
    if as_json:
        typer.echo(json.dumps([attrs.asdict(d) for d in found], indent=1))
    elif not found:
        typer.echo("no difference")
    else:
        table = _table("", "Before", "After")
        for d in found:
            table.add_row(_safe(d.what), _safe(d.before), _safe(d.after))
        console().print(table)
    if found:
        raise typer.Exit(1)


@app.command()
def check(bundle: BundleArgument = None, as_json: AsJson = False) -> None:
    """Check a bundle's files and hashes, and whether it fits the installed plugins. Exit status 1 where it does not."""
    import attrs

    from tellsign.fusion.bundle import Bundle
    from tellsign.fusion.edit import check as compare
    from tellsign.host import discover

    with told_errors():
        loaded = Bundle.load(bundle)
        declarations = {r.name: r.declaration for r in discover() if r.declaration is not None and r.state == "ok"}
        found = compare(loaded, declarations)
    if as_json:
        told = {"version": loaded.version, "sha256": loaded.sha256, "findings": [attrs.asdict(f) for f in found]}
        typer.echo(json.dumps(told, indent=1))
    else:
        typer.echo(f"{loaded.version}: every file is what the manifest says")
        for f in found:
            typer.echo(f"{'!' if f.serious else '-'} {_safe(f.text)}")
        if not found:
            typer.echo("it fits the installed plugins")
    if any(f.serious for f in found):
        raise typer.Exit(1)


def _load(path: Path) -> Any:
    from tellsign.fusion.bundle import Bundle

    return Bundle.load(None if str(path) == "default" and not path.exists() else path)


def _show(told: dict[str, Any]) -> None:
    out = console()
    training = told["training"]
    out.print(f"Bundle {told['version']}")
    base = f", tuned from {_safe(training['base'])}" if training.get("base") else ""
    out.print(f"Trained on {training.get('rows', '?')} rows in {training.get('groups', '?')} groups{base}")
    for name, plugin in sorted(training.get("plugins", {}).items()):
        out.print(f"  with {_safe(name)} {_safe(plugin.get('version', '?'))}")
    for head, part in told["heads"].items():
        table = _table(f"{head} ({part['kind']})", "Weight")
        for task, value in part["tasks"].items():
            table.add_row(_safe(task), f"{value:.2f}")
        out.print(table)
        out.print("log-odds from the task's least to its most suspicious answer; tasks add up", soft_wrap=True)
        columns = _table(f"{head}: columns", "Task", "Log-odds per standard deviation")
        for c in part["columns"]:
            own = "-" if c["weight_per_sd"] is None else f"{c['weight_per_sd']:+.3f}"
            columns.add_row(_safe(c["column"]), _safe(c["task"]), own)
        out.print(columns)
    sets = _table("Prediction sets", "Label", "Pictures", "Error rate", "Ruled out below", "From")
    for key, by in told["sets"].items():
        for label, e in by.items():
            below = "never" if e["ruled_out_below"] is None else f"{e['ruled_out_below']:.3f}"
            sets.add_row(_safe(key), label, str(e["groups"]), f"{e['error_rate']:.1%}", below, _safe(e["from"]))
    out.print(sets)
    point = training.get("operating")
    if isinstance(point, dict):
        text = f"Threshold ({point['how']}): alarm where p_ai at prior {point['prior']:g} is above {point['p_ai']:.4f}"
        out.print(f"{text}; at most {point['bound']:.2%} false alarms at {point['confidence']:.0%} confidence")


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right" if name in ("Weight", "Pictures", "Error rate") else "left")
    return table


def _safe(text: object) -> str:
    from tellsign.report.words import printable

    return printable(str(text))

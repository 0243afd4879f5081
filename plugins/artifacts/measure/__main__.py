"""How often the checks are right and wrong: `python -m tellsign.plugins.artifacts.measure COMMAND`.

    look   what the checks see in every picture of LIST (goes on where it was stopped)
    table  settings chosen on one half of the sources, false alarms and finds on the other

LIST is a CSV of path, domain, source and label (1 generated, 0 real).
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from .looking import look_at_all, read_kept, read_list
from .table import GRID, in_markdown, report, report_shipped

app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True)

MADE_ON = 968
"""Pictures of docs/artifacts.md's list that were looked at before the rule on lettering and its setting stood."""
Kept = Annotated[Path, typer.Option(help="JSON lines of what was seen.")]


@app.command()
def look(
    listed: Annotated[Path, typer.Argument(metavar="LIST", help="CSV of path, domain, source, label.")],
    kept: Kept,
    minutes: Annotated[
        float | None, typer.Option(help="Look at no more pictures after so many minutes of CPU.")
    ] = None,
) -> None:
    """Look at every picture; needs the extra `lettering`."""
    rows, count = read_list(listed), 0
    for _ in look_at_all(rows, kept):
        count += 1
        if minutes is not None and time.process_time() > 60 * minutes:
            break
    typer.echo(f"{count} of {len(rows)} pictures")


@app.command()
def table(
    kept: Kept,
    after: Annotated[
        int,
        typer.Option(min=0, help="So many of the first pictures were looked at while the rule that ships was made."),
    ] = MADE_ON,
    out: Annotated[Path | None, typer.Option(help="Receives the numbers as JSON.")] = None,
) -> None:
    """Print each check's table, tuned on one half of the sources, and that of the rule that ships."""
    seen = read_kept(kept)
    told = {name: report(name, seen) for name in GRID} | {"lettering as it ships": report_shipped(seen, after)}
    if out is not None:
        out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    typer.echo(in_markdown(told))


if __name__ == "__main__":
    app()

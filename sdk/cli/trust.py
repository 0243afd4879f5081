"""Options that say which plugins may run, and how far they are trusted; for every command that makes a Detector."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

Plugin = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        "--allow",
        metavar="NAME|FILE.py",
        help="Ask only this detector, by name, or in a file that is not installed; may be given several times.",
    ),
]
Deny = Annotated[
    list[str] | None,
    typer.Option("--deny", metavar="NAME", help="Do not use this detector; may be given several times."),
]
CommercialOnly = Annotated[
    bool, typer.Option("--commercial-only", help="Use no detector whose licences forbid commercial use.")
]
Isolate = Annotated[
    list[str] | None,
    typer.Option(
        "--isolate",
        metavar="NAME",
        help="Run this detector in a process of its own, which may crash or hang; * for all; may be given often.",
    ),
]
IsolateMemory = Annotated[
    float | None,
    typer.Option(
        "--isolate-memory",
        metavar="GB",
        help="Memory that such a process may fill; half of the machine's unless given.",
    ),
]
TimeLimit = Annotated[
    list[str] | None,
    typer.Option(
        "--time-limit",
        metavar="[NAME=]S",
        help="Seconds that a detector may take per picture, for all or for one; what each declares unless given.",
    ),
]


def trust_options(
    *,
    plugin: Iterable[str] | None = None,
    deny: Iterable[str] | None = None,
    commercial_only: bool = False,
    isolate: Iterable[str] | None = None,
    isolate_memory: float | None = None,
    time_limit: Iterable[str] | None = None,
) -> dict[str, Any]:
    """Parameters of a Detector, of what was given only."""
    options: dict[str, Any] = {}
    if plugin:
        options["plugins"] = list(plugin)
    if deny:
        options["deny"] = list(deny)
    if commercial_only:
        options["commercial_only"] = True
    if isolate:
        options["isolate"] = list(isolate)
    if isolate_memory is not None:
        if not isolate_memory > 0:
            raise typer.BadParameter(f"takes a number above 0, got {isolate_memory:g}", param_hint="--isolate-memory")
        options["isolate_memory"] = int(isolate_memory * 1e9)
    if time_limit:
        options["time_limit"] = _limits(time_limit)
    return options


def _limits(given: Iterable[str]) -> float | dict[str, float]:
    named: dict[str, float] = {}
    for_all: float | None = None
    for text in given:
        name, equals, number = text.rpartition("=")
        try:
            seconds = float(number)
        except ValueError:
            raise typer.BadParameter(
                f"takes seconds or NAME=seconds, got {text!r}", param_hint="--time-limit"
            ) from None
        if equals:
            named[name] = seconds
        else:
            for_all = seconds
    if for_all is not None and named:
        raise typer.BadParameter("takes one limit for all, or limits by name", param_hint="--time-limit")
    return named if for_all is None else for_all

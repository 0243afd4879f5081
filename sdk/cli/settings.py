"""Plugin settings on the command line: `--set pixel.strength=bundled`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated

import typer

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PLUGIN.NAME=VALUE",
        help="A plugin's setting, such as pixel.strength=bundled; may be given several times.",
    ),
]


def parse_settings(given: Iterable[str] | None) -> dict[str, dict[str, object]]:
    """Settings per plugin; a value that reads as JSON is taken as such, anything else as text."""
    out: dict[str, dict[str, object]] = {}
    for text in given or ():
        left, equals, value = text.partition("=")
        plugin, dot, name = left.partition(".")
        if not (equals and dot and plugin and name):
            raise typer.BadParameter(f"takes PLUGIN.NAME=VALUE, got {text!r}", param_hint="--set")
        try:
            out.setdefault(plugin, {})[name] = json.loads(value)
        except (ValueError, RecursionError):  # not JSON, or a number or nesting that nobody means
            out.setdefault(plugin, {})[name] = value
    return out

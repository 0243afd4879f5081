"""`tellsign monitor`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .common import console, told_errors


def command(
    scores: Annotated[
        Path,
        typer.Argument(
            help="What `tellsign detect --json` printed, or a CSV with p_ai[,prior,group].", show_default=False
        ),
    ],
    fusion: Annotated[
        Path | None, typer.Option(help="Bundle that gave the scores; default the shipped one.", show_default=False)
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="CSV with p_ai and label to compare with, instead of the bundle's calibration.", show_default=False
        ),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(help="Detectors that answered, joined by +; default the commonest.", show_default=False),
    ] = None,
    rate: Annotated[float, typer.Option(help="False-alarm rate.")] = 0.01,
    share: Annotated[
        float | None, typer.Option(help="Share of AI pictures, where it is known.", show_default=False)
    ] = None,
    shuffle: Annotated[
        bool, typer.Option("--shuffle", help="The order of the scores means nothing: they are of a folder.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="The numbers as JSON.")] = False,
) -> None:
    """Tell whether verdicts still look like the pictures that the fusion was calibrated on.

    Exit status 0 where they do, 1 where they do not, 2 where something cannot be used.
    """
    import attrs

    from tellsign.fusion.bundle import Bundle
    from tellsign.tuning import monitor

    with told_errors():
        bundle = Bundle.load(fusion)
        stream = monitor.read_scores(scores)
        against = monitor.read_reference(reference) if reference else monitor.reference_of(bundle, pattern)
        drift = monitor.monitor(stream, against, rate=rate, share=share, shuffle=shuffle, seed=seed)
    others = [b for b in stream.bundles if b != bundle.version]
    if as_json:
        told = {**attrs.asdict(drift), "alarm": drift.alarm, "bundle": bundle.version, "other_bundles": others}
        typer.echo(json.dumps(told | {"passed_over": stream.passed_over, "pattern": against.pattern}, indent=1))
    else:
        out = console()
        if others and reference is None:
            names = ", ".join(others)
            out.print(f"! the verdicts are of another fusion ({names}) than {bundle.version}", soft_wrap=True)
        if stream.passed_over:
            text = f"- {stream.passed_over} lines have no p_ai, or one that a claim in the file moved: passed over"
            out.print(text, soft_wrap=True)
        out.print(monitor.in_words(drift, against), soft_wrap=True)
    if drift.alarm:
        raise typer.Exit(1)

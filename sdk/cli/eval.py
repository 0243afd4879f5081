"""`tellsign eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .common import console, fail, told_errors
from .settings import Settings, parse_settings
from .trust import CommercialOnly, Deny, Isolate, IsolateMemory, Plugin, TimeLimit, trust_options


def command(
    data: Annotated[
        Path,
        typer.Argument(
            help="A benchmark as it was published, a folder with real/ and fake/, or a table (CSV, JSON) with "
            "path,label[,generator,group,mask,source,split] (label 1 = AI).",
            show_default=False,
        ),
    ],
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write every number to this file.", show_default=False)
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the report as one page to this file.", show_default=False)
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="How DATA lies on the disk; recognised by default.", show_default=False)
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="Score as papers do: genimage-jpeg96 (P1), per-generator (P2), in-the-wild (P3), x-aigd (P4), "
            "tampering-pixels (P5), robustness (P6).",
            show_default=False,
        ),
    ] = None,
    conditions: Annotated[
        str | None,
        typer.Option(
            help="Commas between: native, jpeg90, jpeg70, jpeg40, webp, half, blur, screenshot, or steps of the "
            "robustness grid. Default native.",
            show_default=False,
        ),
    ] = None,
    normalise: Annotated[
        bool,
        typer.Option(
            "--normalise/--as-is",
            help="Resample and re-encode every picture alike first, or judge the files as they are.",
        ),
    ] = False,
    align: Annotated[
        str | None,
        typer.Option(help="jpeg96: save lossless generated pictures as JPEG 96 first.", show_default=False),
    ] = None,
    real: Annotated[
        Path | None,
        typer.Option(help="A folder of real pictures, for benchmarks without.", show_default=False),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]MODULE:CALLABLE|CSV",
            help="Another detector beside this one; may be given several times.",
            show_default=False,
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLUGIN",
            help="What does this plugin add? Compares with the same fusion without it; may be given several times.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="At most so many pictures, half of each class.", show_default=False)
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only this split of DATA.", show_default=False)] = None,
    root: Annotated[
        Path | None, typer.Option(help="Where a list's paths start; default its own folder.", show_default=False)
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(
            help="Keep answers in this file and go on where it ends. With --json there is one beside it until the "
            "report is written.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Keep what each plugin said there, and ask again only plugins that are new or changed; another fusion "
            "costs no forward pass. Needs --no-stability.",
            show_default=False,
        ),
    ] = None,
    heat: Annotated[
        str | None,
        typer.Option(
            "--map",
            metavar="PLUGIN[:MAP]",
            help="Heat map that is held against masks; default the verdict's.",
            show_default=False,
        ),
    ] = None,
    scores: Annotated[
        bool, typer.Option("--scores/--no-scores", help="Keep each picture's probability in --json, for compare.")
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of --limit, the bootstrap and --normalise.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    stability: Annotated[
        bool,
        typer.Option("--stability/--no-stability", help="Look at each picture saved again, as detect does."),
    ] = True,
    plugin: Plugin = None,
    deny: Deny = None,
    commercial_only: CommercialOnly = False,
    isolate: Isolate = None,
    isolate_memory: IsolateMemory = None,
    time_limit: TimeLimit = None,
    settings: Settings = None,
) -> None:
    """Measure the verdicts on labelled pictures: ranking, calibration, abstention, false accusations.

    The first condition is what the overall numbers are measured under. A run that was killed goes on where it was.
    Exit status 2 where DATA cannot be used.
    """
    from contextlib import ExitStack

    import attrs
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from tellsign.errors import SettingError
    from tellsign.evaluation import protocols
    from tellsign.evaluation.conditions import NATIVE, parse
    from tellsign.evaluation.dataset import FAKE, REAL, DataError, load
    from tellsign.evaluation.kept import Kept
    from tellsign.evaluation.peers import load as load_peer
    from tellsign.evaluation.run import ALIGNMENTS, Maps, Preparation, evaluate, picture_of
    from tellsign.evaluation.table import show
    from tellsign.evaluation.without import Without

    try:
        preset = None if protocol is None else protocols.by_name(protocol)
        if preset is not None:
            _agree(preset, conditions=conditions, align=align)
            align = preset.align
        chosen = [c.name for c in parse(conditions or (preset.conditions if preset else NATIVE))]
        if align is not None and align not in ALIGNMENTS:
            raise SettingError("--align", f"one of {', '.join(ALIGNMENTS)}", align)
        if align is not None and normalise:
            raise DataError("--align and --normalise exclude each other: the second one saves every picture again.")
        dataset = load(
            data,
            root=root,
            split=split,
            limit=limit,
            seed=seed,
            layout=layout,
            reals=real,
            per_subset=None if preset is None else preset.per_subset,
        )
        if preset is not None:
            preset.check(dataset.layout)
        peers = [load_peer(p) for p in peer or ()]
        if keep is not None and stability:
            raise DataError(
                "--keep needs --no-stability: plugins' answers on a picture are kept, not those on its copies."
            )
        if keep is not None and journal is not None:
            raise DataError("--keep and --journal exclude each other: what is kept is where a run goes on.")
        # Before the hour of scoring, not after it.
        for name, path in (("--json", json_path), ("--html", html), ("--journal", journal)):
            if path is not None and not path.absolute().parent.is_dir():
                raise DataError(f"{name} {path} lies in a folder that does not exist.")
    except (DataError, SettingError) as error:
        fail(str(error), code=2)

    from tellsign import Detector

    given = parse_settings(settings)
    trust = trust_options(
        plugin=plugin,
        deny=deny,
        commercial_only=commercial_only,
        isolate=isolate,
        isolate_memory=isolate_memory,
        time_limit=time_limit,
    )
    journalled = json_path is not None and journal is None and keep is None
    beside = json_path.with_name(f"{json_path.name}.journal") if json_path is not None and journalled else None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        told_errors(),
        Detector(device=device, stability_probe=stability, settings=given, **trust) as detector,
        Progress(*columns, console=console(stderr=True), transient=True) as bar,
        ExitStack() as stack,
    ):
        total = len(dataset.items) * len(chosen)
        kept = None
        if keep is not None:
            preparation = Preparation(normalise=normalise, align=align, seed=seed)
            kept = stack.enter_context(Kept(keep, detector, preparation=attrs.asdict(preparation), settings=given))
            asking = bar.add_task("asking", total=total)
            kept.fill(
                dataset,
                parse(chosen),
                make=lambda name: Detector(
                    device=device,
                    stability_probe=False,
                    settings={name: given[name]} if name in given else None,
                    **{**trust, "deny": [*trust.get("deny", ()), *(n for n in detector.declarations if n != name)]},
                ),
                prepared=lambda item, content: picture_of(item, content, preparation),
                progress=lambda done, total: bar.update(asking, completed=done, total=total),
            )
        task = bar.add_task("scoring", total=total)
        report = evaluate(
            dataset,
            detector,
            conditions=chosen,
            normalise=normalise,
            seed=seed,
            align=align,
            peers=[*peers, *(Without(plugin=name, detector=detector) for name in without or ())],
            kept=kept,
            maps=Maps(name=heat, scaling=preset.scaling if preset else "own"),
            journal=journal or beside,
            setup={"device": device, "stability": stability, "settings": given, **trust},
            scores=scores,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if preset is not None:
        report["settings"]["protocol"] = preset.told()
    if json_path is not None:
        json_path.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if html is not None:
        from tellsign.evaluation.page import save

        save(html, report, dataset)
    if beside is not None:
        beside.unlink(missing_ok=True)  # the report holds everything now
    show(report, console())
    if report["overall"]["auc"] is None and dataset.count(REAL) and dataset.count(FAKE):
        raise typer.Exit(1)


def _agree(preset: object, **given: str | None) -> None:
    """A protocol fixes what makes its numbers comparable; naming it again with another value would undo that."""
    from tellsign.evaluation.items import DataError

    for name, value in given.items():
        if value is not None:
            raise DataError(f"--protocol {getattr(preset, 'name', '')} fixes --{name}; leave one of the two out.")

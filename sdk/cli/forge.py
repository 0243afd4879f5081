"""`tellsign forge`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import console, fail, told_errors

if TYPE_CHECKING:
    from tellsign.forge import Photo

_NAMED = 10


def command(
    data: Annotated[
        Path,
        typer.Argument(
            help="Folder of photographs, or a CSV with path,label[,source,generator,group,split] whose rows of label 1 "
            "are generated pictures.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Receives pictures, masks and manifest.csv.", show_default=False)],
    kinds: Annotated[
        str,
        typer.Option(
            help="Commas between: untouched, inpaint, blend, copymove, splice, generated, aisplice, roundtrip, "
            "upscale, classical, enhanced; each may say how many, as in blend=200."
        ),
    ] = "untouched,copymove,splice,classical",
    count: Annotated[int | None, typer.Option(min=1, help="Pictures of each kind; one per scene unless given.")] = None,
    scenes: Annotated[
        int | None,
        typer.Option(min=1, help="Scenes (a photograph with a region) to forge; as many as photographs unless given."),
    ] = None,
    history: Annotated[
        str,
        typer.Option(help="erase: windows without compression history. keep: whole pictures, forged ones as JPEG 96."),
    ] = "erase",
    container: Annotated[str, typer.Option("--format", help="Of windows: png or jpeg.")] = "png",
    shares: Annotated[
        str, typer.Option(help="Shares of the regions' shapes: rectangle, freeform, sam, annotation.")
    ] = "rectangle=1,freeform=1,sam=1",
    generated: Annotated[Path | None, typer.Option(help="Folder of generated pictures.")] = None,
    migan: Annotated[Path | None, typer.Option(help="MI-GAN's pipeline as ONNX.")] = None,
    diffusers: Annotated[str | None, typer.Option(help="Inpainting pipeline: a folder or a name on the hub.")] = None,
    prompt: Annotated[str, typer.Option(help="For that pipeline.")] = "",
    inpainter: Annotated[
        str | None, typer.Option(metavar="MODULE:NAME", help="Your own (pixels, region, rng) -> pixels.")
    ] = None,
    autoencoders: Annotated[Path | None, typer.Option(help="Folder of the tiny autoencoders.")] = None,
    upscaler: Annotated[Path | None, typer.Option(help="ONNX network that doubles a picture.")] = None,
    sam: Annotated[Path | None, typer.Option(help="Checkpoint of MobileSAM or Segment Anything.")] = None,
    sam_points: Annotated[int, typer.Option(min=1, help="SAM's prompts a side.")] = 8,
    annotations: Annotated[
        Path | None, typer.Option(help="Folder of masks named after the photographs; see --shares.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only the rows of this split of the CSV.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Annotated[str, typer.Option(help="For diffusers and SAM.")] = "cpu",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Make labelled forgeries of photographs, with masks; the same command goes on after a stop.

    Ends with 1 where photographs were left out, 2 on wrong usage.
    """
    from collections import Counter

    with told_errors():
        from tellsign.forge import forge, gather

        wanted = _kinds(kinds, count)
        parts = _shares(shares)
        photos = find_photos(data, split) + ([] if generated is None else _folder(generated, fake=True))
        # Where the output lies inside the folder of photographs, its forgeries are not the next run's photographs.
        photos = [p for p in photos if out.resolve() not in p.path.resolve().parents]
        tools = gather(
            migan=migan,
            diffusers=diffusers,
            prompt=prompt,
            inpainter=inpainter,
            autoencoders=autoencoders,
            upscaler=upscaler,
            sam=sam,
            sam_points=sam_points,
            annotations=annotations,
            device=device,
        )
        with _Bar(shown=not quiet) as bar:
            report = forge(
                photos,
                out,
                wanted,
                tools=tools,
                scenes=scenes,
                shares=parts,
                history=history,
                container=container,
                seed=seed,
                progress=bar,
            )
    from tellsign.report.words import printable

    if not quiet:
        told = ", ".join(f"{n} {kind}" for kind, n in sorted(report.counts.items()))
        console().print(f"{report.made} made now; in {out}: {told or 'nothing'}", soft_wrap=True)
    for name, why in report.left_out[:_NAMED]:
        typer.echo(printable(f"left out: {name}: {why}"), err=True)
    if len(report.left_out) > _NAMED:
        reasons = Counter(why for _, why in report.left_out[_NAMED:]).most_common(3)
        typer.echo(
            f"left out: {len(report.left_out) - _NAMED} more, mostly: {'; '.join(w for w, _ in reasons)}", err=True
        )
    if report.left_out:
        raise typer.Exit(1)


def find_photos(data: Path, split: str | None = None) -> list[Photo]:
    """The photographs of a folder (and of the folders in it), or the rows of a CSV."""
    from tellsign.evaluation import layouts
    from tellsign.forge import Photo

    if data.is_dir():
        if split is not None:
            fail(f"--split {split} needs a CSV with a column split, and {data} is a folder", code=2)
        return _folder(data, fake=False)
    if not data.is_file():
        fail(f"DATA must be a folder of photographs or a CSV file, and {data} is neither", code=2)
    # One class is enough here, so the table is read without `evaluation.dataset.load`, which wants both.
    reading = layouts.read(data, layouts.by_name("manifest"), layouts.Options(split=split, root=None))
    return [Photo(path=i.path, name=i.name, source=i.source, group=i.group, fake=bool(i.label)) for i in reading.items]


def _folder(folder: Path, *, fake: bool) -> list[Photo]:
    from tellsign.forge import Photo

    from .detect import find

    if not os.path.isdir(folder):
        fail(f"{folder} is no folder", code=2)
    found = []
    for source in find([str(folder)], recursive=True):
        if source.problem is not None or not isinstance(source.given, str):
            fail(f"{folder} holds no pictures")
        path = Path(source.given)
        inside = path.relative_to(folder)
        collection = inside.parts[0] if len(inside.parts) > 1 else folder.resolve().name
        name = inside.as_posix()
        found.append(Photo(path=path, name=name, source=collection, group=name, fake=fake))
    return found


def _kinds(text: str, count: int | None) -> dict[str, int | None]:
    wanted: dict[str, int | None] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        kind, equals, number = part.partition("=")
        if equals and not (number.isascii() and number.isdigit()):
            raise typer.BadParameter(f"takes KIND or KIND=COUNT, got {part!r}", param_hint="--kinds")
        wanted[kind] = int(number) if equals else count
    return wanted


def _shares(text: str) -> dict[str, float]:
    shares: dict[str, float] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        shape, _, number = part.partition("=")
        try:
            shares[shape] = float(number)
        except ValueError:
            raise typer.BadParameter(f"takes SHAPE=SHARE, got {part!r}", param_hint="--shares") from None
    return shares


class _Bar:
    """One bar for reading headers and one for forging, on stderr."""

    def __init__(self, *, shown: bool) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bars = Progress(*columns, console=console(stderr=True), transient=True, disable=not shown)
        self.tasks: dict[str, object] = {}

    def __enter__(self) -> _Bar:
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self.tasks:
            self.tasks[what] = self.bars.add_task(what, total=total)
        self.bars.update(self.tasks[what], completed=done)  # type: ignore[arg-type]

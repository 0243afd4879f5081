"""Measures the plugin on real and generated pictures: `python -m tellsign.plugins.provenance.measure COMMAND`.

    claims      how often pictures of each kind carry an explicit claim, and what that supports
    watermarks  false positives of the watermarks' decoder on real pictures
    survival    which marks are found again, in real pictures that are marked here
    trustmark   both for TrustMark, where its package and weights are
    camera      what cameras' pictures say of themselves, and thumbnails against foreign ones

PICTURES is a CSV with the columns path, label (1 = generated), split; paths are relative to its folder.
"""

from __future__ import annotations

import csv
import io
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import attrs
import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from tellsign import decode
from tellsign.errors import DecodeError
from tellsign.schemas import Facts

from . import camera, container
from .credentials import Credentials
from .detector import LARGEST_PIXELS, file_claims, stored_pixels
from .watermarks import dwtdct
from .watermarks.messages import MESSAGES
from .watermarks.trustmark import VARIANTS, TrustMarks, by_chance

app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True)

Pictures = Annotated[Path, typer.Argument(help="The CSV.")]
Limit = Annotated[int, typer.Option(help="Pictures to look at, drawn at random; 0 takes all.")]


@attrs.frozen
class Item:
    """One picture of the list."""

    path: Path
    generated: bool
    split: str
    original: bytes
    facts: Facts


def items(
    pictures: Path, limit: int = 0, keep: Callable[[dict[str, str]], bool] = lambda row: True, holding: bytes = b""
) -> Iterator[Item]:
    """The pictures that can be read and hold these bytes, in an order that does not depend on how they are listed."""
    with pictures.open(newline="", encoding="utf-8") as file:
        rows = sorted((row for row in csv.DictReader(file) if keep(row)), key=lambda row: row["path"])
    random.Random(0).shuffle(rows)
    given = 0
    for row in rows:
        if limit and given >= limit:
            return
        path = pictures.parent / row["path"]
        if holding and (not path.is_file() or holding not in path.read_bytes()):
            continue
        try:
            picture = decode(path)
        except DecodeError:
            continue
        if picture.original is None or picture.facts is None:
            continue
        given += 1
        yield Item(path, row["label"] == "1", row.get("split", ""), picture.original, picture.facts)


def upper(seen: int, total: int) -> float:
    """Upper 95 % bound of a share (Clopper and Pearson, one-sided), by bisection of the binomial's tail."""
    if seen == 0:
        return float(1 - 0.05 ** (1 / total))

    def tail(p: float) -> float:
        terms = [
            math.lgamma(total + 1)
            - math.lgamma(k + 1)
            - math.lgamma(total - k + 1)
            + k * math.log(p)
            + (total - k) * math.log1p(-p)
            for k in range(seen + 1)
        ]
        return float(sum(math.exp(t) for t in terms))

    low, high = seen / total, 1.0 - 1e-12
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle) > 0.05 else (low, middle)
    return high


@app.command()
def claims(pictures: Pictures, limit: Limit = 0) -> None:
    """How often a picture carries an explicit claim, watermarks apart. The rule rests on all splits but test."""
    credentials = Credentials()
    total: Counter[tuple[str, bool]] = Counter()
    claimed: Counter[tuple[str, bool]] = Counter()
    by: Counter[tuple[bool, str, str]] = Counter()
    for item in items(pictures, limit):
        split = "test" if item.split == "test" else "other"
        total[split, item.generated] += 1
        explicit = [
            c
            for c in file_claims(credentials, item.original, item.facts)
            if c.meaning in ("generated", "edited") and c.verification in ("verified", "unverified")
        ]
        claimed[split, item.generated] += bool(explicit)
        for key in {(c.carrier, c.generator) for c in explicit}:
            by[item.generated, *key] += 1
    for split in ("other", "test"):
        real, made = total[split, False], total[split, True]
        if not real or not made:
            continue
        wrong, right = claimed[split, False], claimed[split, True]
        bound = upper(wrong, real)
        typer.echo(f"{'all splits but test' if split == 'other' else 'test'}:")
        typer.echo(f"  generated with a claim  {right} of {made} ({right / made:.4f})")
        typer.echo(f"  real with a claim       {wrong} of {real} (upper 95 % bound {bound:.5f})")
        if right:
            ratio = right / made / bound
            typer.echo(f"  at least {ratio:.0f} times as often, log-odds {math.log(ratio):.2f}")
    for (made_, carrier, generator), count in by.most_common():
        typer.echo(f"  {'generated' if made_ else 'real':9}  {carrier:20} {generator:28} {count}")


@app.command()
def watermarks(pictures: Pictures, limit: Limit = 0) -> None:
    """False positives of the open generators' watermarks on real pictures, by split."""
    highest: dict[str, list[float]] = {}
    found: Counter[tuple[str, str]] = Counter()
    total: Counter[str] = Counter()
    for item in items(pictures, limit, lambda row: row["label"] == "0"):
        if not dwtdct.SMALLEST <= item.facts.width * item.facts.height <= LARGEST_PIXELS:
            continue
        split = "test" if item.split == "test" else "other"
        total[split] += 1
        for match in dwtdct.matches(stored_pixels(item.original, item.facts)):
            highest.setdefault(match.message.program, []).append(match.deviations)
            found[split, match.message.program] += match.found
    for split, count in total.items():
        name = "test" if split == "test" else "all splits but test"
        wrong = ", ".join(f"{m.program} {found[split, m.program]}" for m in MESSAGES)
        typer.echo(f"real pictures, {name}: {count}; false positives: {wrong}")
        one = sum(found[split, m.program] for m in MESSAGES)
        typer.echo(f"  any message: {one} of {count}, upper 95 % bound {upper(one, count):.5f}")
    for program, deviations in highest.items():
        typer.echo(f"  highest by chance, {program}: {max(deviations):.2f} (asked: {dwtdct.ASKED})")


@app.command()
def survival(
    pictures: Pictures, marked: Annotated[int, typer.Option(help="Pictures to mark with each message.")] = 200
) -> None:
    """Share of marks that are found after each treatment, in real pictures of `test`."""
    from imwatermark import WatermarkEncoder

    seen: Counter[tuple[str, str]] = Counter()
    count = 0
    for item in items(pictures, 0, lambda row: row["label"] == "0" and row.get("split") == "test"):
        if count >= marked:
            break
        if not 4 * dwtdct.SMALLEST <= item.facts.width * item.facts.height <= LARGEST_PIXELS:
            continue  # at half size there must be enough left to look at
        count += 1
        pixels = stored_pixels(item.original, item.facts)
        for message in MESSAGES:
            encoder = WatermarkEncoder()
            encoder.set_watermark("bits", list(message.bits))
            bgr = encoder.encode(np.ascontiguousarray(pixels[..., ::-1]), "dwtDct")
            with_mark = np.ascontiguousarray(bgr[..., ::-1])
            for treatment, treat in TREATMENTS.items():
                seen[message.program, treatment] += any(m.found for m in dwtdct.matches(treat(with_mark), [message]))
    typer.echo(f"survival in {count} real pictures of test, marked by invisible-watermark:")
    typer.echo(f"  {'':20}" + "".join(f"{name:>12}" for name in TREATMENTS))
    for message in MESSAGES:
        row = "".join(f"{seen[message.program, name] / max(1, count):12.3f}" for name in TREATMENTS)
        typer.echo(f"  {message.program:20}{row}")


@app.command()
def trustmark(
    pictures: Pictures,
    limit: Limit = 0,
    variant: Annotated[str, typer.Option(help=f"One of {', '.join(VARIANTS)}.")] = "Q",
    marked: Annotated[int, typer.Option(help="Pictures of test to mark.")] = 40,
) -> None:
    """False positives of TrustMark's decoder on real pictures, by schema and split, and what its marks survive.

    Ends with 1 where the package or its weights are not here; what passes by chance alone is told all the same.
    """
    if variant not in VARIANTS:
        raise typer.BadParameter(f"takes one of {', '.join(VARIANTS)}, got {variant!r}", param_hint="--variant")
    for schema in range(4):
        typer.echo(f"schema {schema}: {by_chance(schema):.2g} of random answers pass its check")
    marks = TrustMarks(variant)
    if why := marks.missing():
        typer.echo(why, err=True)
        raise typer.Exit(1)
    total: Counter[str] = Counter()
    found: Counter[tuple[str, object]] = Counter()
    for item in items(pictures, limit, lambda row: row["label"] == "0"):
        split = "test" if item.split == "test" else "other"
        total[split] += 1
        _, there, named = marks.read(stored_pixels(item.original, item.facts))
        found[split, named] += there
    for split, count in total.items():
        name = "test" if split == "test" else "all splits but test"
        wrong = sum(n for (s, _), n in found.items() if s == split)
        typer.echo(
            f"real pictures, {name}: {count}; false positives: {wrong}, upper 95 % bound {upper(wrong, count):.5f}"
        )
        typer.echo(
            f"  by schema: {', '.join(f'{s} {n}' for (t, s), n in sorted(found.items(), key=str) if t == split and n)}"
        )
    payloads = random.Random(0)
    seen: Counter[str] = Counter()
    count = 0
    for item in items(pictures, 0, lambda row: row["label"] == "0" and row.get("split") == "test"):
        if count >= marked:
            break
        count += 1
        payload = "".join(payloads.choice("01") for _ in range(61))
        with_mark = marks.hide(stored_pixels(item.original, item.facts), payload)
        for treatment, treat in TREATMENTS.items():
            read, there, _ = marks.read(treat(with_mark))
            seen[treatment] += there and read == payload
    typer.echo(f"survival in {count} real pictures of test, the payload read without an error:")
    for treatment in TREATMENTS:
        typer.echo(f"  {treatment:12} {seen[treatment] / max(1, count):.3f}")


def _jpeg(quality: int) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    def treat(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        with Image.open(file, formats=("JPEG",)) as image:
            return np.asarray(image.convert("RGB"))

    return treat


def _half(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS))


TREATMENTS: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    "as it is": lambda pixels: pixels,
    "JPEG 95": _jpeg(95),
    "JPEG 90": _jpeg(90),
    "JPEG 70": _jpeg(70),
    "half size": _half,
}


@app.command("camera")
def cameras(pictures: Pictures, limit: Limit = 0) -> None:
    """What real pictures with a camera's name say of themselves, and how alike thumbnails are."""
    notes: Counter[str] = Counter()
    makes: Counter[tuple[str, bool]] = Counter()
    own: list[float] = []
    foreign: list[float] = []
    count = 0
    before: tuple[bytes, Any] | None = None
    for item in items(pictures, limit, lambda row: row["label"] == "0", b"Exif"):
        file = container.read(item.original, item.facts)
        said = camera.claim(file, item.facts, item.original)
        if said is None:
            continue
        count += 1
        for note in said.detail.split("; "):
            notes[_kind(note)] += 1
        if item.facts.quantization and camera.as_it_was_taken(file, item.facts):
            makes[item.facts.camera.get("Make", "?").lower(), camera.standard(item.facts)] += 1
        if file.thumbnail:
            likeness = camera.likeness_of(file.thumbnail, item.facts, item.original)
            own += [] if likeness is None else [likeness]
            if before is not None:
                likeness = camera.likeness_of(before[0], item.facts, item.original)
                foreign += [] if likeness is None else [likeness]
            before = file.thumbnail, item.path
    typer.echo(f"real pictures with a camera's name: {count}")
    for note, n in notes.most_common():
        typer.echo(f"  {n:5} {note}")
    typer.echo("of those that look as they were taken (EXIF's size, a maker note, no editor named), by make:")
    for make in sorted({m for m, _ in makes}, key=lambda m: (-makes[m, False] - makes[m, True], m)):
        typer.echo(f"  {make:32} libjpeg's tables {makes[make, True]:4}, others {makes[make, False]:4}")
    for name, values in (("its own", own), ("another picture's", foreign)):
        if values:
            shares = np.percentile(values, [1, 5, 50, 95, 99])
            above = np.mean(np.array(values) >= camera.SAME)
            typer.echo(
                f"  likeness to {name} thumbnail, {len(values)}: percentiles 1 5 50 95 99 = "
                + " ".join(f"{v:.2f}" for v in shares)
                + f"; {above:.3f} from {camera.SAME} on"
            )


def _kind(note: str) -> str:
    """A note without what is particular to one picture."""
    for start in (
        "EXIF says",
        "software:",
        "the maker note has another",
        "quantisation tables are libjpeg's",
        "quantisation tables are not libjpeg's",
    ):
        if note.startswith(start):
            return start + " ..."
    return note


if __name__ == "__main__":
    app()

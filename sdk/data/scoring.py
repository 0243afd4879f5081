"""Scores of the installed plugins on the project's pictures: what a fusion is trained on.

Every picture is scored in several versions (another window, another compression, from the one normalising pipeline),
plugin by plugin, so that a new plugin costs its own forward passes and nobody else's. What was scored is kept as JSON
lines and is not scored again.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.decoding import decode
from tellsign.detector import Detector
from tellsign.errors import DecodeError, SettingError
from tellsign.fusion.features import feature_row
from tellsign.schemas import HEADS, Picture

from .normalise import normalise_picture, reencode
from .rows import PictureRow

VERSIONS = 2
"""Versions of a picture: the first as the pipeline gives it, the second from another window and compressed harder."""

AS_IS = -1
"""The version of a picture that is looked at unchanged; it has no other."""

Line = dict[str, float]
"""A feature row: a number by column, NaN where the plugin did not answer."""
Key = tuple[str, int]
"""A picture's absolute path, and the version's number."""


def key_of(row: PictureRow, version: int) -> Key:
    """By what a version's scores are kept; the same however the folder was named."""
    return str(row.path.resolve()), AS_IS if row.as_is else version


def version_of(pixels: NDArray[np.uint8], row: PictureRow, version: int) -> Picture:
    """Version `version` of a picture.

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)
    row : PictureRow
        Its source and file name seed the draws; its class does not. A forgery is not cut, lest its region be lost.
        Nothing is done to a row that is looked at as it is.
    version : int
        0 is what the pipeline gives; others are saved once more at a quality from 40 to 95.

    Returns
    -------
    Picture
        See `normalise_picture`.

    Raises
    ------
    SettingError
        The picture is too small.
    """
    if row.as_is:
        return Picture(pixels=pixels)
    seed = zlib.crc32(f"{row.source}/{row.path.name}/{version}".encode())
    out = normalise_picture(pixels, seed, cut=not row.forged)
    if version:
        quality = int(np.random.default_rng(seed).integers(40, 96))
        whole = None if out.overview is None else Picture(pixels=reencode(out.overview.pixels, quality))
        out = Picture(pixels=reencode(out.pixels, quality), overview=whole)
    return out


@attrs.frozen(kw_only=True)
class Skipped:
    """A picture that was not scored."""

    path: Path
    why: str


def scored(
    rows: Sequence[PictureRow], detector: Detector, *, versions: int = VERSIONS, chunk: int = 16
) -> Iterator[tuple[PictureRow, int, Line] | Skipped]:
    """Feature rows of every version of every picture that can be read and is large enough, in order.

    Parameters
    ----------
    rows : sequence of PictureRow
    detector : Detector
    versions : int
    chunk : int
        Pictures that are held and scored at once, at most; one row's versions at least.
    """
    size = max(1, chunk // versions)
    for start in range(0, len(rows), size):
        waiting: list[tuple[PictureRow, int, Picture]] = []
        for row in rows[start : start + size]:
            try:
                pixels = decode(row.path).pixels
                waiting += [(row, v, version_of(pixels, row, v)) for v in range(1 if row.as_is else versions)]
            except (DecodeError, SettingError) as error:
                yield Skipped(path=row.path, why=str(error))
        answers = detector.collect_many([p for _, _, p in waiting])
        for (row, version, _), evidence in zip(waiting, answers, strict=True):
            line: Line = {}
            for head in HEADS:
                line |= feature_row(evidence, detector.declarations, head)
            yield row, version, line


def score_plugin(
    rows: Sequence[PictureRow],
    plugin: str,
    settings: Mapping[str, object],
    cache: Path,
    *,
    device: str = "auto",
    versions: int = VERSIONS,
) -> tuple[dict[Key, Line], list[Skipped]]:
    """Feature rows of one plugin, those in `cache` read and the others scored and appended to it.

    Parameters
    ----------
    rows : sequence of PictureRow
    plugin : str
        An installed plugin.
    settings : mapping
        Its settings.
    cache : Path
        A file of JSON lines; a last line that a killed run left half written is scored again.
    device : str
    versions : int

    Returns
    -------
    lines : dict of (path, version) to dict of column to float
    skipped : list of Skipped
        What cannot be read or is too small.

    Raises
    ------
    SettingError
        The plugin does not load.
    """
    have = read_scores(cache)
    wanted = [r for r in rows if any(key_of(r, v) not in have for v in range(versions))]
    skipped: list[Skipped] = []
    if wanted:
        with (
            Detector(plugins=[plugin], device=device, settings={plugin: settings}) as detector,
            cache.open("a") as file,
        ):
            if plugin not in detector.declarations:
                # Else silence would be kept as the plugin's answer.
                raise SettingError("plugin", "a plugin that loads", plugin)
            for answer in scored(wanted, detector, versions=versions):
                if isinstance(answer, Skipped):
                    skipped.append(answer)
                    continue
                row, version, line = answer
                file.write(_text(key_of(row, version), line))
                file.flush()
                have[key_of(row, version)] = line
    return have, skipped


def read_scores(cache: Path) -> dict[Key, Line]:
    """What is kept in a file of JSON lines, nothing where it is missing; a half-written last line is cut off."""
    if not cache.is_file():
        return {}
    lines = cache.read_text().splitlines(keepends=True)
    whole = [x for x in lines if x.endswith("\n")]
    if len(whole) < len(lines):
        cache.write_text("".join(whole))
    parsed = (json.loads(text) for text in whole)
    return {(path, version): line for path, version, line in parsed}


def write_scores(cache: Path, lines: Mapping[Key, Line]) -> None:
    """Write a file that `read_scores` reads, and the folder that it is in."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text("".join(_text(key, line) for key, line in lines.items()))


def _text(key: Key, line: Line) -> str:
    return json.dumps([*key, line]) + "\n"

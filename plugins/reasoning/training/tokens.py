"""Hidden tokens of the tower's middle, computed once, so that updates of its last blocks train from a file.

A forward pass of the whole tower takes most of a step's time and its first blocks never change; what is kept costs half
a megabyte per picture and block.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tellsign import decode
from tellsign.data.balance import TOPICS, Topics, embeddings, make, source_weight
from tellsign.data.known import known_pictures
from tellsign.data.rows import PictureRow
from tellsign.data.scoring import key_of, version_of
from tellsign.data.squares import Squares
from tellsign.errors import DecodeError, SettingError
from tellsign.schemas import Picture
from tellsign.towers import ClipTower, run_blocks, semantic_square
from tellsign.views import semantic_view

from .facts import place_of

FIELDS = ("label", "source", "content", "group", "split", "kind", "region", "share", "path", "version")
KEEP = (8, 9, 10, 11)
"""After which blocks tokens are kept: a branch of one or two blocks may end at block 10 or 12."""


@attrs.frozen(kw_only=True)
class Shown:
    """One picture as the tower is shown it, and what is known of it for certain."""

    square: NDArray[np.uint8]
    """uint8 (side, side, 3)."""
    label: int
    """1 where there are synthesised pixels."""
    source: str
    content: str
    group: str
    split: str
    kind: str = ""
    """Kind of forgery (`tellsign.forge`); empty for pictures that were not forged."""
    region: str = ""
    """Where the forged region lies: one of `facts.PLACES`; empty where there is none."""
    share: float = 0.0
    """The forged region's share of the picture."""
    path: str = ""
    """Of a picture that was scored (`tellsign.data.scoring`)."""
    version: int = 0


@attrs.frozen(kw_only=True)
class TokenStore:
    """What `write` left in a folder."""

    folder: Path
    label: NDArray[np.int64]
    source: NDArray[np.str_]
    content: NDArray[np.str_]
    group: NDArray[np.str_]
    split: NDArray[np.str_]
    kind: NDArray[np.str_]
    region: NDArray[np.str_]
    share: NDArray[np.float64]
    path: NDArray[np.str_]
    classes: NDArray[np.float16]
    """(n, depth, width): the class token after every block."""
    squares: NDArray[np.uint8]
    """(n, side, side, 3), memory-mapped."""

    @classmethod
    def read(cls, folder: Path) -> TokenStore:
        """Read a folder; one that is still being written gives what is there."""
        with (folder / "tokens.csv").open(newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
        n = len(rows)
        texts = {f: np.array([r[f] for r in rows]) for f in FIELDS if f not in ("label", "share", "version")}
        return cls(
            folder=folder,
            label=np.array([int(r["label"]) for r in rows]),
            share=np.array([float(r["share"]) for r in rows]),
            classes=np.asarray(np.load(folder / "classes.npy", mmap_mode="r")[:n]),
            squares=np.load(folder / "squares.npy", mmap_mode="r")[:n],
            **texts,
        )

    def __len__(self) -> int:
        return len(self.label)

    def after(self, block: int) -> NDArray[np.float16]:
        """All tokens after a block, float16 (n, N, width), memory-mapped."""
        file = self.folder / f"after-{block}.npy"
        stored: NDArray[np.float16] = np.load(file, mmap_mode="r")[: len(self)]
        return stored


def sample(
    squares: Squares,
    classes: NDArray[np.float16],
    tower: ClipTower,
    *,
    count: int,
    seed: int = 0,
    among: NDArray[np.int64] | None = None,
) -> list[int]:
    """Rows of `fit`, half of each class, drawn by their weight in the semantic set.

    Parameters
    ----------
    squares : Squares
    classes : float16 array of (n, depth, width)
        Class tokens of all squares.
    tower : ClipTower
    count : int
    seed : int
    among : int64 array, optional
        Rows to draw from; default all of `fit`.
    """
    fit = np.flatnonzero(squares.split == "fit") if among is None else among
    chosen = make(embeddings(tower, classes[fit]), squares.label[fit], squares.source[fit], topics=TOPICS, seed=seed)
    rows, weight = fit[chosen.rows], chosen.weight
    rng = np.random.default_rng(seed)
    out: list[int] = []
    for y in (0, 1):
        mine = np.flatnonzero(squares.label[rows] == y)
        share = weight[mine] / weight[mine].sum()
        size = min(count // 2, int((share > 0).sum()))
        out += rows[mine[rng.choice(len(mine), size, replace=False, p=share)]].tolist()
    return sorted(out)


def topics_of(fit: TokenStore, tower: ClipTower, *others: TokenStore, count: int = TOPICS) -> list[NDArray[np.int64]]:
    """Each picture's topic in each store, by k-means on the first one's; labels take no part."""
    weight = source_weight(fit.label, fit.source)
    found = Topics(embeddings(tower, fit.classes), weight, count=count)
    return [found.of(embeddings(tower, s.classes)) for s in (fit, *others)]


def shown_squares(squares: Squares, rows: Iterable[int]) -> Iterator[Shown]:
    """Prepared squares, the overview version."""
    for r in rows:
        yield Shown(
            square=squares.pixels[r, 0],
            label=int(squares.label[r]),
            source=str(squares.source[r]),
            content=str(squares.content[r]),
            group=str(squares.group[r]),
            split=str(squares.split[r]),
        )


def shown_scored(rows: Iterable[PictureRow], versions: Iterable[int]) -> Iterator[Shown]:
    """Pictures as the fusion's scoring shows them to the semantic task; what cannot be read is passed over.

    Parameters
    ----------
    rows : iterable of PictureRow
    versions : iterable of int
        See `tellsign.data.scoring.version_of`.
    """
    chosen = list(versions)
    for row in rows:
        try:
            pixels = decode(row.path).pixels
            pictures = [version_of(pixels, row, v) for v in chosen]
        except (DecodeError, SettingError):
            continue
        for version, picture in zip(chosen, pictures, strict=True):
            yield Shown(
                square=semantic_square(semantic_view(picture, key="training").image),
                label=row.label,
                source=row.source,
                content=row.content,
                group=row.group,
                split=row.split,
                kind=row.source.split("/")[0] if row.forged and row.label else "",
                path=key_of(row, version)[0],
                version=version,
            )


def shown_forgeries(folder: Path, split: str, *, count: int, seed: int = 0) -> Iterator[Shown]:
    """Forgeries as the semantic view shows them, kinds evenly.

    Parameters
    ----------
    folder : Path
        What `tellsign forge` filled.
    split : str
        The split of the pictures that were forged.
    count : int
    seed : int
    """
    for one in known_pictures(folder, count=count, seed=seed):
        view = semantic_view(Picture(pixels=one.pixels), key="training")
        yield Shown(
            square=semantic_square(view.image),
            label=one.label,
            source=one.source,
            content="photo",
            group=one.group,
            split=split,
            kind=one.kind,
            region=place_of(one.region) if one.region.any() else "",
            share=one.share if one.region.any() else 0.0,
        )


def write(
    pictures: Sequence[Shown] | Iterator[Shown],
    total: int,
    tower: ClipTower,
    out: Path,
    *,
    keep: Sequence[int] = KEEP,
    batch: int = 8,
) -> int:
    """Run the tower and keep its tokens; a folder that was cut off is begun anew.

    Parameters
    ----------
    pictures : Shown
    total : int
        How many there are at most.
    tower : ClipTower
    out : Path
        Receives `tokens.csv`, `classes.npy`, `squares.npy` and `after-<block>.npy`.
    keep : sequence of int
    batch : int

    Returns
    -------
    int
        Pictures written.
    """
    out.mkdir(parents=True, exist_ok=True)
    side = tower.grid * tower.patch
    shape = (total, tower.grid**2 + 1, tower.width)
    kept = {b: np.lib.format.open_memmap(out / f"after-{b}.npy", "w+", np.float16, shape) for b in keep}
    classes = np.lib.format.open_memmap(out / "classes.npy", "w+", np.float16, (total, tower.depth, tower.width))
    squares = np.lib.format.open_memmap(out / "squares.npy", "w+", np.uint8, (total, side, side, 3))
    done = 0
    with (out / "tokens.csv").open("w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle)
        table.writerow(FIELDS)
        for part in tqdm(_batches(pictures, batch), total=-(-total // batch), desc="tokens", unit="batch"):
            at = slice(done, done + len(part))
            squares[at] = np.stack([p.square for p in part])
            found, after = run_blocks(tower, squares[at], keep)
            classes[at] = found.half().cpu().numpy()
            for b in keep:
                kept[b][at] = after[b].half().cpu().numpy()
            table.writerows([getattr(p, f) for f in FIELDS] for p in part)
            handle.flush()
            done += len(part)
    return done


def _batches(pictures: Iterable[Shown], size: int) -> Iterator[list[Shown]]:
    waiting: list[Shown] = []
    for picture in pictures:
        waiting.append(picture)
        if len(waiting) == size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting

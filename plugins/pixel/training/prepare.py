"""Cuts native windows out of the project's pictures and makes the aligned pairs; what `train` reads.

Windows are cut once and normalised anew at every use, so that no step sees the same resampling twice.
"""

from __future__ import annotations

import csv
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tellsign import decode
from tellsign.data.duplicates import near_pairs, perceptual_hash
from tellsign.data.normalise import MINIMUM, WINDOW, window
from tellsign.data.rows import SPLITS, PictureRow
from tellsign.errors import DecodeError

from .autoencoders import NAMES, Autoencoder
from .pairs import erase_history, match_spectrum, round_trip

FIELDS = ("index", "side", "label", "source", "content", "group", "split", "path", "hash")
WINDOWS = {0: 2, 1: 4}
"""Windows per picture of `fit`, by label: there are three times as many real pictures. Other splits give one."""


def windows(rows: Sequence[PictureRow], out: Path) -> int:
    """Write `windows.npy` (uint8 (n, 320, 320, 3), filled from the top left) and `windows.csv`.

    Pictures that cannot be read or are too small are left out and listed in `skipped.csv`; so are those that nearly
    equal one of a later split (`fit` before `fuse` before `user` before `test`).

    Returns
    -------
    int
        Number of windows.
    """
    out.mkdir(parents=True, exist_ok=True)
    skipped: list[tuple[str, str]] = []
    kept: list[tuple[PictureRow, int, list[NDArray[np.uint8]]]] = []
    for row in tqdm(rows, desc="windows", unit="picture"):
        try:
            pixels = decode(row.path).pixels
        except DecodeError as error:
            skipped.append((str(row.path), error.code))
            continue
        if min(pixels.shape[:2]) < MINIMUM:
            skipped.append((str(row.path), "too_small"))
            continue
        rng = np.random.default_rng(zlib.crc32((row.path.name + row.source).encode()))
        count = WINDOWS[row.label] if row.split == "fit" else 1
        kept.append((row, int(perceptual_hash(pixels)), [window(pixels, rng).copy() for _ in range(count)]))
    crossing = crossers([k[0].split for k in kept], np.array([k[1] for k in kept], np.uint64))
    skipped += [(str(kept[i][0].path), "near-duplicate in a later split") for i in sorted(crossing)]
    kept = [k for i, k in enumerate(kept) if i not in crossing]
    total = sum(len(k[2]) for k in kept)
    store = np.lib.format.open_memmap(out / "windows.npy", "w+", np.uint8, (total, WINDOW, WINDOW, 3))
    index = 0
    with (out / "windows.csv").open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(FIELDS)
        for row, value, cuts in kept:
            for cut in cuts:
                side = cut.shape[0]
                store[index, :side, :side] = cut
                table.writerow([index, side, row.label, row.source, row.content, row.group, row.split, row.path, value])
                index += 1
    store.flush()
    with (out / "skipped.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([("path", "why"), *skipped])
    return total


def crossers(splits: Sequence[str], hashes: NDArray[np.uint64]) -> set[int]:
    """Indices of pictures that nearly equal one of a later split."""
    order = {name: i for i, name in enumerate(SPLITS)}
    out: set[int] = set()
    for i, j in near_pairs(hashes):
        if order[splits[i]] != order[splits[j]]:
            out.add(i if order[splits[i]] < order[splits[j]] else j)
    return out


def pairs(
    rows: Iterable[PictureRow], weights: Path, out: Path, *, count: int, per_source: int = 220, seed: int = 7
) -> int:
    """Write `pairs_real.npy` and `pairs_fake.npy`: real pictures of `fit` and their round trips.

    Both are uint8 arrays of (n, 256, 256, 3); member i of one belongs to member i of the other.

    Parameters
    ----------
    rows : iterable of PictureRow
    weights : Path
        Folder of the tiny autoencoders.
    out : Path
    count : int
        Pairs to make; fewer where there are not enough pictures that are large enough.
    per_source : int, default 220
        Pictures taken from one source at most.
    seed : int

    Returns
    -------
    int
        Number of pairs. 0, and nothing written, where no picture is large enough: native crops are not.
    """
    import torch

    rng = np.random.default_rng(seed)
    models = [Autoencoder.load(weights, n).bfloat16().to(memory_format=torch.channels_last) for n in NAMES]
    reals: list[NDArray[np.uint8]] = []
    fakes: list[NDArray[np.uint8]] = []
    made: list[tuple[str, str]] = []
    bases = _bases(rows, rng, per_source)
    with tqdm(total=count, desc="pairs", unit="pair") as bar:
        while len(reals) < count:
            # One model after the other, so that every source meets every latent space.
            model = models[len(made) // 8 % len(models)]
            group = [b for _, b in zip(range(8), bases, strict=False)]
            if not group:
                break
            trips = round_trip([b for b, _ in group], model, rng, noise=float(rng.choice([0, 0, 0.05, 0.1])))
            for (base, source), trip in zip(group, trips, strict=True):
                reals.append(base)
                fakes.append(match_spectrum(trip, base))
                made.append((source, model.name))
            bar.update(len(group))
    if not reals:
        return 0
    np.save(out / "pairs_real.npy", np.stack(reals))
    np.save(out / "pairs_fake.npy", np.stack(fakes))
    with (out / "pairs.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([("source", "autoencoder"), *made])
    return len(reals)


def _bases(
    rows: Iterable[PictureRow], rng: np.random.Generator, per_source: int
) -> Iterator[tuple[NDArray[np.uint8], str]]:
    by_source: dict[str, list[PictureRow]] = defaultdict(list)
    for row in rows:
        if row.split == "fit" and row.label == 0:
            by_source[row.source].append(row)
    chosen: list[PictureRow] = []
    for source in sorted(by_source):
        mine = by_source[source]
        chosen += [mine[i] for i in rng.permutation(len(mine))[:per_source]]
    for i in rng.permutation(len(chosen)):
        try:
            pixels = decode(chosen[i].path).pixels
        except DecodeError:
            continue
        for _ in range(2):
            base = erase_history(pixels, rng)
            if base is not None:
                yield base, chosen[i].source

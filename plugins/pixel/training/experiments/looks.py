"""How to look at a picture: several crops, two scales, aggregations, re-encodings, reconstruction errors.

All rows score the same pictures, drawn from `fit` and `fuse` so that sources count by the root of their size.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from tellsign import decode
from tellsign.data.autoencoders import Autoencoder
from tellsign.data.normalise import MINIMUM, WINDOW, normalise_window, window
from tellsign.errors import DecodeError
from tellsign.plugins.pixel.training.balance import Rows
from tellsign.plugins.pixel.training.probe import Probe, read_rows, scored_crop, source_folds
from tellsign.plugins.pixel.training.train import CROP, Windows, crop

from .pairing import SHIPPED, STRENGTH
from .study import FOLDS, Floats, Study, auc, source_table

Pixels = NDArray[np.uint8]
KINDS = ("texture", "smooth", "random", "texture, half scale", "random, half scale")
"""The crops of `crops_of`; "half scale" is a window of twice the side, scaled down by two."""
TRIED = 6
"""Windows that the one with most or least texture is chosen from."""
PATCH = 96
"""Side in pixels of what goes through the autoencoders."""


def drawn(windows: Windows, split: str, count: int, *, seed: int = 0) -> list[int]:
    """Windows of different pictures, half of them real; a source counts by the root of its size."""
    rng = np.random.default_rng(seed)
    first = {r["path"]: i for i, r in reversed(list(enumerate(windows.rows)))}
    out: list[int] = []
    for label in (0, 1):
        index, p = windows.balanced(split, label)
        keep = np.isin(index, list(first.values()))
        index, p = index[keep], p[keep] / p[keep].sum()
        out += rng.choice(index, size=min(count // 2, len(index)), replace=False, p=p).tolist()
    return sorted(int(i) for i in out)


def texture(pixels: Pixels) -> float:
    """Mean difference of neighbours, in grey levels."""
    grey = pixels.mean(axis=2)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())


def crops_of(pixels: Pixels, rng: np.random.Generator) -> list[Pixels]:
    """One normalised crop for each of `KINDS`, uint8 (224, 224, 3).

    A picture too small for a window of twice the side gives the largest that it has.
    """
    out = []
    for kind in KINDS:
        half = kind.endswith("half scale")
        side = min(2 * WINDOW, *pixels.shape[:2]) if half else WINDOW
        tried = [window(pixels, rng, side) for _ in range(1 if kind.startswith("random") else TRIED)]
        chosen = sorted(tried, key=texture)[0 if kind == "smooth" else -1]
        out.append(crop(normalise_window(chosen, rng), rng))
    return out


def crop_features(
    windows: Windows, index: Sequence[int], compute: Callable[[Pixels], NDArray[np.generic]], out: Path
) -> None:
    """Features of `crops_of` the pictures that windows were cut from, to `crops.npz`: (n, kinds, ...) and `index`."""
    made, kept = [], []
    for i in tqdm(index, desc="crops", unit="picture"):
        try:
            pixels = decode(windows.rows[i]["path"]).pixels
        except DecodeError:
            continue
        if min(pixels.shape[:2]) >= MINIMUM:
            made.append(compute(np.stack(crops_of(pixels, np.random.default_rng(5000 + i)))))
            kept.append(i)
    np.savez(out / "crops.npz", x=np.stack(made), index=np.array(kept))


AGGREGATIONS: Mapping[str, Callable[[Floats], Floats]] = {
    "one random crop": lambda s: s[:, 2],
    "the crop with most texture": lambda s: s[:, 0],
    "the smoothest crop": lambda s: s[:, 1],
    "one random crop at half scale": lambda s: s[:, 4],
    "mean of three crops": lambda s: s[:, :3].mean(axis=1),
    "mean of both scales": lambda s: s.mean(axis=1),
    "trimmed mean of both scales": lambda s: np.sort(s, axis=1)[:, 1:-1].mean(axis=1),
    "median of both scales": lambda s: np.median(s, axis=1),
    "largest of both scales": lambda s: s.max(axis=1),
    "mean of the largest two": lambda s: np.sort(s, axis=1)[:, -2:].mean(axis=1),
}
"""Title to a function of scores (pictures, kinds). The first is what the others are compared with."""


@attrs.frozen
class Looked:
    """Scores of the drawn pictures, by probes that saw nothing of their sources, seed by seed."""

    rows: Rows
    split: NDArray[np.str_]
    fold: list[NDArray[np.int64]]
    """By seed, the fold of `fit` that a picture is held out in; -1 in `fuse`."""
    scores: list[Floats]
    """By seed, (pictures, kinds)."""

    def line(self, column: Callable[[Floats], Floats]) -> dict[str, float]:
        """AUC on held-out families of `fit` and on `fuse`: the mean over seeds, and the spread of the first."""
        every = []
        for fold, scores in zip(self.fold, self.scores, strict=True):
            values = column(scores)
            fuse = self.split == "fuse"
            inside = [auc(self.rows.labels[fold == f], values[fold == f]) for f in range(FOLDS)]
            table = source_table(self.rows[fuse], values[fuse])
            every.append(
                {
                    "fit": float(np.mean(inside)),
                    "fuse": auc(self.rows.labels[fuse], values[fuse]),
                    "fuse by source": float(np.mean(list(table.values()))),
                }
            )
        return _mean(every)


def look(
    study: Study, windows: Windows, x: NDArray[np.generic], index: NDArray[np.int64], *, seeds: Sequence[int]
) -> Looked:
    """Score crops with what ships, fitted without the pictures' sources.

    Parameters
    ----------
    study : Study
        What the probes are fitted to.
    windows : Windows
    x : array of (pictures, kinds, blocks, k)
    index : int64 array of (pictures,)
        Windows of the pictures.
    seeds : sequence of int
    """
    rows, split = read_rows(windows, index), np.array([windows.rows[i]["split"] for i in index])
    fit = study.where("fit")
    have: dict[tuple[int, str], int] = {}
    for k, (y, s) in enumerate(zip(study.rows.labels[fit], study.rows.sources[fit], strict=True)):
        have[int(y), str(s)] = k
    folds, scores = [], []
    for seed in seeds:
        of_fit = study.fold(seed)
        fold = np.full(len(index), -1)
        for k in np.flatnonzero(split == "fit").tolist():
            fold[k] = of_fit[have[int(rows.labels[k]), str(rows.sources[k])]]
        total = np.zeros(x.shape[:2])
        for block in range(study.x.shape[1]):
            z = np.asarray(study.x[fit][:, block], np.float32)
            for f in range(-1, FOLDS):
                mine = fold == f
                if mine.any():
                    probe = Probe(STRENGTH, seed, SHIPPED).fit_rows(z[of_fit != f], study.rows[fit][of_fit != f])
                    spread = probe.score(z).std()
                    part = np.asarray(x[mine][:, :, block], np.float32)
                    total[mine] += probe.score(part.reshape(-1, part.shape[-1])).reshape(part.shape[:2]) / spread
        folds.append(fold)
        scores.append(total)
    return Looked(rows, split, folds, scores)


def encoded_twice(study: Study) -> dict[str, float]:
    """AUC on `fuse` of the mean score of a picture and of its JPEG 90, beside those of the two alone."""
    fit = study.where("fit")
    total = np.zeros(len(study.x))
    for block in range(study.x.shape[1]):
        x = np.asarray(study.x[:, block], np.float32)
        probe = Probe(STRENGTH, 0, SHIPPED).fit_rows(x[fit], study.rows[fit])
        total += probe.score(x) / probe.score(x[fit]).std()
    native, again = (study.where("fuse", c) for c in ("native", "jpeg90"))
    labels = study.rows.labels[native]
    both = (total[native] + total[again]) / 2  # rows of one picture are in one order under either condition
    table = source_table(study.rows[native], both)
    out = {"fuse": auc(labels, both), "fuse by source": float(np.mean(list(table.values())))}
    return out | {"fuse alone": auc(labels, total[native]), "fuse, JPEG 90 alone": auc(labels, total[again])}


@torch.inference_mode()
def reconstruction_errors(windows: Windows, index: Sequence[int], models: Sequence[Autoencoder], out: Path) -> None:
    """Log errors of the scored crops' middle after each autoencoder's round trip, to `errors.csv`.

    An error is a mean absolute difference in grey levels; `texture` stands beside them, since texture is hard to bring
    back whoever made it.
    """
    start = (CROP - PATCH) // 2
    with (out / "errors.csv").open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["index", "texture", *(m.name for m in models)])
        for i in tqdm(index, desc="errors", unit="picture"):
            middle = scored_crop(windows, i)[start : start + PATCH, start : start + PATCH]
            x = torch.from_numpy(middle.copy()).permute(2, 0, 1)[None].float() / 255
            errors = [float(np.log((m(x) - x).abs().mean().item() * 255 + 1e-3)) for m in models]
            table.writerow([i, np.log(texture(middle) + 1e-3), *errors])


def error_lines(windows: Windows, folder: Path, *, seeds: Sequence[int]) -> dict[str, dict[str, float]]:
    """AUC of each column of `errors.csv`, and of source-balanced probes on all of them."""
    with (folder / "errors.csv").open(newline="") as handle:
        lines = list(csv.DictReader(handle))
    names = [n for n in lines[0] if n != "index"]
    index = np.array([int(r["index"]) for r in lines])
    rows, split = read_rows(windows, index), np.array([windows.rows[i]["split"] for i in index])
    x = np.array([[float(r[n]) for n in names] for r in lines], np.float32)
    fit, fuse = split == "fit", split == "fuse"
    out = {}
    for k, name in enumerate(names):
        # The smaller the error, the nearer a picture is to what a decoder can write.
        small = -x[:, k].astype(float)
        table = source_table(rows[fuse], small[fuse])
        out[f"small {name}"] = {
            "fit": auc(rows.labels[fit], small[fit]),
            "fuse": auc(rows.labels[fuse], small[fuse]),
            "fuse by source": float(np.mean(list(table.values()))),
        }
    for title, columns in (("all errors", slice(1, None)), ("all errors and texture", slice(None))):
        every = []
        for seed in seeds:
            fold = source_folds(rows.labels[fit], rows.sources[fit].tolist(), seed=seed, folds=FOLDS)
            z = x[:, columns]
            inside = []
            for f in range(FOLDS):
                probe = Probe(1.0, seed).fit_rows(z[fit][fold != f], rows[fit][fold != f])
                inside.append(auc(rows.labels[fit][fold == f], probe.score(z[fit][fold == f])))
            scores = Probe(1.0, seed).fit_rows(z[fit], rows[fit]).score(z[fuse])
            table = source_table(rows[fuse], scores)
            every.append(
                {
                    "fit": float(np.mean(inside)),
                    "fuse": auc(rows.labels[fuse], scores),
                    "fuse by source": float(np.mean(list(table.values()))),
                }
            )
        out[title] = _mean(every)
    return out


def _mean(every: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of every figure over the seeds; `fit sd` is the first's spread."""
    out = {name: float(np.mean([e[name] for e in every])) for name in every[0]}
    return out | {"fit sd": float(np.std([e["fit"] for e in every]))}

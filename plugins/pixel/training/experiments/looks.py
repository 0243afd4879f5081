"""How to look at a picture: several crops, two scales, aggregations, re-encodings, reconstruction errors.

All rows score the same pictures, drawn from `fit` and `fuse` so that sources count by the root of their size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tellsign import decode
from tellsign.data.autoencoders import Autoencoder
from tellsign.data.normalise import WINDOW, normalise_window, reencode, window
from tellsign.plugins.pixel.training.balance import Rows
from tellsign.plugins.pixel.training.probe import Probe, read_rows, scored_crop, source_folds
from tellsign.plugins.pixel.training.train import CROP, Windows, crop

from .compared import Column, Compared, mean_figures
from .kept import kept_rows
from .pairing import SHIPPED, STRENGTH
from .study import FOLDS, Study, auc, source_table

Pixels = NDArray[np.uint8]
KINDS = ("texture", "smooth", "random", "texture, half scale", "random, half scale", "random, saved again")
"""The crops of `crops_of`; "half scale" is a window of twice the side, scaled down by two, and the last is the third
as `AGAIN` leaves it."""
AGAIN = 90
"""JPEG quality that a picture is saved with once more."""
TRIED = 6
"""Windows that the one with most or least texture is chosen from."""
PATCH = 96
"""Side in pixels of what goes through the autoencoders."""


def drawn(windows: Windows, split: str, count: int, *, seed: int = 0) -> list[int]:
    """Windows of different pictures, real and generated in turn; a source counts by the root of its size.

    A larger count begins with the pictures of a smaller one.
    """
    rng = np.random.default_rng(seed)
    first = {r["path"]: i for i, r in reversed(list(enumerate(windows.rows)))}
    sides = []
    for label in (0, 1):
        index, p = windows.balanced(split, label)
        keep = np.isin(index, list(first.values()))
        # Drawn one after the other without replacement: the order of exponential waiting times (Efraimidis, 2006).
        wait = rng.exponential(size=keep.sum()) / p[keep]
        sides.append(index[keep][np.argsort(wait)][: count // 2].tolist())
    return in_turn(*sides)


def in_turn(*lists: Sequence[int]) -> list[int]:
    """The first of each list, the second of each, and so on; what is left of longer ones comes last."""
    return [int(i) for several in zip_longest(*lists) for i in several if i is not None]


def texture(pixels: Pixels) -> float:
    """Mean difference of neighbours, in grey levels."""
    grey = pixels.mean(axis=2)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())


def crops_of(pixels: Pixels, seed: int) -> list[Pixels]:
    """One normalised crop for each of `KINDS`, uint8 (224, 224, 3).

    All pass the pipeline with the same draws, as parts of one file would. A picture too small for a window of twice the
    side gives the largest that it has.
    """
    rng = np.random.default_rng(seed)
    out = []
    for kind in KINDS[:-1]:
        side = min(2 * WINDOW, *pixels.shape[:2]) if kind.endswith("half scale") else WINDOW
        tried = [window(pixels, rng, side) for _ in range(1 if kind.startswith("random") else TRIED)]
        chosen = sorted(tried, key=texture)[0 if kind == "smooth" else -1]
        normalised = normalise_window(chosen, np.random.default_rng((seed, 1)))
        out.append(crop(normalised, np.random.default_rng((seed, 2))))
        if kind == "random":
            again = crop(reencode(normalised, AGAIN), np.random.default_rng((seed, 2)))
    return [*out, again]


def crop_features(
    windows: Windows, index: Sequence[int], compute: Callable[[Pixels], NDArray[np.generic]], out: Path
) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Features of `crops_of` the pictures that windows were cut from, (n, kinds, ...), and the pictures' short sides.

    Kept as `crops.npy` and `sides.npy`; resumes.
    """

    def features(some: Sequence[int]) -> NDArray[np.generic]:
        return np.stack([compute(np.stack(crops_of(decode(windows.rows[i]["path"]).pixels, 5000 + i))) for i in some])

    def short_sides(some: Sequence[int]) -> NDArray[np.generic]:
        sides = []
        for i in some:
            with Image.open(windows.rows[i]["path"]) as picture:
                sides.append(min(picture.size))
        return np.array(sides)

    crops = kept_rows(out, "crops", index, features, told={"kinds": KINDS}, batch=4)
    return crops, kept_rows(out, "sides", index, short_sides, told={}, batch=len(index))


AGGREGATIONS: Mapping[str, Column] = {
    "mean of three crops": lambda s: s[:, :3].mean(axis=1),
    "mean of the crop with most texture and a random one": lambda s: s[:, [0, 2]].mean(axis=1),
    "one random crop": lambda s: s[:, 2],
    "the crop with most texture": lambda s: s[:, 0],
    "the smoothest crop": lambda s: s[:, 1],
    "one random crop at half scale": lambda s: s[:, 4],
    "the random crop, saved again": lambda s: s[:, 5],
    "mean of the random crop and of it saved again": lambda s: s[:, [2, 5]].mean(axis=1),
    "median of three crops": lambda s: np.median(s[:, :3], axis=1),
    "largest of three crops": lambda s: s[:, :3].max(axis=1),
    "smallest of three crops": lambda s: s[:, :3].min(axis=1),
    "mean of three crops and the random one saved again": lambda s: s[:, [0, 1, 2, 5]].mean(axis=1),
    "mean of the random crops of both scales": lambda s: s[:, [2, 4]].mean(axis=1),
    "mean of both scales without the smoothest": lambda s: s[:, [0, 2, 3, 4]].mean(axis=1),
    "mean of both scales": lambda s: s[:, :5].mean(axis=1),
    "trimmed mean of both scales": lambda s: np.sort(s[:, :5], axis=1)[:, 1:-1].mean(axis=1),
    "median of both scales": lambda s: np.median(s[:, :5], axis=1),
    "largest of both scales": lambda s: s[:, :5].max(axis=1),
    "mean of the largest two": lambda s: np.sort(s[:, :5], axis=1)[:, -2:].mean(axis=1),
    "largest mean of a scale": lambda s: np.maximum(s[:, :3].mean(axis=1), s[:, 3:5].mean(axis=1)),
}
"""Title to a function of scores (pictures, kinds). The first, nearest to what the plugin does, is what the others are
compared with."""
LARGE = 512
"""Short side in pixels of pictures that have a second scale worth the name: a window of 1.6 times the side or more."""
OF_LARGE: Mapping[str, Column] = {
    t: AGGREGATIONS[t]
    for t in (
        "mean of three crops",
        "mean of the crop with most texture and a random one",
        "one random crop",
        "the smoothest crop",
        "one random crop at half scale",
        "mean of the random crops of both scales",
    )
}
"""What is asked of large pictures alone."""


def shipped_probes(study: Study, seeds: Sequence[int], out: Path) -> NDArray[np.float64]:
    """What ships, fitted to all of `fit` and without each fold, as linear maps whose scores have a spread of 1.

    Returns
    -------
    float64 array of (seeds, 1 + folds, blocks, k + 1)
        All of `fit` first; the last number is the constant. Kept as `probes.npy`; resumes.
    """
    fit = study.where("fit")
    blocks = study.x.shape[1]
    jobs = [(s, f, b) for s in seeds for f in range(-1, FOLDS) for b in range(blocks)]

    def probes(some: Sequence[int]) -> NDArray[np.generic]:
        rows = []
        for seed, f, block in (jobs[i] for i in some):
            z, inside = np.asarray(study.x[fit][:, block], np.float32), study.fold(seed) != f
            probe = Probe(STRENGTH, seed, SHIPPED).fit_rows(z[inside], study.rows[fit][inside])
            weights = probe.weights / probe.scaler.scale_
            constant = probe.model.intercept_[0] - weights @ probe.scaler.mean_
            rows.append(np.append(weights, constant) / probe.score(z).std())
        return np.stack(rows)

    told = {"seeds": list(seeds), "blocks": blocks, "rows": int(fit.sum())}
    kept = kept_rows(out, "probes", range(len(jobs)), probes, told=told, batch=1)
    return np.asarray(kept, np.float64).reshape(len(seeds), 1 + FOLDS, blocks, -1)


def folds_of(study: Study, seed: int, rows: Rows, split: NDArray[np.str_]) -> NDArray[np.int64]:
    """The fold of `study` that holds a picture's source out; -1 outside `fit`."""
    fit = study.where("fit")
    fold = study.fold(seed)
    names = zip(study.rows.labels[fit].tolist(), study.rows.sources[fit].tolist(), strict=True)
    have = {name: int(f) for name, f in zip(names, fold, strict=True)}
    every = zip(rows.labels.tolist(), rows.sources.tolist(), split.tolist(), strict=True)
    return np.array([have[y, s] if where == "fit" else -1 for y, s, where in every])


def look(
    study: Study, windows: Windows, x: NDArray[np.generic], index: NDArray[np.int64], *, seeds: Sequence[int], out: Path
) -> Compared:
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
    out : Path
        Keeps the probes.
    """
    rows = read_rows(windows, index)
    split, groups = (np.array([windows.rows[i][field] for i in index]) for field in ("split", "group"))
    probes, tokens = shipped_probes(study, seeds, out), np.asarray(x, np.float64)
    folds, scores = [], []
    for n, seed in enumerate(seeds):
        fold = folds_of(study, seed, rows, split)
        mine = probes[n, 1 + fold]  # (pictures, blocks, k + 1)
        scores.append(np.einsum("pkbd,pbd->pk", tokens, mine[..., :-1]) + mine[..., -1].sum(axis=1)[:, None])
        folds.append(fold)
    return Compared(rows, groups, split, folds, scores)


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
def reconstruction_errors(
    windows: Windows, index: Sequence[int], models: Sequence[Autoencoder], out: Path
) -> tuple[tuple[str, ...], NDArray[np.generic]]:
    """Log errors of the scored crops' middle after each autoencoder's round trip; kept as `errors.npy`, resumes.

    An error is a mean absolute difference in grey levels; `texture` stands beside them, since texture is hard to bring
    back whoever made it.

    Returns
    -------
    names : tuple of str
        Of the columns: texture, and the models.
    errors : float64 array of (n, 1 + models)
    """
    start = (CROP - PATCH) // 2
    names = ("texture", *(m.name for m in models))

    def errors(some: Sequence[int]) -> NDArray[np.generic]:
        middles = [scored_crop(windows, i)[start : start + PATCH, start : start + PATCH] for i in some]
        x = torch.from_numpy(np.stack(middles)).permute(0, 3, 1, 2).float() / 255
        columns = [np.array([texture(m) for m in middles])]
        columns += [(m(x) - x).abs().mean(dim=(1, 2, 3)).double().numpy() * 255 for m in models]
        return np.asarray(np.log(np.stack(columns, axis=1) + 1e-3))

    return names, kept_rows(out, "errors", index, errors, told={"columns": names})


def error_lines(
    windows: Windows,
    index: NDArray[np.int64],
    names: Sequence[str],
    errors: NDArray[np.generic],
    *,
    seeds: Sequence[int],
) -> dict[str, dict[str, float]]:
    """AUC of each column of `reconstruction_errors`, and of source-balanced probes on all of them."""
    rows, split = read_rows(windows, index), np.array([windows.rows[i]["split"] for i in index])
    x = np.asarray(errors, np.float32)
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
        out[title] = mean_figures(every)
    return out

"""One ruler for all experiments on frozen features: held-out families inside `fit`, and `fuse`; never `test`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.data.squares import Squares
from tellsign.plugins.pixel.training.balance import Rows
from tellsign.plugins.pixel.training.probe import read_features, read_rows, source_folds
from tellsign.plugins.pixel.training.train import Windows

SEEDS = (0, 1, 2)
FOLDS = 4
DRAWS = 200
"""Of the bootstrap."""

Floats = NDArray[np.float64]
Scorer = Callable[[NDArray[np.float32]], Floats]
Fitter = Callable[[NDArray[np.float32], Rows, int], Scorer]
"""Features (n, k) to learn from, what is known of them, and a seed, to something that scores others."""


@attrs.frozen
class Study:
    """Features of `fit` and `fuse` with what is known of their pictures."""

    x: NDArray[np.generic]
    """(n, blocks, k): one probe for each block, their scores added on one scale."""
    rows: Rows
    groups: NDArray[np.str_]
    split: NDArray[np.str_]
    condition: NDArray[np.str_]

    @classmethod
    def read(
        cls,
        windows: Windows,
        folder: Path,
        *,
        blocks: Sequence[int] = (7, 8, 12),
        name: str = "tower",
    ) -> Study:
        """Class tokens after `blocks`; for an extraction without blocks, `()` gives its numbers as one."""
        x, index, condition = read_features(folder, name)
        known = [windows.rows[i] for i in index]
        keep = np.flatnonzero([r["split"] in ("fit", "fuse") for r in known])
        keep = keep[np.lexsort((condition[keep], index[keep]))]
        groups, split = (np.array([known[i][field] for i in keep]) for field in ("group", "split"))
        part = x[keep][:, [b - 1 for b in blocks], 0] if blocks else x[keep].reshape(len(keep), 1, -1)
        return cls(part, read_rows(windows, index[keep]), groups, split, condition[keep])

    @classmethod
    def whole_views(cls, folder: Path, *, blocks: Sequence[int] = (7, 8, 12)) -> Study:
        """Class tokens of whole scrambled views, which the semantic training prepared; native only."""
        squares = Squares.read(folder)
        tokens = np.load(folder / "tokens-overview.npy", mmap_mode="r")[: len(squares)]
        keep = np.flatnonzero(np.isin(squares.split, ["fit", "fuse"]) & tokens[:, -1].any(axis=1))
        rows = Rows(squares.label[keep], squares.source[keep], squares.content[keep])
        part = tokens[keep][:, [b - 1 for b in blocks]]
        return cls(part, rows, squares.group[keep], squares.split[keep], np.full(len(keep), "native"))

    def where(self, split: str, condition: str = "native") -> NDArray[np.bool_]:
        """The rows of a split under a condition."""
        return np.asarray((self.split == split) & (self.condition == condition))

    def evaluate(self, fitter: Fitter, *, seeds: Sequence[int] = SEEDS) -> Scores:
        """Scores by models that saw nothing of a picture's source."""
        fit = self.where("fit")
        held, every = [], []
        for seed in seeds:
            fold = self.fold(seed)
            out, all_of_it = np.zeros(fit.sum()), np.zeros(len(self.x))
            for block in range(self.x.shape[1]):
                x = np.asarray(self.x[:, block], np.float32)
                unseen = np.empty(len(out))
                for f in range(FOLDS):
                    inside = fold != f
                    unseen[~inside] = fitter(x[fit][inside], self.rows[fit][inside], seed)(x[fit][~inside])
                out += unseen / unseen.std()
                all_of_it += fitter(x[fit], self.rows[fit], seed)(x) / unseen.std()
            held.append(out)
            every.append(all_of_it)
        return Scores(tuple(seeds), held, every)

    def fold(self, seed: int) -> NDArray[np.int64]:
        """Number of the fold that holds each row of `fit` out."""
        rows = self.rows[self.where("fit")]
        return source_folds(rows.labels, rows.sources.tolist(), seed=seed, folds=FOLDS)

    def line(self, scores: Scores) -> dict[str, float]:
        """Mean over seeds of every figure of the table; `sd` is the spread of the first."""
        every = [self._figures(scores, n) for n in range(len(scores.seeds))]
        out = {name: float(np.mean([e[name] for e in every])) for name in every[0]}
        out["fit sd"] = float(np.std([e["fit"] for e in every]))
        return out

    def _figures(self, scores: Scores, n: int) -> dict[str, float]:
        fit, rows = self.where("fit"), self.rows
        fold, held = self.fold(scores.seeds[n]), scores.held[n]
        mine = [rows[fit][fold == f] for f in range(FOLDS)]
        tables = [source_table(r, held[fold == f]) for f, r in enumerate(mine)]
        out = {
            "fit": np.mean([auc(r.labels, held[fold == f]) for f, r in enumerate(mine)]),
            "fit by source": np.mean([np.mean(list(t.values())) for t in tables]),
            "fit worst source": np.mean([min(t.values()) for t in tables]),
        }
        for condition in ("native", "jpeg90"):
            fuse = self.where("fuse", condition)
            if not fuse.any():
                continue
            table = source_table(rows[fuse], scores.every[n][fuse])
            out[f"fuse {condition}"] = auc(rows.labels[fuse], scores.every[n][fuse])
            out[f"fuse {condition} by source"] = np.mean(list(table.values()))
            if condition == "native":
                out |= {f"fuse: {source}": value for source, value in table.items()}
        return {name: float(value) for name, value in out.items()}

    def gain(self, scores: Scores, base: Scores, *, draws: int = DRAWS, seed: int = 0) -> dict[str, list[float]]:
        """How much better than `base`, with 95 % intervals of a bootstrap of groups within sources.

        Returns
        -------
        dict
            By figure (`fit`, `fit by source`, `fuse`, `fuse by source`): the difference, its lower and upper end.
        """
        rng = np.random.default_rng(seed)
        out: dict[str, list[float]] = {}
        fit, fuse = self.where("fit"), self.where("fuse")
        for split, mask in (("fit", fit), ("fuse", fuse)):
            rows, groups = self.rows[mask], self.groups[mask]
            found = members(rows, groups)
            drawn = [np.arange(mask.sum()), *(draw(found, rng) for _ in range(draws))]
            plain, even = [], []
            for pick in drawn:
                pooled, sourced = [], []
                for n, name in enumerate(scores.seeds):
                    for s in (scores, base):
                        values = s.held[n] if split == "fit" else s.every[n][mask]
                        parts = [pick]
                        if split == "fit":
                            fold = self.fold(name)
                            parts = [pick[fold[pick] == f] for f in range(FOLDS)]
                        pooled.append(np.mean([auc(rows.labels[p], values[p]) for p in parts]))
                        sourced.append(
                            np.mean([np.mean(list(source_table(rows[p], values[p]).values())) for p in parts])
                        )
                plain.append(np.mean(pooled[::2]) - np.mean(pooled[1::2]))
                even.append(np.mean(sourced[::2]) - np.mean(sourced[1::2]))
            for title, values_of in ((split, plain), (f"{split} by source", even)):
                low, high = np.quantile(values_of[1:], (0.025, 0.975))
                out[title] = [float(values_of[0]), float(low), float(high)]
        return out


@attrs.frozen
class Scores:
    """What a fitter gave, per seed."""

    seeds: tuple[int, ...]
    held: list[Floats]
    """Of every row of `fit`, by models that saw nothing of its source."""
    every: list[Floats]
    """Of every row, by models of the whole of `fit`."""


def auc(labels: NDArray[np.int64], scores: Floats) -> float:
    """The share of pairs of a real and a generated picture that are in order; ties count half."""
    real, fake = np.sort(scores[labels == 0]), scores[labels == 1]
    below, upto = np.searchsorted(real, fake, "left"), np.searchsorted(real, fake, "right")
    return float((below + upto).mean() / 2 / len(real))


def source_table(rows: Rows, scores: Floats) -> Mapping[str, float]:
    """Of each real source, its AUC against the generators, each of which counts alike."""
    out = {}
    generators = sorted(set(rows.sources[rows.labels == 1]))
    fakes = [scores[(rows.labels == 1) & (rows.sources == g)] for g in generators]
    weight = np.concatenate([np.full(len(f), 1 / len(f)) for f in fakes]) / len(fakes)
    every = np.concatenate(fakes)
    for source in sorted(set(rows.sources[rows.labels == 0])):
        real = np.sort(scores[(rows.labels == 0) & (rows.sources == source)])
        order = (np.searchsorted(real, every, "left") + np.searchsorted(real, every, "right")) / 2 / len(real)
        out[str(source)] = float(weight @ order)
    return out


def members(rows: Rows, groups: NDArray[np.str_]) -> list[list[NDArray[np.int64]]]:
    """Of each source of either class, its groups as indices."""
    found: dict[tuple[int, str], dict[str, list[int]]] = {}
    for i, (y, s, g) in enumerate(zip(rows.labels.tolist(), rows.sources.tolist(), groups.tolist(), strict=True)):
        found.setdefault((y, s), {}).setdefault(g, []).append(i)
    return [[np.array(m) for m in by_group.values()] for by_group in found.values()]


def draw(found: list[list[NDArray[np.int64]]], rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of one draw of the bootstrap: as many groups of each source as it has."""
    return np.concatenate([mine[k] for mine in found for k in rng.integers(len(mine), size=len(mine))])

"""Linear probes on frozen tokens: what the tower knows of synthesis behind the scrambler, block by block.

Choices are made on held-out families inside `fit` and on `fuse`; `test` is never read here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tellsign.data.balance import FOLDS as FOLDS
from tellsign.data.balance import folds as folds
from tellsign.towers import ClipTower

from .features import Squares, read_tokens
from .measure import auc, by_source, topic_only, within_topic
from .semantic_set import FINE, TOPICS, SemanticSet, Topics, embeddings, make, source_weight

Floats = NDArray[np.float64]
EMBEDDING = 0
"""In a list of blocks: what CLIP aligns with text, after the last block."""


@attrs.frozen(kw_only=True)
class Recipe:
    """How a head is fitted to frozen tokens."""

    blocks: tuple[int, ...] = (8, 10)
    """Each has a probe of its own; their scores, on one scale, are averaged."""
    strength: float = 1e-4
    """Inverse of the L2 penalty."""
    balanced: bool = True
    """On the semantic set; otherwise on all of `fit` with sources balanced, which is the naive probe."""
    versions: tuple[str, ...] = ("overview",)
    """Which versions of each picture it learns from."""
    topics: int = TOPICS
    seed: int = 0
    """Of the topics."""


class Data:
    """Tokens of a prepared folder, with the topics of its pictures."""

    def __init__(self, folder: Path, tower: ClipTower, *, splits: Sequence[str] = ("fit", "fuse")) -> None:
        squares = Squares.read(folder)
        done = read_tokens(folder, "overview")[: len(squares), -1].any(axis=1)
        keep = np.flatnonzero(np.isin(squares.split, list(splits)) & done)
        self.rows = keep
        self.label, self.source = squares.label[keep], squares.source[keep]
        self.split, self.group = squares.split[keep], squares.group[keep]
        self.tokens: dict[str, NDArray[np.float16]] = {}
        self.embedding: dict[str, NDArray[np.float32]] = {}
        for version in ("overview", "plain", "damaged"):
            if (folder / f"tokens-{version}.npy").is_file():
                self.tokens[version] = read_tokens(folder, version)[keep]
                self.embedding[version] = embeddings(tower, self.tokens[version])
        seen = self.embedding["overview"]
        fit = self.split == "fit"
        weight = source_weight(self.label[fit], self.source[fit])
        self.topic = Topics(seen[fit], weight).of(seen)
        self.fine = Topics(seen[fit], weight, count=FINE).of(seen)

        self._sets: dict[tuple[bytes, int, int], SemanticSet] = {}

    def semantic_set(self, rows: NDArray[np.int64], *, topics: int, seed: int) -> SemanticSet:
        """The semantic set among `rows`, as indices into them; made once."""
        key = (rows.tobytes(), topics, seed)
        if key not in self._sets:
            seen = self.embedding["overview"][rows]
            self._sets[key] = make(seen, self.label[rows], self.source[rows], topics=topics, seed=seed)
        return self._sets[key]

    def x(self, version: str, block: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Features (n, k) of `rows` after a block, or the embedding."""
        if block == EMBEDDING:
            return self.embedding[version][rows]
        return np.asarray(self.tokens[version][rows, block - 1], np.float32)

    def has(self, version: str) -> NDArray[np.bool_]:
        """Which pictures have tokens of this version, bool (n,)."""
        return np.asarray(self.tokens[version][:, -1].any(axis=1))


@attrs.frozen
class Probe:
    """One standardised logistic regression per block; the score is their mean on one scale."""

    blocks: tuple[int, ...]
    scalers: tuple[StandardScaler, ...]
    models: tuple[LogisticRegression, ...]
    spreads: tuple[float, ...]

    @classmethod
    def fit(cls, data: Data, recipe: Recipe, rows: NDArray[np.int64]) -> Probe:
        """Fit to `rows` of a folder's pictures."""
        label, source = data.label[rows], data.source[rows]
        weight = source_weight(label, source)
        if recipe.balanced:
            chosen = data.semantic_set(rows, topics=recipe.topics, seed=recipe.seed)
            rows, weight = rows[chosen.rows], chosen.weight
        scalers, models, spreads = [], [], []
        for block in recipe.blocks:
            parts = [(v, data.has(v)[rows]) for v in recipe.versions]
            x = np.concatenate([data.x(v, block, rows[has]) for v, has in parts])
            y = np.concatenate([data.label[rows[has]] for _, has in parts])
            w = np.concatenate([weight[has] for _, has in parts])
            scaler = StandardScaler().fit(x, sample_weight=w)
            z = scaler.transform(x)
            # The sum of the weights sets how much the penalty counts, so it does not depend on how many versions.
            model = LogisticRegression(C=recipe.strength, max_iter=400).fit(z, y, sample_weight=w / len(parts))
            scalers.append(scaler)
            models.append(model)
            spreads.append(float(model.decision_function(z).std()))
        return cls(recipe.blocks, tuple(scalers), tuple(models), tuple(spreads))

    def score(self, data: Data, version: str, rows: NDArray[np.int64]) -> Floats:
        """Scores of `rows`, higher is more likely generated; not calibrated."""
        out = np.zeros(len(rows))
        for block, scaler, model, spread in zip(self.blocks, self.scalers, self.models, self.spreads, strict=True):
            out += model.decision_function(scaler.transform(data.x(version, block, rows))) / spread
        return out / len(self.blocks)


Scorer = Callable[[NDArray[np.int64], NDArray[np.int64]], Floats]
"""Rows to train on and rows to score to scores."""


def held_out(data: Data, scorer: Scorer, *, seed: int) -> tuple[Floats, NDArray[np.int64]]:
    """Scores of every picture of `fit` by a model that saw nothing of its source, and the folds."""
    fit = np.flatnonzero(data.split == "fit")
    fold = folds(data.label[fit], data.source[fit], seed=seed)
    out = np.empty(len(fit))
    for f in range(FOLDS):
        out[fold == f] = scorer(fit[fold != f], fit[fold == f])
    return out, fold


def line(data: Data, title: str, scorer: Scorer, *, seeds: Sequence[int] = (0, 1, 2)) -> dict[str, float | str]:
    """One row of the table.

    Returns
    -------
    dict
        AUC and within-topic AUC on held-out families of `fit` (mean and standard deviation over `seeds`) and on `fuse`.
    """
    fit, fuse = (np.flatnonzero(data.split == s) for s in ("fit", "fuse"))
    found: dict[str, list[float]] = {"fit": [], "fit within": []}
    for seed in seeds:
        scores, fold = held_out(data, scorer, seed=seed)
        parts = [fit[fold == f] for f in range(FOLDS)]
        each = [scores[fold == f] for f in range(FOLDS)]
        found["fit"].append(float(np.mean([auc(data.label[p], s) for p, s in zip(parts, each, strict=True)])))
        inside = [within_topic(data.label[p], s, data.topic[p]) for p, s in zip(parts, each, strict=True)]
        found["fit within"].append(float(np.nanmean(inside)))
    scores = scorer(fit, fuse)
    label = data.label[fuse]
    return {
        "features": title,
        "fit within": float(np.mean(found["fit within"])),
        "sd": float(np.std(found["fit within"])),
        "fit": float(np.mean(found["fit"])),
        "fuse within": within_topic(label, scores, data.topic[fuse]),
        "fuse": auc(label, scores),
        "fuse by source": by_source(label, scores, data.source[fuse]),
    }


def probe_scorer(data: Data, recipe: Recipe, version: str = "overview") -> Scorer:
    """Fits the recipe to the first rows and scores the second."""
    return lambda train, other: Probe.fit(data, recipe, train).score(data, version, other)


def topic_scorer(data: Data) -> Scorer:
    """The baseline: how often pictures of the same fine topic were generated."""
    return lambda train, other: topic_only(data.fine[train], data.label[train], data.source[train], data.fine[other])


def table(
    data: Data, recipes: Sequence[tuple[str, Recipe]], *, seeds: Sequence[int] = (0, 1, 2)
) -> list[dict[str, float | str]]:
    """The topic-only baseline and one line per recipe."""
    out = [line(data, f"topic only ({FINE} topics)", topic_scorer(data), seeds=seeds)]
    out += [line(data, title, probe_scorer(data, recipe), seeds=seeds) for title, recipe in recipes]
    return out


ROWS: tuple[tuple[str, Recipe], ...] = (
    *((f"class token, block {b}", Recipe(blocks=(b,))) for b in range(4, 13)),
    ("embedding aligned with text", Recipe(blocks=(EMBEDDING,))),
    *(
        (f"block {b}, C {c:g}, {kind}", Recipe(blocks=(b,), strength=c, balanced=kind == "balanced"))
        for b in (10, 12)
        for c in (1e-3, 1e-5)
        for kind in ("balanced", "naive")
    ),
    *(
        (f"blocks {n}", Recipe(blocks=b))
        for n, b in (("7, 10", (7, 10)), ("8, 10", (8, 10)), ("7, 10, 12", (7, 10, 12)))
    ),
)
"""The rows of the table. "naive" is trained on all of `fit` with sources balanced and topics as they are."""

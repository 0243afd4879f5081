"""Several scores of the same pictures, and how much one is better than another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.plugins.pixel.training.balance import Rows

from .study import DRAWS, FOLDS, Floats, auc, draw, members, source_table

Column = Callable[[Floats], Floats]
"""Scores (pictures, columns) to one score a picture."""


@attrs.frozen
class Compared:
    """Scores of pictures of `fit` and `fuse` by models that saw nothing of their sources, seed by seed."""

    rows: Rows
    groups: NDArray[np.str_]
    split: NDArray[np.str_]
    fold: list[NDArray[np.int64]]
    """By seed, the fold of `fit` that a picture is held out in; negative where it is in none."""
    scores: list[Floats]
    """By seed, (pictures, columns)."""

    def line(self, column: Column) -> dict[str, float]:
        """AUC on held-out families of `fit` and on `fuse`: the mean over seeds, and the spread of the first."""
        return self._mean(np.arange(len(self.split)), column)

    def _mean(self, pick: NDArray[np.int64], column: Column) -> dict[str, float]:
        every = zip(self.fold, self.scores, strict=True)
        return mean_figures([self._figures(pick, fold, column(scores)) for fold, scores in every])

    def _figures(self, pick: NDArray[np.int64], fold: NDArray[np.int64], values: Floats) -> dict[str, float]:
        """Of some pictures, which may come more than once; a fold that has lost a class is left out."""
        fuse = pick[self.split[pick] == "fuse"]
        inside = [pick[fold[pick] == f] for f in range(FOLDS)]
        inside = [p for p in inside if len(set(self.rows.labels[p].tolist())) == 2]
        table = source_table(self.rows[fuse], values[fuse])
        return {
            "fit": float(np.mean([auc(self.rows.labels[p], values[p]) for p in inside])),
            "fuse": auc(self.rows.labels[fuse], values[fuse]),
            "fuse by source": float(np.mean(list(table.values()))),
        }

    def only(self, which: NDArray[np.bool_]) -> Compared:
        """Some of the pictures, by the same probes."""
        return Compared(
            self.rows[which],
            self.groups[which],
            self.split[which],
            [f[which] for f in self.fold],
            [s[which] for s in self.scores],
        )

    @property
    def complete(self) -> bool:
        """Whether there are pictures of both classes in either split, so that there are figures."""
        held = [(self.split == "fuse")] + [(f >= 0) & (self.split == "fit") for f in self.fold]
        return all(len(set(self.rows.labels[h].tolist())) == 2 for h in held)

    def table(self, columns: Mapping[str, Column]) -> dict[str, dict[str, float | list[float]]]:
        """`line` of every column, and what it gains over the first with a 95 % interval.

        The interval is of a bootstrap of groups within sources; all columns are compared on the same draws.

        Returns
        -------
        dict
            By title the figures of `line`, and by "gain on ..." the difference, its lower and its upper end.
        """
        rng = np.random.default_rng(0)
        index = np.arange(len(self.split))
        found = [
            [index[self.split == s][m] for m in mine]
            for s in ("fit", "fuse")
            for mine in members(self.rows[self.split == s], self.groups[self.split == s])
        ]
        picks = [index, *(draw(found, rng) for _ in range(DRAWS))]
        every = {title: [self._mean(pick, column) for pick in picks] for title, column in columns.items()}
        base, *_ = every.values()
        out: dict[str, dict[str, float | list[float]]] = {}
        for title, figures in every.items():
            out[title] = dict(figures[0])
            if figures is base:
                continue
            for name in ("fit", "fuse", "fuse by source"):
                gain, *drawn = (mine[name] - other[name] for mine, other in zip(figures, base, strict=True))
                out[title][f"gain on {name}"] = [gain, *np.quantile(drawn, (0.025, 0.975)).tolist()]
        return out


def mean_figures(every: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of every figure over the seeds; `fit sd` is the first's spread."""
    out = {name: float(np.mean([e[name] for e in every])) for name in every[0]}
    return out | {"fit sd": float(np.std([e["fit"] for e in every]))}


__all__ = ["Column", "Compared", "mean_figures"]

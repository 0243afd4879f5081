"""Rows of the table on pairs: what the zoo's round trips are worth, alone and beside real generated pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.plugins.pixel.training.balance import Balance, Rows
from tellsign.plugins.pixel.training.gate import LIMIT
from tellsign.plugins.pixel.training.probe import Probe

from .balancing import EVEN
from .study import Floats, Scores, Study, auc

SHIPPED = attrs.evolve(EVEN, offset=4.0)
STRENGTH = 3e-2


@attrs.frozen
class Zoo:
    """Features of the zoo's pairs: member 0 is real, member 1 its round trip."""

    x: NDArray[np.float32]
    """(pairs, 2, blocks, k)"""
    family: NDArray[np.str_]
    source: NDArray[np.str_]
    """The real member's collection."""

    @classmethod
    def read(cls, folder: Path, *, blocks: Sequence[int] = (7, 8, 12), name: str = "tower") -> Zoo:
        """What `zoo.features` wrote."""
        x, family, source = [], [], []
        for file in sorted(folder.glob(f"*.{name}.npy")):
            tokens = np.load(file)
            title = file.name.removesuffix(f".{name}.npy")
            x.append(np.asarray(tokens[:, :, [b - 1 for b in blocks], 0], np.float32))
            family += [title] * len(tokens)
            with np.load(folder / f"{title}.npz") as pairs:
                source += pairs["source"][: len(tokens)].tolist()
        return cls(np.concatenate(x), np.array(family), np.array(source))

    def past(self, gate: Mapping[str, Mapping[str, float]]) -> Zoo:
        """The families that the gate let pass; those that it was not asked about are not among them."""
        passed = [f for f, told in gate.items() if max(told.values()) <= LIMIT]
        which = np.isin(self.family, passed)
        return Zoo(self.x[which], self.family[which], self.source[which])

    def members(self, which: NDArray[np.bool_], block: int, *, real: bool = True) -> tuple[NDArray[np.float32], Rows]:
        """Both members of some pairs as rows, or the round trips alone.

        A round trip's source is the real picture's: each real source is also a positive one.
        """
        sides = (0, 1) if real else (1,)
        x = np.concatenate([self.x[which, side, block] for side in sides])
        n = int(which.sum())
        return x, Rows.plain(np.repeat(sides, n), np.tile(self.source[which], len(sides)).tolist())


def one_family_out(zoo: Zoo, taught: Zoo, *, strength: float = STRENGTH, seed: int = 0) -> dict[str, float]:
    """AUC on each family's pairs, of probes on all the other families' pairs.

    Parameters
    ----------
    zoo : Zoo
        What is scored.
    taught : Zoo
        What is learned from; of it, too, the family that is scored is left out.
    strength : float
    seed : int
        Which half of the other families' pairs they learn from.
    """
    rng = np.random.default_rng(seed)
    out = {}
    half = rng.random(len(taught.family)) < 0.5
    for family in sorted(set(zoo.family.tolist())):
        mine = zoo.family == family
        score: Floats = np.zeros(2 * int(mine.sum()))
        for block in range(zoo.x.shape[2]):
            x, rows = taught.members((taught.family != family) & half, block)
            fitted = Probe(strength, seed, Balance(power=0.0)).fit_rows(x, rows)
            shown, labels = zoo.members(mine, block)
            score = score + fitted.score(shown) / fitted.score(x).std()
        out[family] = auc(labels.labels, score)
    return out


def with_pairs(
    study: Study, zoo: Zoo, *, generated: float, seeds: Sequence[int], bases: bool = True, strength: float = STRENGTH
) -> Scores:
    """Scores of probes on `fit` and the zoo, of whose pairs a random half is drawn for each seed.

    Parameters
    ----------
    study : Study
    zoo : Zoo
        Pairs of collections that are held out are left out.
    generated : float
        Share of the generated side that is real generated pictures; 0 is pairs alone, 1 leaves the zoo out.
    seeds : sequence of int
    bases : bool, default True
        Whether the pairs' real members are negatives too. Without them the round trips stand against the pictures of
        their own sources.
    strength : float
    """
    held, every = [], []
    fit = study.where("fit")
    known = study.rows[fit]
    for seed in seeds:
        fold = study.fold(seed)
        chosen = np.random.default_rng(seed).random(len(zoo.family)) < 0.5
        out, all_of_it = np.zeros(int(fit.sum())), np.zeros(len(study.x))
        for block in range(study.x.shape[1]):
            x = np.asarray(study.x[:, block], np.float32)
            unseen = np.empty(len(out))
            for f in [*sorted(set(fold.tolist())), -1]:
                inside = fold != f
                kept = set(known.sources[inside & (known.labels == 0)].tolist())
                pairs = chosen & np.isin(zoo.source, list(kept))
                rows, z, weight = _joined(x[fit][inside], known[inside], zoo, pairs, block, generated, bases)
                probe = Probe(strength, seed, SHIPPED).fit_rows(z, rows, weight)
                if f == -1:
                    all_of_it += probe.score(x) / unseen.std()
                else:
                    unseen[~inside] = probe.score(x[fit][~inside])
            out += unseen / unseen.std()
        held.append(out)
        every.append(all_of_it)
    return Scores(tuple(seeds), held, every)


def _joined(
    x: NDArray[np.float32],
    rows: Rows,
    zoo: Zoo,
    pairs: NDArray[np.bool_],
    block: int,
    generated: float,
    bases: bool,
) -> tuple[Rows, NDArray[np.float32], Floats]:
    """Pictures and pairs as one training set; the generated side is split between the two as `generated` says."""
    weight = SHIPPED.weights(rows)
    if generated == 1:
        return rows, x, weight
    trips, labels = zoo.members(pairs, block, real=bases)
    added = Balance(power=0.0).weights(labels) if bases else np.ones(len(labels.labels))
    fake, new = rows.labels == 1, labels.labels == 1
    total = weight[fake].sum()
    weight[fake] *= generated
    added[new] *= (1 - generated) * total / added[new].sum()
    if bases:
        # The real side is shared in the same way.
        weight[~fake] *= generated
        added[~new] *= (1 - generated) * total / added[~new].sum()
    kept = weight > 0
    joined = Rows(
        np.concatenate([rows.labels[kept], labels.labels]),
        np.concatenate([rows.sources[kept], [f"zoo/{s}" for s in labels.sources]]),
        np.concatenate([rows.contents[kept], labels.contents]),
    )
    return joined, np.concatenate([x[kept], trips]), np.concatenate([weight[kept], added])


ROWS: Mapping[str, tuple[float, bool]] = {
    "no pairs": (1.0, True),
    "pairs alone": (0.0, True),
    "pairs, and real generated pictures as 10 % of the generated side": (0.1, True),
    "pairs, and real generated pictures as 20 % of the generated side": (0.2, True),
    "pairs, and real generated pictures as 80 % of the generated side": (0.8, True),
    "round trips without their bases, 20 % of the generated side": (0.8, False),
}
"""Title to what `with_pairs` is told (`generated`, `bases`). The first is what ships."""

"""The yardstick: source-balanced logistic regressions on frozen features. Also where the fine-tuning's heads start.

Choices are made on held-out families inside `fit` and on `fuse`; `test` is never read here.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from tellsign.data.normalise import normalise_window, reencode
from tellsign.plugins.pixel.model import PixelHead
from tellsign.plugins.pixel.residuals import ResidualProbe, statistics
from tellsign.towers import ClipTower, clip_input

from .balance import Balance, Rows
from .train import CROP, Windows, crop, half_precision

CONDITIONS: dict[str, int | None] = {"native": None, "jpeg90": 90}
"""JPEG quality that a normalised picture is saved with before it is scored."""


def scored_crop(windows: Windows, index: int, quality: int | None = None) -> NDArray[np.uint8]:
    """The one crop by which window `index` is scored: uint8 (224, 224, 3), the same at every call."""
    rng = np.random.default_rng(1000 + index)
    picture = normalise_window(windows.window(index), rng)
    if quality is not None:
        picture = reencode(picture, quality)
    return crop(picture, rng)


@torch.inference_mode()
def tower_features(tower: ClipTower, crops: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Class token and mean patch token after every block.

    Parameters
    ----------
    tower : ClipTower
        As `half_precision` left it.
    crops : uint8 array of (n, 224, 224, 3)

    Returns
    -------
    float16 array of (n, depth, 2, width)
    """
    x = tower.embed(clip_input(torch.from_numpy(crops).to(tower.conv1.weight.device)))
    x = x.to(next(tower.transformer.parameters()).dtype)
    out = []
    for block in tower.transformer.resblocks:
        x = block(x, None, "")
        out.append(torch.stack([x[:, 0], x[:, 1:].mean(dim=1)], dim=1))
    return torch.stack(out, dim=1).half().cpu().numpy()


@torch.inference_mode()
def residual_features(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """`residuals.statistics` of uint8 crops (n, H, W, 3): float32 (n, 500)."""
    out: NDArray[np.float32] = statistics(torch.from_numpy(crops)).numpy()
    return out


def extract(
    windows: Windows, out: Path, compute: Callable[[NDArray[np.uint8]], NDArray[np.generic]], name: str
) -> None:
    """Features of one window a picture, and under every condition outside `fit`, to `<name>.npy` and `<name>.csv`.

    The table names the rows that are done, so that an interrupted extraction goes on.
    """
    first = {r["path"]: i for i, r in reversed(list(enumerate(windows.rows)))}
    chosen = sorted(first.values())
    jobs = [(i, "native") for i in chosen]
    jobs += [(i, "jpeg90") for i in chosen if windows.rows[i]["split"] != "fit"]
    table, array = out / f"{name}.csv", out / f"{name}.npy"
    done = 0
    if table.is_file() and array.is_file():
        done = (len(table.read_text().splitlines()) - 1) // 16 * 16
        store = np.lib.format.open_memmap(array, "r+")
    else:
        sample = compute(np.stack([scored_crop(windows, 0)]))
        store = np.lib.format.open_memmap(array, "w+", sample.dtype, (len(jobs), *sample.shape[1:]))
    lines = ["row,index,condition"] + [f"{k},{i},{c}" for k, (i, c) in enumerate(jobs[:done])]
    table.write_text("\n".join(lines) + "\n")
    with table.open("a") as handle:
        for start in tqdm(range(done, len(jobs), 16), desc=name, unit="batch"):
            mine = jobs[start : start + 16]
            store[start : start + len(mine)] = compute(
                np.stack([scored_crop(windows, i, CONDITIONS[c]) for i, c in mine])
            )
            handle.write("".join(f"{start + k},{i},{c}\n" for k, (i, c) in enumerate(mine)))
            handle.flush()
    store.flush()


def source_weights(labels: NDArray[np.int64], sources: Sequence[str]) -> NDArray[np.float64]:
    """Weights that give both classes one total and a source the square root of its size; their mean is 1."""
    return Balance().weights(Rows.plain(labels, sources))


class Probe:
    """A standardised logistic regression, source-balanced or as `balance` says.

    Parameters
    ----------
    strength : float
        Inverse of the L2 penalty, as scikit-learn's `C`.
    seed : int
    balance : Balance
    """

    def __init__(self, strength: float, seed: int = 0, balance: Balance | None = None) -> None:
        self.scaler = StandardScaler()
        self.model = LogisticRegression(C=strength, max_iter=300, random_state=seed)
        self.balance = balance or Balance()

    def fit(self, x: NDArray[np.float32], labels: NDArray[np.int64], sources: Sequence[str]) -> Probe:
        """Fit to features (n, k)."""
        return self.fit_rows(x, Rows.plain(labels, sources))

    def fit_rows(self, x: NDArray[np.float32], rows: Rows, weights: NDArray[np.float64] | None = None) -> Probe:
        """Fit to features (n, k) of `rows`; `weights` (n,) take the place of those that the balance gives."""
        z = np.concatenate([self.scaler.fit_transform(x), self.balance.columns(rows)], axis=1)
        self.model.fit(z, rows.labels, sample_weight=self.balance.weights(rows) if weights is None else weights)
        return self

    @property
    def weights(self) -> NDArray[np.float64]:
        """Of the standardised features, (k,); what the offsets explained is left out."""
        out: NDArray[np.float64] = self.model.coef_[0, : len(self.scaler.mean_)]
        return out

    def score(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Log-odds of (n, k) features."""
        out: NDArray[np.float64] = self.scaler.transform(x) @ self.weights + self.model.intercept_[0]
        return out


def held_out_scores(
    x: NDArray[np.float32],
    labels: NDArray[np.int64],
    sources: Sequence[str],
    *,
    strength: float,
    seed: int,
    folds: int = 4,
) -> NDArray[np.float64]:
    """Log-odds of each row by a probe that saw nothing of its source; both classes' sources are spread over `folds`.

    Raises
    ------
    ValueError
        A class has fewer sources than folds.
    """
    return unseen_scores(x, Rows.plain(labels, sources), Probe(strength, seed), seed=seed, folds=folds)


def unseen_scores(
    x: NDArray[np.float32], rows: Rows, probe: Probe, *, seed: int, folds: int = 4
) -> NDArray[np.float64]:
    """`held_out_scores` of `rows` by any probe, which is fitted anew for every fold."""
    fold = source_folds(rows.labels, rows.sources.tolist(), seed=seed, folds=folds)
    out = np.empty(len(x))
    for f in range(folds):
        inside = fold != f
        out[~inside] = probe.fit_rows(x[inside], rows[inside]).score(x[~inside])
    return out


def source_folds(labels: NDArray[np.int64], sources: Sequence[str], *, seed: int, folds: int) -> NDArray[np.int64]:
    """Number of the fold that holds each row out; whole sources go together."""
    rng = np.random.default_rng(seed)
    fold_of: dict[tuple[int, str], int] = {}
    for label in (0, 1):
        mine = sorted({s for s, y in zip(sources, labels, strict=True) if y == label})
        if len(mine) < folds:
            raise ValueError(f"sources takes at least {folds} of each class, got {len(mine)} of class {label}")
        fold_of |= {(label, mine[k]): i % folds for i, k in enumerate(rng.permutation(len(mine)))}
    return np.array([fold_of[int(y), s] for s, y in zip(sources, labels, strict=True)])


Part = tuple[str, int | None, int]
"""Features' name, block (None where there are no blocks), and 0 for its class token or 1 for its mean patch token."""

ROWS: tuple[tuple[str, tuple[Part, ...], float], ...] = (
    *(("residual statistics (SRM-like)", (("residuals", None, 0),), c) for c in (1e-1, 1e-2, 1e-3)),
    *((f"class token, block {b}", (("tower", b, 0),), 1e-3) for b in range(1, 13)),
    *((f"class token, block {b}", (("tower", b, 0),), c) for c in (1e-4, 1e-5) for b in (7, 8)),
    ("mean patch token, block 7", (("tower", 7, 1),), 1e-3),
    ("class tokens, blocks 7 and 8", (("tower", 7, 0), ("tower", 8, 0)), 1e-3),
    ("class tokens, blocks 7, 8 and 12", (("tower", 7, 0), ("tower", 8, 0), ("tower", 12, 0)), 1e-3),
    ("class tokens, blocks 6 to 10", tuple(("tower", b, 0) for b in range(6, 11)), 1e-3),
    *(("four-bit trunk, class token, block 6", (("trunk6", 6, 0),), c) for c in (1e-3, 1e-5)),
)
"""The yardstick's rows: title, probes whose scores are averaged on one scale, inverse penalty."""


def yardstick(windows: Windows, folder: Path, *, seeds: Sequence[int] = (0, 1, 2)) -> list[dict[str, float | str]]:
    """The table of linear probes on frozen features.

    Parameters
    ----------
    windows, folder
        Prepared windows, and the folder that `extract` wrote to. Rows whose features are not there are left out.
    seeds : sequence of int
        Of the folds inside `fit`.

    Returns
    -------
    list of dict
        Per row of `ROWS`: AUC on held-out families inside `fit` (mean and standard deviation over `seeds`), and on
        `fuse` under each condition, as it is and averaged over pairs of sources. `test` is not read.
    """
    known: dict[tuple[Part, float], tuple[list[NDArray[np.float64]], NDArray[np.float64]]] = {}
    tables: dict[str, _Table] = {}
    out: list[dict[str, float | str]] = []
    for title, parts, strength in ROWS:
        if not all((folder / f"{name}.npy").is_file() for name, _, _ in parts):
            continue
        for part in parts:
            if (part, strength) not in known:
                table = tables.setdefault(part[0], _Table.read(windows, folder, part[0]))
                known[part, strength] = table.scores(part, strength, seeds)
        table = tables[parts[0][0]]
        unseen = [sum((known[p, strength][0][n] for p in parts), np.zeros(())) for n in range(len(seeds))]
        scores = sum((known[p, strength][1] for p in parts), np.zeros(()))
        inside = [table.inside(np.asarray(u), seed) for u, seed in zip(unseen, seeds, strict=True)]
        line: dict[str, float | str] = {"features": title, "C": strength, "fit families": float(np.mean(inside))}
        line["fit families sd"] = float(np.std(inside))
        for name in CONDITIONS:
            chosen = (table.split == "fuse") & (table.condition == name)
            labels, mine = table.labels[chosen], np.asarray(scores)[chosen]
            line[f"fuse {name}"] = float(roc_auc_score(labels, mine))
            line[f"fuse {name} by source"] = by_source(labels, mine, table.sources[chosen])
        out.append(line)
    return out


@attrs.frozen
class _Table:
    """Features of `fit` and `fuse` with what is known of their pictures."""

    x: NDArray[np.generic]
    labels: NDArray[np.int64]
    sources: NDArray[np.str_]
    split: NDArray[np.str_]
    condition: NDArray[np.str_]

    @classmethod
    def read(cls, windows: Windows, folder: Path, name: str) -> _Table:
        x, index, condition = read_features(folder, name)
        rows = [windows.rows[i] for i in index]
        keep = np.flatnonzero([r["split"] in ("fit", "fuse") for r in rows])
        # One order whatever order the rows were extracted in, so that scores of two tables can be added.
        keep = keep[np.lexsort((condition[keep], index[keep]))]
        return cls(
            x[keep],
            np.array([int(rows[i]["label"]) for i in keep]),
            np.array([rows[i]["source"] for i in keep]),
            np.array([rows[i]["split"] for i in keep]),
            condition[keep],
        )

    @property
    def fit(self) -> NDArray[np.bool_]:
        return np.asarray((self.split == "fit") & (self.condition == "native"))

    def scores(
        self, part: Part, strength: float, seeds: Sequence[int]
    ) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
        """Scores of the rows of `fit` by probes that saw nothing of their source, per seed; and of all rows."""
        _, block, kind = part
        z = np.asarray(self.x if block is None else self.x[:, block - 1, kind], np.float32).reshape(len(self.x), -1)
        labels, sources = self.labels[self.fit], self.sources[self.fit].tolist()
        unseen = [held_out_scores(z[self.fit], labels, sources, strength=strength, seed=s) for s in seeds]
        spread = float(unseen[0].std())
        every = Probe(strength).fit(z[self.fit], labels, sources).score(z)
        return [u / spread for u in unseen], every / spread

    def inside(self, scores: NDArray[np.float64], seed: int, folds: int = 4) -> float:
        """Mean AUC over the folds of held-out sources."""
        labels = self.labels[self.fit]
        fold = source_folds(labels, self.sources[self.fit].tolist(), seed=seed, folds=folds)
        return float(np.mean([roc_auc_score(labels[fold == f], scores[fold == f]) for f in range(folds)]))


def by_source(labels: NDArray[np.int64], scores: NDArray[np.float64], sources: NDArray[np.str_]) -> float:
    """Mean AUC over every pair of a real source and a generator: a large source counts no more than a small one."""
    sides = [[scores[(labels == y) & (sources == s)] for s in sorted(set(sources[labels == y]))] for y in (0, 1)]
    return float(np.mean([roc_auc_score([0] * len(r) + [1] * len(f), np.r_[r, f]) for r in sides[0] for f in sides[1]]))


def read_features(folder: Path, name: str) -> tuple[NDArray[np.generic], NDArray[np.int64], NDArray[np.str_]]:
    """What `extract` wrote so far: features, window indices, conditions."""
    with (folder / f"{name}.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    x = np.load(folder / f"{name}.npy", mmap_mode="r")[: len(rows)]
    return x, np.array([int(r["index"]) for r in rows]), np.array([r["condition"] for r in rows])


@attrs.frozen(kw_only=True)
class HeadFit:
    """How one head is fitted to frozen features."""

    blocks: tuple[int, ...]
    strength: float
    """Inverse of the L2 penalty. The smaller, the nearer a probe is to the mere difference of the class means."""
    features: str = "tower"
    """Name of what `extract` wrote."""
    balance: Balance = attrs.field(factory=Balance)
    """How much each picture counts."""


def read_rows(windows: Windows, index: NDArray[np.int64]) -> Rows:
    """What is known of windows `index`, int64 (n,)."""
    known = [windows.rows[i] for i in index]
    sources, contents = (np.array([r[name] for r in known]) for name in ("source", "content"))
    return Rows(np.array([int(r["label"]) for r in known]), sources, contents)


def fit_head(windows: Windows, folder: Path, fit: HeadFit, *, seed: int = 0) -> PixelHead:
    """A head on frozen features of `fit`, whose logits are calibrated on families that it was not fitted to.

    Each block has a probe of its own; their scores, on one scale, are averaged. One probe on all blocks together would
    let one block explain away what another got wrong on the training sources. The score's weights come from the class
    tokens, the map's from the mean patch tokens. A penalty shrinks the logits; they are stretched again by a logistic
    regression on scores of held-out families.

    Parameters
    ----------
    windows, folder
        As for `yardstick`.
    fit : HeadFit
    seed : int
        Of the folds.
    """
    x, index, condition = read_features(folder, fit.features)
    inside = np.flatnonzero(np.array([windows.rows[i]["split"] == "fit" for i in index]) & (condition == "native"))
    rows = read_rows(windows, index[inside])
    part = np.asarray(x[inside][:, [b - 1 for b in fit.blocks]], np.float32)
    head = PixelHead(fit.blocks, part.shape[-1])
    with torch.no_grad():
        head.mean.copy_(torch.from_numpy(part.mean(axis=0)))
        head.std.copy_(torch.from_numpy(part.std(axis=0) + 1e-6))
        for kind in (0, 1):
            weights, offset, held = [], 0.0, np.zeros(len(part))
            for n in range(len(fit.blocks)):
                z = part[:, n, kind]
                unseen = unseen_scores(z, rows, Probe(fit.strength, seed, fit.balance), seed=seed)
                probe = Probe(fit.strength, seed, fit.balance).fit_rows(z, rows)
                spread = float(unseen.std())
                held += unseen / spread
                weights.append(probe.weights / spread)
                offset += float(probe.model.intercept_[0]) / spread
            stretch = LogisticRegression(C=1e6).fit(held[:, None], rows.labels, sample_weight=fit.balance.weights(rows))
            slope = float(stretch.coef_[0, 0])
            head.weight[:, kind] = torch.from_numpy(np.asarray(np.stack(weights) * slope, np.float32))
            if kind == 0:
                head.bias.fill_(offset * slope + float(stretch.intercept_[0]))
    return head


def fit_residual(windows: Windows, folder: Path, *, strength: float, seed: int = 0) -> ResidualProbe:
    """The probe on residual statistics of `fit`, calibrated on families that it was not fitted to.

    Parameters
    ----------
    windows, folder
        As for `yardstick`.
    strength : float
        Inverse of the L2 penalty.
    seed : int
        Of the folds.
    """
    x, index, condition = read_features(folder, "residuals")
    rows = [windows.rows[i] for i in index]
    inside = np.flatnonzero(np.array([r["split"] == "fit" for r in rows]) & (condition == "native"))
    labels = np.array([int(rows[i]["label"]) for i in inside])
    sources = [rows[i]["source"] for i in inside]
    z = np.asarray(x[inside], np.float32)
    fitted = Probe(strength, seed).fit(z, labels, sources)
    held = held_out_scores(z, labels, sources, strength=strength, seed=seed)
    stretch = LogisticRegression(C=1e6).fit(held[:, None], labels, sample_weight=source_weights(labels, sources))
    slope = float(stretch.coef_[0, 0])
    out = ResidualProbe()
    with torch.no_grad():
        out.mean.copy_(torch.from_numpy(fitted.scaler.mean_))
        out.std.copy_(torch.from_numpy(fitted.scaler.scale_))
        out.weight.copy_(torch.from_numpy(fitted.model.coef_[0] * slope))
        out.bias.fill_(float(fitted.model.intercept_[0]) * slope + float(stretch.intercept_[0]))
    return out


def fit_heads(windows: Windows, folder: Path, heads: Mapping[str, HeadFit], out: Path) -> Path:
    """Fit heads and write them as a training run starts from them.

    Parameters
    ----------
    windows, folder
        As for `yardstick`.
    heads : mapping from head ("deep", "early") to HeadFit
    out : Path
        Receives the safetensors file.
    """
    state: dict[str, torch.Tensor] = {}
    for name, fit in heads.items():
        state |= {f"{name}.{k}": v.detach() for k, v in fit_head(windows, folder, fit).state_dict().items()}
    save_file(state, out)
    return out


def tower_extractor(tower: ClipTower) -> Callable[[NDArray[np.uint8]], NDArray[np.generic]]:
    """`compute` for `extract`."""
    tower = half_precision(tower)
    return lambda crops: tower_features(tower, crops)


__all__ = [
    "CONDITIONS",
    "CROP",
    "HeadFit",
    "Probe",
    "extract",
    "fit_head",
    "fit_heads",
    "fit_residual",
    "held_out_scores",
    "read_features",
    "residual_features",
    "scored_crop",
    "source_weights",
    "tower_extractor",
    "yardstick",
]

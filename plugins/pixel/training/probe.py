"""The yardstick: source-balanced logistic regressions on frozen features. Also where the fine-tuning's heads start.

Choices are made on held-out families inside `fit` and on `fuse`; `test` is never read here.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from tellsign.data.normalise import normalise_window, reencode
from tellsign.towers import ClipTower, clip_input

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


def residual_features(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Statistics of high-pass residuals, after SRM (Fridrich and Kodovsky, 2012): the probe without a network.

    First- to third-order differences in four directions and the 3 x 3 and 5 x 5 square kernels on the luma; of each
    the share of seven quantised values, of their neighbouring pairs, and the log of the mean magnitude.

    Parameters
    ----------
    crops : uint8 array of (n, H, W, 3)

    Returns
    -------
    float32 array of (n, k)
    """
    square3 = (np.array([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]]) / 4).astype(np.float32)
    square5 = np.array(
        [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]], np.float32
    )
    kernels: list[NDArray[np.float32]] = [
        np.array(k, np.float32)
        for k in ([[-1, 1]], [[1, -2, 1]], [[1, -3, 3, -1]], [[-1], [1]], [[1], [-2], [1]], [[1], [-3], [3], [-1]])
    ]
    diagonal = np.array([[1, 0, 0], [0, -2, 0], [0, 0, 1]], np.float32)
    kernels += [diagonal, np.ascontiguousarray(diagonal[:, ::-1]), square3, (square5 / 12).astype(np.float32)]
    luma = torch.from_numpy(crops).float() @ torch.tensor([0.299, 0.587, 0.114])
    out: list[torch.Tensor] = []
    for kernel in kernels:
        weight = torch.from_numpy(np.ascontiguousarray(kernel))[None, None]
        residual = torch.nn.functional.conv2d(luma[:, None], weight)[:, 0]
        level = residual.div(1.5).round().clamp(-3, 3).long() + 3
        pair = level[:, :, :-1] * 7 + level[:, :, 1:]
        n = len(crops)
        out.append(torch.stack([torch.bincount(row.flatten(), minlength=49).float() / row.numel() for row in pair]))
        out.append(residual.abs().mean(dim=(1, 2)).log1p().reshape(n, 1))
    return torch.cat(out, dim=1).numpy()


def extract(
    windows: Windows, out: Path, compute: Callable[[NDArray[np.uint8]], NDArray[np.generic]], name: str
) -> None:
    """Features of every window, and under every condition outside `fit`, to `<name>.npy` and `<name>.csv`.

    The table names the rows that are done, so that an interrupted extraction goes on.
    """
    jobs = [(i, "native") for i in range(len(windows.rows))]
    jobs += [(i, "jpeg90") for i, r in enumerate(windows.rows) if r["split"] != "fit"]
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
    count = Counter(zip(labels.tolist(), sources, strict=True))
    weight = np.array([count[k] ** -0.5 for k in zip(labels.tolist(), sources, strict=True)])
    for label in (0, 1):
        weight[labels == label] /= weight[labels == label].sum()
    return weight * len(weight) / 2


class Probe:
    """A standardised, source-balanced logistic regression.

    Parameters
    ----------
    strength : float
        Inverse of the L2 penalty, as scikit-learn's `C`.
    """

    def __init__(self, strength: float, seed: int = 0) -> None:
        self.scaler = StandardScaler()
        self.model = LogisticRegression(C=strength, max_iter=300, random_state=seed)

    def fit(self, x: NDArray[np.float32], labels: NDArray[np.int64], sources: Sequence[str]) -> Probe:
        """Fit to features (n, k)."""
        self.model.fit(self.scaler.fit_transform(x), labels, sample_weight=source_weights(labels, sources))
        return self

    def score(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Log-odds of (n, k) features."""
        out: NDArray[np.float64] = self.model.decision_function(self.scaler.transform(x))
        return out


def held_out_families(
    x: NDArray[np.float32],
    labels: NDArray[np.int64],
    sources: Sequence[str],
    *,
    strength: float,
    seed: int,
    folds: int = 4,
) -> float:
    """Mean AUC over folds that hold out whole sources of both classes."""
    rng = np.random.default_rng(seed)
    fold_of: dict[tuple[int, str], int] = {}
    for label in (0, 1):
        mine = sorted({s for s, y in zip(sources, labels, strict=True) if y == label})
        fold_of |= {(label, mine[k]): i % folds for i, k in enumerate(rng.permutation(len(mine)))}
    fold = np.array([fold_of[int(y), s] for s, y in zip(sources, labels, strict=True)])
    names = np.array(sources)
    aucs = []
    for f in range(folds):
        inside = fold != f
        probe = Probe(strength, seed).fit(x[inside], labels[inside], names[inside].tolist())
        aucs.append(roc_auc_score(labels[~inside], probe.score(x[~inside])))
    return float(np.mean(aucs))


def yardstick(windows: Windows, folder: Path, *, seeds: Iterable[int] = (0, 1, 2)) -> list[dict[str, float | str]]:
    """The table: features by row; held-out families inside `fit` (mean over seeds) and `fuse`, native and JPEG 90."""
    sets: list[tuple[str, str, tuple[slice | list[int], slice | int] | None, float]] = [
        ("residual statistics (SRM-like)", "residuals", None, 0.01)
    ]
    sets += [(f"class token, block {b}", "tower", ([b - 1], 0), 0.003) for b in range(1, 13)]
    sets += [(f"mean patch token, block {b}", "tower", ([b - 1], 1), 0.003) for b in (3, 5, 7, 9, 10)]
    sets += [
        ("class token, blocks 5 and 6", "tower", ([4, 5], 0), 0.0003),
        ("class token, blocks 7 and 8", "tower", ([6, 7], 0), 0.0003),
        ("class token, blocks 5 to 10", "tower", (slice(4, 10), 0), 0.001),
        ("class and patch tokens, blocks 6 to 8", "tower", (slice(5, 8), slice(None)), 0.0005),
    ]
    table: list[dict[str, float | str]] = []
    for title, name, part, strength in sets:
        if not (folder / f"{name}.npy").is_file():
            continue
        x, index, condition = read_features(folder, name)
        rows = [windows.rows[i] for i in index]
        labels = np.array([int(r["label"]) for r in rows])
        sources = [r["source"] for r in rows]
        split = np.array([r["split"] for r in rows])
        keep = split != "test"
        x, labels, split, condition = x[keep], labels[keep], split[keep], condition[keep]
        sources = [s for s, k in zip(sources, keep, strict=True) if k]
        x = np.asarray(x if part is None else x[:, part[0], part[1]], np.float32).reshape(len(x), -1)
        fit = (split == "fit") & (condition == "native")
        mine = np.array(sources)[fit].tolist()
        inside = [held_out_families(x[fit], labels[fit], mine, strength=strength, seed=s) for s in seeds]
        scores = Probe(strength).fit(x[fit], labels[fit], mine).score(x)
        line: dict[str, float | str] = {"features": title, "fit families": float(np.mean(inside))}
        line["fit families sd"] = float(np.std(inside))
        for name_of in CONDITIONS:
            chosen = (split == "fuse") & (condition == name_of)
            line[f"fuse {name_of}"] = float(roc_auc_score(labels[chosen], scores[chosen]))
        table.append(line)
    return table


def read_features(folder: Path, name: str) -> tuple[NDArray[np.generic], NDArray[np.int64], NDArray[np.str_]]:
    """What `extract` wrote so far: features, window indices, conditions."""
    with (folder / f"{name}.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    x = np.load(folder / f"{name}.npy", mmap_mode="r")[: len(rows)]
    return x, np.array([int(r["index"]) for r in rows]), np.array([r["condition"] for r in rows])


def start_heads(windows: Windows, folder: Path, heads: Mapping[str, Sequence[int]], out: Path) -> Path:
    """Fit the probe that each head starts from, on the class tokens of its blocks.

    Parameters
    ----------
    windows, folder
        As for `yardstick`; needs the tower's features.
    heads : mapping from head to blocks
        `Run`'s heads.
    out : Path
        Receives the safetensors file.
    """
    x, index, condition = read_features(folder, "tower")
    rows = [windows.rows[i] for i in index]
    fit = np.array([r["split"] == "fit" for r in rows]) & (condition == "native")
    labels = np.array([int(r["label"]) for r in rows])[fit]
    sources = [r["source"] for r, k in zip(rows, fit, strict=True) if k]
    state: dict[str, torch.Tensor] = {}
    for head, blocks in heads.items():
        part = np.asarray(x[np.flatnonzero(fit)][:, [b - 1 for b in blocks]], np.float32)
        probe = Probe(0.0003).fit(part[:, :, 0].reshape(len(part), -1), labels, sources)
        # Patch tokens start at nothing: in the yardstick they cost AUC on unseen sources. They are there to be
        # trained, since only they can say where.
        weight = np.zeros(part.shape[1:], np.float32)
        weight[:, 0] = probe.model.coef_[0].reshape(len(blocks), -1)
        state[f"{head}.weight"] = torch.from_numpy(weight)
        state[f"{head}.mean"] = torch.from_numpy(part.mean(axis=0))
        state[f"{head}.std"] = torch.from_numpy(part.std(axis=0) + 1e-6)
        state[f"{head}.bias"] = torch.tensor(float(probe.model.intercept_[0]))
    save_file(state, out)
    return out


def tower_extractor(tower: ClipTower) -> Callable[[NDArray[np.uint8]], NDArray[np.generic]]:
    """`compute` for `extract`."""
    tower = half_precision(tower)
    return lambda crops: tower_features(tower, crops)


__all__ = [
    "CONDITIONS",
    "CROP",
    "Probe",
    "extract",
    "held_out_families",
    "read_features",
    "residual_features",
    "scored_crop",
    "source_weights",
    "start_heads",
    "tower_extractor",
    "yardstick",
]

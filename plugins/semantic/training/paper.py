"""The paper's claim, measured on these models: which supervision of one tower transfers to unseen families.

Task-Model Alignment (arXiv 2512.06746) says that a semantic model learns meaning well and traces badly, and a pixel
model the other way round. Here one frozen tower gets a linear head from semantic supervision (the semantic set, behind
the scrambler) and another from pixel supervision (pictures and their round trips through autoencoders, one content
each), and both are asked about the same families that neither saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from tellsign.data.purity import check_purity
from tellsign.schemas import Task
from tellsign.towers import ClipTower, class_tokens

from .measure import auc, by_source, within_topic
from .prepare import SIDE
from .probe import Data, Probe, Recipe


@torch.inference_mode()
def pair_tokens(folder: Path, tower: ClipTower, *, count: int, force: bool = False) -> NDArray[np.float16]:
    """Class tokens of aligned pairs.

    Parameters
    ----------
    folder : Path
        With `pairs_real.npy` and `pairs_fake.npy`, uint8 (n, s, s, 3): what the pixel plugin's `prepare` writes.
    tower : ClipTower
    count : int
        Pairs to take, evenly from all.
    force : bool
        Pixel data is refused by the semantic plugin's training unless this is set.

    Returns
    -------
    float16 array of (count, 2, depth, width)
        Real member first.
    """
    check_purity(folder, Task.SEMANTIC, force=force)
    sides = [np.load(folder / f"pairs_{name}.npy", mmap_mode="r") for name in ("real", "fake")]
    chosen = np.linspace(0, len(sides[0]) - 1, count).astype(int)
    at = (sides[0].shape[1] - SIDE) // 2
    out = []
    for start in tqdm(range(0, count, 8), desc="pairs", unit="batch"):
        rows = chosen[start : start + 8]
        crops = np.concatenate([s[rows, at : at + SIDE, at : at + SIDE] for s in sides])
        tokens = class_tokens(tower, np.ascontiguousarray(crops)).half().cpu().numpy()
        out.append(np.stack([tokens[: len(rows)], tokens[len(rows) :]], axis=1))
    return np.concatenate(out)


def pixel_supervised(
    pairs: NDArray[np.float16], block: int, strength: float
) -> tuple[StandardScaler, LogisticRegression]:
    """A linear head from pairs alone."""
    x = np.asarray(pairs[:, :, block - 1], np.float32).reshape(-1, pairs.shape[-1])
    y = np.tile([0, 1], len(pairs))
    scaler = StandardScaler().fit(x)
    return scaler, LogisticRegression(C=strength, max_iter=400).fit(scaler.transform(x), y)


def held_out_pairs(pairs: NDArray[np.float16], block: int, strength: float) -> float:
    """AUC on pairs that were not trained on: whether the head learned its own task."""
    half = len(pairs) // 2
    scaler, model = pixel_supervised(pairs[:half], block, strength)
    x = np.asarray(pairs[half:, :, block - 1], np.float32).reshape(-1, pairs.shape[-1])
    return auc(np.tile([0, 1], len(pairs) - half), model.decision_function(scaler.transform(x)))


def transfer(
    data: Data, pairs: NDArray[np.float16], blocks: Sequence[int], *, strength: float = 1e-3
) -> list[dict[str, float | str]]:
    """The table: supervision by block, on families that were not trained on.

    Parameters
    ----------
    data : Data
        Scored on `fuse`, behind the scrambler.
    pairs : float16 array of (n, 2, depth, width)
    blocks : sequence of int
    strength : float
        Inverse penalty of both heads.
    """
    fit, fuse = (np.flatnonzero(data.split == s) for s in ("fit", "fuse"))
    label, topic, source = data.label[fuse], data.topic[fuse], data.source[fuse]
    out: list[dict[str, float | str]] = []
    for block in blocks:
        semantic = Probe.fit(data, Recipe(blocks=(block,), strength=strength, versions=("overview",)), fit)
        scaler, model = pixel_supervised(pairs, block, strength)
        scores = {
            "semantic": semantic.score(data, "overview", fuse),
            "pixel": model.decision_function(scaler.transform(data.x("overview", block, fuse))),
        }
        for supervision, values in scores.items():
            line: dict[str, float | str] = {"supervision": supervision, "block": float(block)}
            line["own task"] = held_out_pairs(pairs, block, strength) if supervision == "pixel" else float("nan")
            line["fuse"] = auc(label, values)
            line["fuse within"] = within_topic(label, values, topic)
            line["fuse by source"] = by_source(label, values, source)
            out.append(line)
    return out

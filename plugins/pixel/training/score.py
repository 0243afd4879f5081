"""AUC of a training run, one crop a picture; for choosing on `fuse`, and for a table on `test`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from torch import Tensor

from tellsign.towers import ClipTower

from .export import quantised_tower
from .probe import CONDITIONS, scored_crop
from .train import Recipe, Run, Windows, forward, half_precision


@torch.inference_mode()
def score_run(
    windows: Windows, run: Path, tower: Mapping[str, Tensor], *, head: str, split: str, quantised: bool, size: int = 16
) -> dict[str, object]:
    """Score the windows of a split.

    Parameters
    ----------
    windows : Windows
    run : Path
        Folder with `recipe.json` and `run.safetensors`.
    tower : mapping
        The tower's tensors.
    head : "deep" or "early"
    split : str
    quantised : bool
        Use the four-bit trunk (early head only).

    Returns
    -------
    dict
        AUC by condition, and the mean logit by source under "native".
    """
    recipe = Recipe.read(run)
    depth = max(recipe.early if head == "early" else recipe.deep)
    model = quantised_tower(tower, depth) if quantised else ClipTower.from_state_dict(tower, depth=depth)
    model = half_precision(model.eval())
    trained = Run(recipe, model.width)
    trained.load_state_dict(load_file(run / "run.safetensors"))
    trained.eval()
    index = [i for i, r in enumerate(windows.rows) if r["split"] == split]
    labels = np.array([int(windows.rows[i]["label"]) for i in index])
    out: dict[str, object] = {}
    for name, quality in CONDITIONS.items():
        logits: list[float] = []
        for at in range(0, len(index), size):
            crops = np.stack([scored_crop(windows, i, quality) for i in index[at : at + size]])
            deep, early = forward(model, trained, crops, only=head)
            logits += (deep if head == "deep" else early).tolist()
        out[f"auc {name}"] = float(roc_auc_score(labels, logits))
        if name == "native":
            by_source: dict[str, list[float]] = defaultdict(list)
            for i, value in zip(index, logits, strict=True):
                by_source[f"{windows.rows[i]['label']} {windows.rows[i]['source']}"].append(value)
            out["mean logit"] = {k: round(float(np.mean(v)), 2) for k, v in sorted(by_source.items())}
    return out

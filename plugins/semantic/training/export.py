"""From a recipe to the two weights files that ship."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression

from tellsign.plugins.semantic.model import SemanticHead

from .measure import least_threshold
from .probe import EMBEDDING, Data, Probe, Recipe, held_out, probe_scorer
from .semantic_set import source_weight

SHARE = 0.05
"""Of every real source that chooses the threshold, at most so many pictures lie above it. Half of what must hold on
sources that were not looked at."""
LEAST = 20
"""Pictures that a real source needs to have a say in the threshold."""


@attrs.frozen(kw_only=True)
class Stretch:
    """Turns a model's raw scores into log-odds whose zero is the model's own threshold."""

    slope: float
    offset: float

    def __call__(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Raw scores to log-odds."""
        return raw * self.slope + self.offset


def stretch(
    unseen: NDArray[np.float64],
    label: NDArray[np.int64],
    source: NDArray[np.str_],
    reals: Mapping[str, NDArray[np.float64]],
    *,
    share: float = SHARE,
) -> Stretch:
    """Slope from held-out families, zero from real sources that were not trained on.

    Parameters
    ----------
    unseen : float64 array of (n,)
        Raw scores of pictures by models that saw nothing of their source.
    label, source : arrays of (n,)
    reals : mapping from real source to float64 array
        Raw scores of real pictures that choose the threshold.
    share : float
        Of each of these at most so many lie above zero afterwards.
    """
    fitted = LogisticRegression(C=1e6).fit(unseen[:, None], label, sample_weight=source_weight(label, source))
    slope = float(fitted.coef_[0, 0])
    return Stretch(slope=slope, offset=-slope * least_threshold(reals, share))


def real_sources(
    data: Data, rows: NDArray[np.int64], scores: NDArray[np.float64], *, least: int = LEAST
) -> dict[str, NDArray[np.float64]]:
    """Scores of the real pictures among `rows`, by source, for sources with at least `least` of them."""
    found = {}
    for name in np.unique(data.source[rows][data.label[rows] == 0]):
        mine = (data.label[rows] == 0) & (data.source[rows] == name)
        if mine.sum() >= least:
            found[str(name)] = scores[mine]
    return found


def fit_head(
    data: Data, recipe: Recipe, *, versions: Sequence[str] = ("overview",), seed: int = 0, least: int = LEAST
) -> SemanticHead:
    """A head whose zero is its own threshold.

    Parameters
    ----------
    data : Data
    recipe : Recipe
        Without the embedding: the head reads class tokens.
    versions : sequence of str
        Under each of which the threshold must hold on `fuse`.
    seed : int
        Of the folds.
    least : int
        Pictures that a real source needs to have a say in the threshold.

    Raises
    ------
    ValueError
        The recipe reads the embedding, or no real source of `fuse` is large enough.
    """
    if EMBEDDING in recipe.blocks:
        raise ValueError("recipe takes blocks from 1 on; the shipped head does not read the embedding")
    fit, fuse = (np.flatnonzero(data.split == s) for s in ("fit", "fuse"))
    probe = Probe.fit(data, recipe, fit)
    unseen, _ = held_out(data, probe_scorer(data, recipe), seed=seed)
    reals: dict[str, NDArray[np.float64]] = {}
    for version in versions:
        scores = probe.score(data, version, fuse)
        reals |= {f"{version} {k}": v for k, v in real_sources(data, fuse, scores, least=least).items()}
    to_log_odds = stretch(unseen, data.label[fit], data.source[fit], reals)
    width = data.tokens["overview"].shape[2]
    head = SemanticHead(recipe.blocks, width)
    with torch.no_grad():
        offset = to_log_odds.offset
        for i, (scaler, model, spread) in enumerate(zip(probe.scalers, probe.models, probe.spreads, strict=True)):
            share = to_log_odds.slope / spread / len(recipe.blocks)
            head.mean[i] = torch.from_numpy(np.asarray(scaler.mean_, np.float32))
            head.std[i] = torch.from_numpy(np.asarray(scaler.scale_, np.float32))
            head.weight[i] = torch.from_numpy(np.asarray(model.coef_[0] * share, np.float32))
            offset += float(model.intercept_[0]) * share
        head.bias.fill_(offset)
    return head.eval()


def export_head(head: SemanticHead, recipe: Recipe, out: Path, *, version: str, tower: str) -> Path:
    """Write `semantic-tower.safetensors`."""
    notes = {
        "blocks": ",".join(str(b) for b in head.blocks),
        "tower": tower,
        "version": version,
        "recipe": json.dumps(attrs.asdict(recipe), sort_keys=True),
    }
    file = out / "semantic-tower.safetensors"
    save_file({k: v.contiguous() for k, v in head.state_dict().items()}, file, metadata=notes)
    return file


def export_student(run: Path, out: Path, calibration: Stretch, *, version: str) -> Path:
    """Write `semantic-student.safetensors`: a run's student with its zero at its own threshold.

    Parameters
    ----------
    run : Path
        Folder of `lite.train`.
    out : Path
    calibration : Stretch
        Of the run's raw log-odds.
    version : str
    """
    state = load_file(run / "student.safetensors")
    weight, bias = state["head.weight"].float(), state["head.bias"].float()
    state["head.weight"] = (weight * calibration.slope).half()
    state["head.bias"] = bias * calibration.slope + calibration.offset
    file = out / "semantic-student.safetensors"
    recipe = (run / "recipe.json").read_text()
    save_file({k: v.contiguous() for k, v in state.items()}, file, metadata={"version": version, "recipe": recipe})
    return file

"""What a run judges and sees, as X-AIGD's protocol counts it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tqdm import tqdm

from tellsign.artifacts import CATEGORIES, Tally, fidelity, judgement, proportion
from tellsign.artifacts.rows import MarkedPicture

from .model import ArtifactModel, judged_by_maps
from .recipe import Recipe
from .train import RUN, build

CUT = 0.5
"""Probability from which a pixel is marked, as in the paper."""
STRIDE = 32
LARGEST = 1024
"""Longer sides are looked at in the middle: memory, and the paper's pictures are no larger."""


def read_run(run: Path) -> tuple[Recipe, ArtifactModel]:
    """A finished run's recipe and network, in eval mode."""
    recipe = Recipe.read(run)
    model = build(recipe, None, initialise=False)
    model.load_state_dict(load_file(run / RUN))
    return recipe, model.eval()


def evaluate(
    recipe: Recipe, model: ArtifactModel, pictures: Sequence[MarkedPicture], *, draws: int = 1000
) -> dict[str, Any]:
    """Judge and mark every picture.

    Parameters
    ----------
    recipe : Recipe
    model : ArtifactModel
        In eval mode.
    pictures : sequence of MarkedPicture
    draws : int
        Of the bootstrap.

    Returns
    -------
    dict
        n; `judgement` (a network that learned maps alone judges by their highest value); `detection` by row of
        `tellsign.artifacts.detection.ROWS`, over generated pictures whose artifacts are marked, None where no maps were
        learned; `fidelity`. NaN where a number cannot be had.
    """
    tally = Tally()
    label, p, shares, marked = [], [], [], []
    device = next(model.parameters()).device
    for picture in tqdm(pictures, desc="pictures"):
        pixels, truth = _middle(*picture.load())
        with torch.inference_mode():
            out = model(torch.tensor(pixels)[None].to(device))
        logit = out.logit if recipe.learns_class else judged_by_maps(out.maps)
        label.append(picture.label)
        p.append(float(logit.sigmoid()))
        if picture.label and picture.known:
            shares.append(proportion(truth))
            marked.append(p[-1])
            if recipe.learns_maps:
                flags = (out.maps[0].sigmoid() >= CUT).cpu().numpy()
                seven = len(CATEGORIES)
                hits = Tally().add(flags[:seven], truth)
                tally.add_counts([Tally().add(flags[seven], truth)[0], *hits[1:]])
    return {
        "n": len(pictures),
        "judgement": judgement(np.array(label, int), np.array(p, np.float64)),
        "detection": tally.summary() if recipe.learns_maps else None,
        "fidelity": fidelity(np.array(shares), np.array(marked), draws=draws if marked else 0),
    }


def _middle(pixels: NDArray[np.uint8], masks: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The largest middle whose sides are multiples of the encoder's last stride; smaller pictures stay as they are."""
    places = []
    for n in pixels.shape[:2]:
        kept = min(n, LARGEST) // STRIDE * STRIDE or n
        places.append(slice((n - kept) // 2, (n - kept) // 2 + kept))
    return pixels[places[0], places[1]], masks[:, places[0], places[1]]


__all__ = ["CUT", "evaluate", "read_run"]

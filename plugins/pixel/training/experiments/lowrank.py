"""Low-rank updates of the middle blocks without pairs, from kept tokens, against the frozen probe on the same pictures.

The first blocks never move, so their tokens are taken once and kept in half precision. Updates and head start as the
frozen probe: both rows see the same pictures, and the first step changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
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
from tellsign.plugins.pixel.training.balance import Balance
from tellsign.plugins.pixel.training.probe import Probe, read_rows, scored_crop, source_folds
from tellsign.plugins.pixel.training.train import Windows
from tellsign.towers import ClipTower, LoraSet, clip_input

from .study import FOLDS, auc, source_table


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

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """From JSON; what it does not name stays at its default."""
        told: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()}
        return cls(**told)


@torch.inference_mode()
def keep_tokens(windows: Windows, index: Sequence[int], tower: ClipTower, frozen: int, out: Path) -> None:
    """Write `tokens.npy`, float16 (n, tokens, width), after block `frozen`, and `tokens.json`; resumes."""
    told = {"index": list(index), "frozen": frozen}
    file, notes, done = out / "tokens.npy", out / "tokens.json", 0
    if notes.is_file() and file.is_file() and (state := json.loads(notes.read_text())) | told == state:
        done, store = state["done"], np.lib.format.open_memmap(file, "r+")
    else:
        store = None
    for start in tqdm(range(done, len(index), 16), desc="tokens", unit="batch"):
        crops = np.stack([scored_crop(windows, i) for i in index[start : start + 16]])
        x = tower.embed(clip_input(torch.from_numpy(crops))).to(next(tower.transformer.parameters()).dtype)
        for block in tower.transformer.resblocks[:frozen]:
            x = block(x, None, "")
        if store is None:
            store = np.lib.format.open_memmap(file, "w+", np.float16, (len(index), *x.shape[1:]))
        store[start : start + len(x)] = x.half().numpy()
        store.flush()
        notes.write_text(json.dumps(told | {"done": start + len(x)}))


def class_tokens(tower: ClipTower, lora: LoraSet | None, x: Tensor, recipe: Recipe) -> dict[int, Tensor]:
    """Tokens after the head's blocks, from those after block `frozen`."""
    out = {}
    for number in range(recipe.frozen + 1, max(recipe.blocks) + 1):
        x = tower.transformer.resblocks[number - 1](x, lora, f"{number}")
        if number in recipe.blocks:
            out[number] = x
    return out


def compare(windows: Windows, out: Path, tower: ClipTower, recipe: Recipe, *, seed: int) -> dict[str, dict[str, float]]:
    """Frozen probe and updates, trained on three folds of the pictures of `fit`, scored on the fourth and on `fuse`.

    Parameters
    ----------
    windows : Windows
    out : Path
        What `keep_tokens` wrote; receives `lora-SEED.json`, and a finished one is read.
    tower : ClipTower
        As `half_precision` left it.
    recipe : Recipe
    seed : int
        Of the folds, the updates' start and the order.

    Returns
    -------
    dict
        By row ("frozen", "updated") the AUC on held-out families, on `fuse`, and on `fuse` by source.
    """
    done = out / f"lora-{seed}.json"
    if done.is_file():
        found: dict[str, dict[str, float]] = json.loads(done.read_text())
        return found
    tokens = np.load(out / "tokens.npy", mmap_mode="r")
    index = np.array(json.loads((out / "tokens.json").read_text())["index"])
    rows = read_rows(windows, index)
    fit = np.array([windows.rows[i]["split"] == "fit" for i in index])
    fold = np.full(len(index), -1)
    fold[fit] = source_folds(rows.labels[fit], rows.sources[fit].tolist(), seed=seed, folds=FOLDS)
    learned, shown = np.flatnonzero(fit & (fold != 0)), np.flatnonzero(~fit | (fold == 0))
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
    head = PixelHead(recipe.blocks, width)
    x = frozen_tokens(learned)
    balance = Balance(power=0.0, by_content=True)
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
    lora = LoraSet.for_tower(
        width, range(recipe.frozen + 1, max(recipe.blocks) + 1), rank=recipe.rank, alpha=recipe.alpha
    )

    def score(updates: LoraSet | None) -> NDArray[np.float64]:
        with torch.inference_mode():
            logits = [
                head(class_tokens(tower, updates, kept(shown[a : a + 16]), recipe))[0] for a in range(0, len(shown), 16)
            ]
        return torch.cat(logits).double().numpy()

    def figures(scores: NDArray[np.float64]) -> dict[str, float]:
        inside = fit[shown]
        mine = rows[shown]
        table = source_table(mine[~inside], scores[~inside])
        return {
            "fit": auc(mine.labels[inside], scores[inside]),
            "fuse": auc(mine.labels[~inside], scores[~inside]),
            "fuse by source": float(np.mean(list(table.values()))),
        }

    found = {"frozen": figures(score(None))}
    optimiser = torch.optim.AdamW(
        [{"params": lora.parameters(), "lr": recipe.rate}, {"params": head.parameters(), "lr": recipe.head_rate}],
        weight_decay=0.01,
    )
    weight = torch.from_numpy(balance.weights(rows[learned])).float()
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(learned)) for _ in range(recipe.epochs)])
    steps = [order[a : a + recipe.batch] for a in range(0, len(order), recipe.batch)]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, len(steps))
    losses = []
    for step in tqdm(steps, desc=f"seed {seed}", unit="step"):
        logit = head(class_tokens(tower, lora, kept(learned[step]), recipe))[0]
        target = torch.from_numpy(rows.labels[learned[step]]).float()
        loss = (weight[step] * F.binary_cross_entropy_with_logits(logit, target, reduction="none")).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*lora.parameters(), *head.parameters()], 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    found["updated"] = figures(score(lora)) | {
        "loss of the first tenth": float(np.mean(losses[: max(1, len(losses) // 10)])),
        "loss of the last tenth": float(np.mean(losses[-max(1, len(losses) // 10) :])),
    }
    done.write_text(json.dumps(found, indent=1))
    return found

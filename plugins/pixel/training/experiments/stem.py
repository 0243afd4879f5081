"""A small network from scratch with a stem of stride 1: RGB and fixed high-pass residuals, real against generated.

It learns from three folds of `fit`'s sources and is scored on the fourth and on `fuse`, beside what ships, fitted to
the same sources.
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
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from tellsign.data.normalise import normalise_window
from tellsign.plugins.pixel.residuals import KERNELS, LEVELS, STEP
from tellsign.plugins.pixel.training.probe import Probe, read_features, read_rows, scored_crop
from tellsign.plugins.pixel.training.train import Windows

from .compared import Column, Compared
from .looks import folds_of
from .pairing import SHIPPED, STRENGTH
from .study import SEEDS, Floats, Study

RESIDUAL_STRENGTH = 1e-2
"""Of the probe on residual statistics, as it ships."""
EVERY = 10
"""Steps between two checkpoints."""


@attrs.frozen(kw_only=True)
class Recipe:
    """Everything that decides what a run gives."""

    side: int = 96
    """Of the crops, in pixels."""
    widths: tuple[int, ...] = (24, 48, 96, 96)
    """Channels of the stages; the first has the stem's stride of 1, each other one halves the side."""
    residuals: bool = True
    """Whether the fixed filters stand beside RGB."""
    steps: int = 400
    batch: int = 32
    """Half of it real."""
    rate: float = 2e-3
    decay: float = 0.05
    seeds: tuple[int, ...] = SEEDS

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """From JSON; what it does not name stays at its default."""
        told: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()}
        return cls(**told)


class Stem(nn.Module):
    """RGB and truncated residuals of the luma at full resolution, then convolutions that halve the side.

    Parameters
    ----------
    widths : sequence of int
    residuals : bool
    """

    filters: Tensor

    def __init__(self, widths: Sequence[int], *, residuals: bool = True) -> None:
        super().__init__()
        filters = torch.zeros(len(KERNELS) if residuals else 0, 1, 5, 5)
        for n in range(len(filters)):
            rows, columns = KERNELS[n].shape
            top, left = (5 - rows) // 2, (5 - columns) // 2
            filters[n, 0, top : top + rows, left : left + columns] = KERNELS[n]
        self.register_buffer("filters", filters)
        layers: list[nn.Module] = []
        before = 3 + len(filters)
        for n, width in enumerate(widths):
            for inputs, stride in ((before, 1 if n == 0 else 2), (width, 1)):
                layers += [nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(before, 1)

    def forward(self, crops: Tensor) -> Tensor:
        """uint8 crops (B, H, W, 3) to float32 logits (B,)."""
        x = crops.permute(0, 3, 1, 2).float()
        parts = [x / 127.5 - 1]
        if len(self.filters):
            luma = (x * torch.tensor([0.299, 0.587, 0.114], device=x.device).view(1, 3, 1, 1)).sum(1, keepdim=True)
            residual = F.conv2d(F.pad(luma, (2, 2, 2, 2), mode="reflect"), self.filters)
            parts.append((residual / STEP).clamp(-LEVELS, LEVELS) / LEVELS)
        x = self.body(torch.cat(parts, dim=1).contiguous(memory_format=torch.channels_last))
        out: Tensor = self.head(x.float().mean(dim=(2, 3)))[:, 0]
        return out


def batch(
    windows: Windows, sides: Sequence[tuple[NDArray[np.int64], Floats]], recipe: Recipe, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Crops (B, side, side, 3) and labels of one step; depends on the seed and the step alone.

    Parameters
    ----------
    windows : Windows
    sides : sequence of (indices, probabilities)
        By label.
    recipe : Recipe
    seed, step : int
    """
    rng = np.random.default_rng((seed, step))
    crops, labels = [], []
    for label, (index, p) in enumerate(sides):
        for i in rng.choice(index, size=recipe.batch // 2, p=p):
            pixels = normalise_window(windows.window(int(i)), rng)
            top, left = (int(rng.integers(n - recipe.side + 1)) for n in pixels.shape[:2])
            part = pixels[top : top + recipe.side, left : left + recipe.side]
            crops.append(part[:, ::-1] if rng.random() < 0.5 else part)
            labels.append(label)
    return torch.from_numpy(np.stack(crops)), torch.tensor(labels, dtype=torch.float32)


def train(
    windows: Windows,
    sides: Sequence[tuple[NDArray[np.int64], Floats]],
    recipe: Recipe,
    seed: int,
    checkpoint: Path,
    told: str,
) -> tuple[Stem, list[float]]:
    """The trained network and the loss of every step; goes on from a checkpoint of the same `told`."""
    torch.manual_seed(seed)
    model = Stem(recipe.widths, residuals=recipe.residuals).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=recipe.steps)
    parts: dict[str, Any] = {"model": model, "optimiser": optimiser, "schedule": schedule}
    losses: list[float] = []
    if checkpoint.is_file() and (state := torch.load(checkpoint, weights_only=True))["told"] == told:
        for name, part in parts.items():
            part.load_state_dict(state[name])
        losses = state["losses"].tolist()
    for step in tqdm(range(len(losses), recipe.steps), desc=f"seed {seed}", unit="step"):
        crops, labels = batch(windows, sides, recipe, seed, step)
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.binary_cross_entropy_with_logits(model(crops).float(), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % EVERY == 0:
            state = {name: part.state_dict() for name, part in parts.items()}
            torch.save(state | {"told": told, "losses": torch.tensor(losses)}, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)
    return model.eval(), losses


@torch.inference_mode()
def scores_of(model: Stem, windows: Windows, index: Sequence[int]) -> Floats:
    """Logits of the crops by which the windows are scored, at their 224 px."""
    out = []
    for start in range(0, len(index), 8):
        crops = np.stack([scored_crop(windows, i) for i in index[start : start + 8]])
        with torch.autocast("cpu", torch.bfloat16):
            out.append(model(torch.from_numpy(crops)).float())
    return torch.cat(out).double().numpy()


def beside(windows: Windows, folder: Path, index: Sequence[int], seed: int) -> Floats:
    """Scores (pictures, 2) by the tower's probes and the probe on residuals, fitted without fold 0 as they ship."""
    columns = []
    for name, blocks, probe in (
        ("tower", (7, 8, 12), Probe(STRENGTH, seed, SHIPPED)),
        ("residuals", (), Probe(RESIDUAL_STRENGTH, seed)),
    ):
        study = Study.read(windows, folder, blocks=blocks, name=name)
        fit, inside = study.where("fit"), study.fold(seed) != 0
        x, number, condition = read_features(folder, name)
        row = {int(i): k for k, i in enumerate(number) if condition[k] == "native"}
        shown = x[[row[i] for i in index]]
        part = shown[:, [b - 1 for b in blocks], 0] if blocks else shown.reshape(len(index), 1, -1)
        total = np.zeros(len(index))
        for block in range(part.shape[1]):
            z = np.asarray(study.x[fit][:, block], np.float32)
            probe.fit_rows(z[inside], study.rows[fit][inside])
            total += probe.score(np.asarray(part[:, block], np.float32)) / probe.score(z).std()
        columns.append(total)
    return np.stack(columns, axis=1)


def compare(windows: Windows, folder: Path, index: Sequence[int], recipe: Recipe, out: Path) -> Compared:
    """Train for every seed without fold 0, and score it and `fuse`.

    Parameters
    ----------
    windows : Windows
    folder : Path
        What `prepare` and `features` wrote.
    index : sequence of int
        Windows of the pictures that are scored. Those of `fit` whose source was learned from are in no fold.
    recipe : Recipe
    out : Path
        Receives `stem-SEED.npz`, and one of the same pictures and recipe is read; and a checkpoint while it trains.

    Returns
    -------
    Compared
        Columns: the tower's probes, the probe on residuals, the network.
    """
    study = Study.read(windows, folder)
    rows = read_rows(windows, np.array(index))
    split, groups = (np.array([windows.rows[i][field] for i in index]) for field in ("split", "group"))
    every_row, every_split = read_rows(windows, np.arange(len(windows.rows))), [r["split"] for r in windows.rows]
    folds, scores = [], []
    for seed in recipe.seeds:
        fold = folds_of(study, seed, rows, split)
        fold[fold > 0] = -1
        shown = np.flatnonzero((split == "fuse") | (fold == 0))
        done = out / f"stem-{seed}.npz"
        told = json.dumps({"index": list(index), "recipe": attrs.asdict(attrs.evolve(recipe, seeds=(seed,)))})
        if not done.is_file() or str(np.load(done)["told"]) != told:
            learned = folds_of(study, seed, every_row, np.array(every_split)) > 0
            sides = []
            for label in (0, 1):
                side, p = windows.balanced("fit", label)
                side, p = side[learned[side]], p[learned[side]]
                sides.append((side, p / p.sum()))
            checkpoint = out / f"stem-{seed}.pt"
            model, losses = train(windows, sides, recipe, seed, checkpoint, told)
            mine = [index[k] for k in shown.tolist()]
            every = np.zeros((len(index), 3))
            every[shown, :2] = beside(windows, folder, mine, seed)
            every[shown, 2] = scores_of(model, windows, mine)
            np.savez(done, told=told, scores=every, losses=losses)
            checkpoint.unlink(missing_ok=True)
        folds.append(fold)
        scores.append(np.load(done)["scores"])
    return Compared(rows, groups, split, folds, scores)


def _sum(*columns: int) -> Column:
    """The sum of some columns, each with a spread of 1; what has no score counts nothing."""

    def column(scores: Floats) -> Floats:
        mine = scores[:, list(columns)]
        total: Floats = (mine / mine[mine.any(axis=1)].std(axis=0)).sum(axis=1)
        return total

    return column


COLUMNS: Mapping[str, Column] = {
    "tower's probes": _sum(0),
    "probe on residuals": _sum(1),
    "stem of stride 1": _sum(2),
    "tower's probes and residuals": _sum(0, 1),
    "tower's probes and stem": _sum(0, 2),
    "tower's probes, residuals and stem": _sum(0, 1, 2),
}

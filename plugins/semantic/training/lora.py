"""Linear against low-rank updates (LoRA): is a head on frozen tokens beaten by a tower that may move a little?

The first blocks stay frozen, so their tokens are taken once and kept; the blocks after them carry updates, and the head
starts as the linear probe on the very same pictures. An update that has learned nothing is therefore that probe.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from tellsign.alignment import Alignment, recorded
from tellsign.alignment.windows import MarkedWindows
from tellsign.errors import SettingError
from tellsign.towers import ClipTower, LoraSet, clip_input

from .features import Squares
from .measure import auc, by_source, within_topic
from .prepare import VERSIONS
from .probe import Data, Probe, folds
from .probe import Recipe as ProbeRecipe

Floats = NDArray[np.float64]
HELD_OUT = 0
"""The fold of `probe.folds` whose families are held out."""


@attrs.frozen(kw_only=True)
class Recipe:
    """Everything that decides what a run gives; written beside the results."""

    frozen: int = 8
    """Blocks that stay as they are."""
    last: int = 10
    """The block whose class token the head reads; the blocks from `frozen` to here are updated."""
    rank: int = 8
    alpha: float = 16.0
    rate: float = 3e-4
    head_rate: float = 2e-5
    """Of the head, whose weights are some thousandths: the updates' rate would throw it about."""
    epochs: int = 2
    batch: int = 16
    pictures: int = 1500
    """Drawn of the semantic set by its weights, and balanced anew."""
    others: int = 500
    """Pictures of held-out families of `fit` that are scored, at most."""
    strength: float = 1e-4
    """Of the linear probe."""
    align: float = 0.0
    """Weight of the loss that draws the updated blocks' attention to marked artifacts (docs/artifacts.md); 0 is
    without."""
    align_benign: float = 0.4
    """Its weight of patches without an artifact."""
    align_pictures: int = 8
    """Pictures with marked artifacts per step, half of them real; the head learns their class too."""

    def told(self) -> str:
        """As a run's folder keeps it; a run without alignment is what it was before there was any."""
        return json.dumps({k: v for k, v in attrs.asdict(self).items() if self.align or "align" not in k}, indent=1)


@attrs.frozen(kw_only=True)
class Pictures:
    """Which pictures take part, as indices into `Data`."""

    train: NDArray[np.int64]
    families: NDArray[np.int64]
    """Of held-out families of `fit`."""
    fuse: NDArray[np.int64]

    @property
    def all(self) -> NDArray[np.int64]:
        """Every one, once."""
        return np.concatenate([self.train, self.families, self.fuse])


def choose(data: Data, recipe: Recipe) -> Pictures:
    """Draw the pictures; the same for the linear row and for every seed."""
    fit, fuse = (np.flatnonzero(data.split == s) for s in ("fit", "fuse"))
    fold = folds(data.label[fit], data.source[fit], seed=0)
    inside, outside = fit[fold != HELD_OUT], fit[fold == HELD_OUT]
    chosen = data.semantic_set(inside, topics=ProbeRecipe().topics, seed=0)
    rng = np.random.default_rng(0)
    count = min(recipe.pictures, len(chosen.rows))
    drawn = rng.choice(chosen.rows, size=count, replace=False, p=chosen.weight / chosen.weight.sum())
    others = rng.permutation(outside)[: recipe.others]
    return Pictures(train=inside[np.sort(drawn)], families=np.sort(others), fuse=fuse)


def hidden(
    squares: Squares, rows: NDArray[np.int64], tower: ClipTower, block: int, file: Path, *, batch: int = 16
) -> NDArray[np.float16]:
    """All tokens of the overview after `block`, kept in `file`; an interrupted run goes on.

    Parameters
    ----------
    squares : Squares
    rows : int64 array of (k,)
        Places in `squares`.
    tower : ClipTower
    block : int
        Counted from 1.
    file : Path
    batch : int

    Returns
    -------
    float16 array of (k, 1 + patches, width), memory-mapped

    Raises
    ------
    ValueError
        `file` holds another number of pictures, or of another tower.
    """
    side = squares.pixels.shape[2] // tower.patch
    shape = (len(rows), 1 + side**2, tower.width)
    if file.is_file():
        store = np.lib.format.open_memmap(file, "r+")
        if store.shape != shape:
            raise ValueError(f"{file} has shape {store.shape}, and the run asks for {shape}: remove it first")
    else:
        store = np.lib.format.open_memmap(file, "w+", np.float16, shape)
    missing = np.flatnonzero(~store[:, 0].any(axis=1))
    which = VERSIONS.index("overview")
    for start in tqdm(range(0, len(missing), batch), desc=f"after block {block}", unit="batch"):
        part = missing[start : start + batch]
        pixels = torch.from_numpy(np.asarray(squares.pixels[rows[part], which]))
        with torch.inference_mode():
            x = tower.embed(clip_input(pixels))
            x = _through(tower, x.to(_dtype(tower)), 1, block, None)
        store[part] = x.half().numpy()
    store.flush()
    return np.asarray(np.load(file, mmap_mode="r"))


def _dtype(tower: ClipTower) -> torch.dtype:
    return next(tower.transformer.parameters()).dtype


def _through(tower: ClipTower, x: Tensor, first: int, last: int, lora: LoraSet | None) -> Tensor:
    """Tokens before block `first` to tokens after block `last`, counted from 1."""
    for number in range(first, last + 1):
        x = tower.transformer.resblocks[number - 1](x, lora, f"{number}")
    return x


class Updated(nn.Module):
    """Low-rank updates of a few blocks, and a head on the class token behind them.

    Parameters
    ----------
    recipe : Recipe
    tower : ClipTower
        Frozen; not a part of this module.
    probe : Probe
        On the class token of block `recipe.last`: what the head starts as.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, recipe: Recipe, tower: ClipTower, probe: Probe) -> None:
        super().__init__()
        self.recipe = recipe
        hidden_width = tower.state_dict()["transformer.resblocks.0.mlp.c_fc.weight"].shape[0]
        self.lora = LoraSet.for_tower(
            tower.width,
            range(recipe.frozen + 1, recipe.last + 1),
            rank=recipe.rank,
            alpha=recipe.alpha,
            ratio=hidden_width / tower.width,
        )
        (scaler,), (model,) = probe.scalers, probe.models
        self.register_buffer("mean", torch.from_numpy(np.asarray(scaler.mean_, np.float32)))
        self.register_buffer("std", torch.from_numpy(np.asarray(scaler.scale_, np.float32)))
        self.weight = nn.Parameter(torch.from_numpy(np.asarray(model.coef_[0], np.float32)))
        self.bias = nn.Parameter(torch.tensor(float(model.intercept_[0])))

    def forward(self, tower: ClipTower, tokens: Tensor) -> Tensor:
        """Log-odds (B,) of tokens (B, N, width) after block `recipe.frozen`."""
        x = _through(tower, tokens.to(_dtype(tower)), self.recipe.frozen + 1, self.recipe.last, self.lora)
        out: Tensor = ((x[:, 0].float() - self.mean) / self.std) @ self.weight + self.bias
        return out

    @torch.inference_mode()
    def score(self, tower: ClipTower, tokens: NDArray[np.float16], *, batch: int = 32) -> Floats:
        """Log-odds of many: float64 (k,)."""
        parts = [torch.from_numpy(np.array(tokens[i : i + batch])) for i in range(0, len(tokens), batch)]
        return np.concatenate([self(tower, part).double().numpy() for part in parts])


def train(
    model: Updated,
    tower: ClipTower,
    tokens: NDArray[np.float16],
    label: NDArray[np.int64],
    weight: Floats,
    *,
    seed: int,
    marked: MarkedWindows | None = None,
) -> list[float]:
    """Train in place.

    Parameters
    ----------
    model : Updated
    tower : ClipTower
    tokens : float16 array of (k, N, width)
    label : int64 array of (k,)
    weight : float64 array of (k,)
        Mean 1.
    seed : int
        Of the order.
    marked : MarkedWindows, optional
        Whole pictures of the tower's side, for a recipe with `align`.

    Returns
    -------
    list of float
        The loss of every step.

    Raises
    ------
    SettingError
        A recipe with `align` has no marked pictures.
    """
    recipe = model.recipe
    if recipe.align and marked is None:
        raise SettingError("masks", "pictures with marked artifacts, for a recipe with `align`", None)
    steps = recipe.epochs * -(-len(label) // recipe.batch)
    groups = [
        {"params": list(model.lora.parameters()), "lr": recipe.rate},
        {"params": [model.weight, model.bias], "lr": recipe.head_rate},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    rng = np.random.default_rng(seed)
    losses: list[float] = []
    for _ in range(recipe.epochs):
        order = rng.permutation(len(label))
        for start in tqdm(range(0, len(order), recipe.batch), desc=f"seed {seed}", unit="step"):
            part = np.sort(order[start : start + recipe.batch])
            x = torch.from_numpy(np.asarray(tokens[part]))
            y, w = torch.from_numpy(label[part]).float(), torch.from_numpy(weight[part]).float()
            loss = (w * F.binary_cross_entropy_with_logits(model(tower, x), y, reduction="none")).mean()
            if recipe.align and marked is not None:
                loss = loss + loss_on_marked(model, tower, marked, np.random.default_rng((seed, len(losses), 1)))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(list(model.parameters()), 1.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
    return losses


def loss_on_marked(model: Updated, tower: ClipTower, marked: MarkedWindows, rng: np.random.Generator) -> Tensor:
    """The class loss on pictures with marked artifacts, and the alignment of the updated blocks' attention."""
    recipe = model.recipe
    drawn = marked.draw(recipe.align_pictures, rng)
    with torch.no_grad():
        x = tower.embed(clip_input(torch.from_numpy(drawn.pixels)))
        x = _through(tower, x.to(_dtype(tower)), 1, recipe.frozen, None)
    with recorded(tower) as attentions:
        logit = model(tower, x)
    labels, masks, known = (torch.from_numpy(a) for a in (drawn.labels, drawn.masks, drawn.known))
    side = marked.side // tower.patch
    aligned = Alignment(beta=recipe.align, benign=recipe.align_benign).loss(
        logit, attentions, masks, (side, side), known=known
    )
    return F.binary_cross_entropy_with_logits(logit, labels) + aligned


def row(data: Data, pictures: Pictures, families: Floats, fuse: Floats) -> dict[str, float]:
    """The table's figures of one model."""
    out: dict[str, float] = {}
    for name, rows, scores in (("fit", pictures.families, families), ("fuse", pictures.fuse, fuse)):
        label = data.label[rows]
        out[f"{name} within"] = within_topic(label, scores, data.topic[rows])
        out[name] = auc(label, scores)
        out[f"{name} by source"] = by_source(label, scores, data.source[rows])
    return out


def compare(
    squares: Squares,
    data: Data,
    tower: ClipTower,
    recipe: Recipe,
    run: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    masks: Sequence[Path] = (),
) -> list[dict[str, float | str]]:
    """The linear probe, and the updates of every seed, on the same pictures; finished seeds are read from `run`.

    A recipe with `align` takes its marked pictures from `masks`: X-AIGD's rows or what `tellsign forge` wrote.

    Returns
    -------
    list of dict
        A line for the probe, one for the updates before training, one per seed, and their mean.
    """
    run.mkdir(parents=True, exist_ok=True)
    told = recipe.told()
    marked = MarkedWindows.read(masks, squares.pixels.shape[2], whole=True) if recipe.align else None
    kept = run / "recipe.json"
    if kept.is_file() and kept.read_text() != told:
        raise ValueError(f"{run} holds a run of another recipe: name another folder")
    kept.write_text(told)
    pictures = choose(data, recipe)
    linear = Probe.fit(data, ProbeRecipe(blocks=(recipe.last,), strength=recipe.strength), pictures.train)
    tokens = hidden(squares, data.rows[pictures.all], tower, recipe.frozen, run / "hidden.npy")
    n, m = len(pictures.train), len(pictures.families)
    chosen = data.semantic_set(pictures.train, topics=ProbeRecipe().topics, seed=0)
    trained = np.asarray(tokens[:n][chosen.rows])
    title = f"class token of block {recipe.last}"
    parts = (linear.score(data, "overview", rows) for rows in (pictures.families, pictures.fuse))
    lines: list[dict[str, float | str]] = [{"features": f"{title}, linear", **row(data, pictures, *parts)}]
    found: list[dict[str, float]] = []
    for seed in seeds:
        cache = run / f"scores-{seed}.npz"
        if not cache.is_file():
            torch.manual_seed(seed)
            model = Updated(recipe, tower, linear)
            start = model.score(tower, tokens[n:])
            labels = data.label[pictures.train][chosen.rows]
            losses = train(model, tower, trained, labels, chosen.weight, seed=seed, marked=marked)
            end = model.score(tower, tokens[n:])
            save_file({k: v.contiguous() for k, v in model.state_dict().items()}, run / f"updates-{seed}.safetensors")
            np.savez(cache, start=start, end=end, losses=np.array(losses))
        with np.load(cache) as scores:
            start, end = scores["start"], scores["end"]
        if not found:
            lines.append({"features": f"{title}, updates before training", **row(data, pictures, start[:m], start[m:])})
        found.append(row(data, pictures, end[:m], end[m:]))
        lines.append({"features": f"{title}, updates of blocks {recipe.frozen + 1} on, seed {seed}", **found[-1]})
    for name, way in (("mean", np.mean), ("sd", np.std)):
        lines.append({"features": f"updates, {name}", **{k: float(way([f[k] for f in found])) for k in found[0]}})
    return lines

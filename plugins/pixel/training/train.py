"""Fine-tunes low-rank updates and two heads on the tower: one run gives the tower model and the bundled one's start.

The deep head reads the blocks that pixel detectors need; the early head reads the first blocks only and learns from
the labels and from the deep head (self-distillation, Zhang et al., arXiv 1905.08094), so that the first blocks can be
cut off, quantised and shipped.
"""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from tellsign.alignment import Alignment, recorded
from tellsign.alignment.windows import MarkedWindows
from tellsign.data.normalise import normalise_window, reencode
from tellsign.errors import SettingError
from tellsign.plugins.pixel.model import PixelHead
from tellsign.towers import ClipTower, LoraSet, clip_input

from .gate import check_pairs
from .pairs import draw_augmentation, frequency_mix, pixel_mix, twin

CROP = 224
PARTS = ("deep", "early", "distil", "ranking", "marked", "align")
"""The columns of the curve."""


@attrs.frozen(kw_only=True)
class Recipe:
    """Everything that decides what a run gives; written beside the weights."""

    seed: int = 0
    steps: int = 400
    reals: int = 8
    """Real pictures per step, sources balanced by the square root of their size."""
    fakes: int = 8
    pairs: int = 4
    deep: tuple[int, ...] = (7, 8)
    early: tuple[int, ...] = (5, 6)
    rank: int = 8
    """Of the updates; 0 leaves the tower as it is."""
    alpha: float = 8.0
    lora_rate: float = 3e-4
    head_rate: float = 3e-5
    """The heads start from a linear probe and only follow."""
    ranking: float = 0.5
    """Weight of the pairwise ranking loss."""
    distil: float = 0.5
    """Weight of the early head's loss against the deep head's scores."""
    average: float = 0.98
    """Decay of the moving average of the weights that is kept."""
    warmup: int = 20
    align: float = 0.0
    """Weight of the loss that draws the deep head's attention to marked artifacts (docs/artifacts.md); 0 is without."""
    align_benign: float = 0.4
    """Its weight of patches without an artifact."""
    align_pictures: int = 4
    """Pictures with marked artifacts per step, half of them real; the deep head learns their class too."""

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """From JSON; what it does not name stays at its default."""
        told: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()}
        told.pop("heads", None)  # how `fit` made the heads of a run without updates
        return cls(**told)

    @classmethod
    def read(cls, run: Path) -> Recipe:
        """The recipe of a run's folder."""
        return cls.parse((run / "recipe.json").read_text())


class Run(nn.Module):
    """What is trained: the updates and the two heads."""

    def __init__(self, recipe: Recipe, width: int) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.lora: LoraSet | None = None
        if recipe.rank:
            self.lora = LoraSet.for_tower(width, range(1, max(recipe.deep) + 1), rank=recipe.rank, alpha=recipe.alpha)
        self.deep = PixelHead(recipe.deep, width)
        self.early = PixelHead(recipe.early, width)


class Windows:
    """The prepared native windows of one folder (see `prepare`)."""

    def __init__(self, folder: Path) -> None:
        self.pixels = np.load(folder / "windows.npy", mmap_mode="r")
        with (folder / "windows.csv").open(newline="") as handle:
            self.rows = list(csv.DictReader(handle))

    def window(self, index: int) -> NDArray[np.uint8]:
        """Window `index`, uint8 (s, s, 3)."""
        side = int(self.rows[index]["side"])
        return np.asarray(self.pixels[index, :side, :side])

    def balanced(self, split: str, label: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Indices of one class and their probabilities: a source counts by the square root of its pictures."""
        index = np.array([i for i, r in enumerate(self.rows) if r["split"] == split and int(r["label"]) == label])
        count = Counter(self.rows[i]["source"] for i in index)
        p = np.array([count[self.rows[i]["source"]] ** -0.5 for i in index])
        return index, p / p.sum()


def crop(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random crop of `CROP` px."""
    top, left = (int(rng.integers(n - CROP + 1)) for n in pixels.shape[:2])
    return pixels[top : top + CROP, left : left + CROP]


def batch(
    recipe: Recipe, windows: Windows, pairs: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None, step: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The crops of one step; depends on the seed and the step alone, so that a resumed run sees the same ones.

    Returns
    -------
    crops : uint8 array of (n, 224, 224, 3)
        Pairs come last: all their real members, then all their fake members.
    labels : float32 array of (n,)
    """
    rng = np.random.default_rng((recipe.seed, step))
    crops: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for label, count in ((0, recipe.reals), (1, recipe.fakes)):
        index, p = windows.balanced("fit", label)
        for i in rng.choice(index, size=count, p=p):
            picture = normalise_window(windows.window(int(i)), rng)
            if rng.random() < 0.4:
                picture = reencode(picture, int(rng.integers(40, 96)), int(rng.choice([0, 2])))
            picture = crop(picture, rng)
            crops.append(picture[:, ::-1] if rng.random() < 0.5 else picture)
            labels.append(label)
    if pairs is not None and recipe.pairs:
        reals, fakes = [], []
        for i in rng.integers(len(pairs[0]), size=recipe.pairs):
            real, fake = pair_members(pairs[0][i], pairs[1][i], rng)
            reals.append(real)
            fakes.append(fake)
        crops += reals + fakes
        labels += [0] * len(reals) + [1] * len(fakes)
    return np.stack(crops), np.array(labels, np.float32)


def pair_members(
    real: NDArray[np.uint8], fake: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Mix, replace by a twin, and augment both members with the same draws."""
    if rng.random() < 0.2:
        fake = pixel_mix(fake, real, rng)
    if rng.random() < 0.2:
        fake = frequency_mix(fake, real, rng)
    if rng.random() < 0.3:
        # Both members are smoothed alike, so that the trace is learned on smoothed pictures too; the twin as the
        # real side alone would make "sharp" a sign of a network.
        seed = int(rng.integers(2**32))
        real, fake = (twin(p, np.random.default_rng(seed)) for p in (real, fake))
    augment = draw_augmentation(rng, side=CROP)
    return augment(real), augment(fake)


def half_precision(tower: ClipTower) -> ClipTower:
    """Frozen blocks in bfloat16; the patch embedding stays in float32, where differences of 1/255 live."""
    tower.requires_grad_(False)
    tower.transformer.bfloat16()
    return tower


def forward(tower: ClipTower, run: Run, crops: NDArray[np.uint8], *, only: str | None = None) -> tuple[Tensor, Tensor]:
    """Logits of the deep and the early head, float32 (n,) each; with `only`, both are that head's."""
    device = tower.conv1.weight.device
    x = tower.embed(clip_input(torch.from_numpy(crops).to(device)))
    x = x.to(next(tower.transformer.parameters()).dtype)
    wanted = {b for name in ("deep", "early") if only in (None, name) for b in getattr(run, name).blocks}
    tokens = {}
    for number, block in enumerate(tower.transformer.resblocks[: max(wanted)], start=1):
        x = block(x, run.lora, f"{number}")
        if number in wanted:
            tokens[number] = x
    if only is not None:
        logit = (run.deep if only == "deep" else run.early)(tokens)[0]
        return logit, logit
    return run.deep(tokens)[0], run.early(tokens)[0]


def loss_of(recipe: Recipe, deep: Tensor, early: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The parts of the loss, already weighted."""
    parts = {
        "deep": F.binary_cross_entropy_with_logits(deep, labels),
        "early": F.binary_cross_entropy_with_logits(early, labels),
        "distil": recipe.distil * F.binary_cross_entropy_with_logits(early, torch.sigmoid(deep.detach())),
    }
    if recipe.pairs:
        n = recipe.pairs
        parts["ranking"] = recipe.ranking * sum(
            (F.softplus(-(x[-n:] - x[-2 * n : -n])).mean() for x in (deep, early)), start=torch.zeros(())
        )
    return parts


def loss_on_marked(recipe: Recipe, tower: ClipTower, run: Run, windows: MarkedWindows, step: int) -> dict[str, Tensor]:
    """The deep head's class loss on pictures with marked artifacts, and the alignment of its attention with them."""
    # A stream of its own, so that a recipe without alignment draws what it always drew.
    marked = windows.draw(recipe.align_pictures, np.random.default_rng((recipe.seed, step, 1)))
    device = tower.conv1.weight.device
    with recorded(tower) as attentions:
        logit, _ = forward(tower, run, marked.pixels, only="deep")
    labels, masks, known = (torch.from_numpy(a).to(device) for a in (marked.labels, marked.masks, marked.known))
    side = CROP // tower.patch
    alignment = Alignment(beta=recipe.align, benign=recipe.align_benign)
    return {
        "marked": F.binary_cross_entropy_with_logits(logit, labels),
        "align": alignment.loss(logit, attentions, masks, (side, side), known=known),
    }


def read_pairs(recipe: Recipe, folder: Path, out: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """The prepared pairs, past the gate; None where the recipe wants none.

    Raises
    ------
    LeakyPairsError
        A linear probe tells the members apart; nothing may be trained on them.
    """
    if not recipe.pairs:
        return None
    pairs = (np.load(folder / "pairs_real.npy", mmap_mode="r"), np.load(folder / "pairs_fake.npy", mmap_mode="r"))
    rng = np.random.default_rng(recipe.seed)
    every = range(0, len(pairs[0]), max(1, len(pairs[0]) // 400))
    members = [pair_members(pairs[0][i], pairs[1][i], rng) for i in every]
    gate = check_pairs([r for r, _ in members], [f for _, f in members])
    (out / "gate.json").write_text(json.dumps(gate))
    return pairs


def train(
    recipe: Recipe,
    *,
    folder: Path,
    out: Path,
    tower: ClipTower,
    start: Path | None = None,
    masks: Sequence[Path] = (),
) -> Path:
    """Train, or go on where an interrupted run stopped.

    Parameters
    ----------
    recipe : Recipe
    folder : Path
        What `prepare` wrote: windows, pairs.
    out : Path
        Receives `recipe.json`, `gate.json`, `curve.csv`, `checkpoint.pt` while it runs, and `run.safetensors`.
    tower : ClipTower
        The frozen tower in float32.
    start : Path, optional
        Heads to start from (written by `probe.fit_heads`).
    masks : sequence of Path
        Pictures with marked artifacts, for a recipe with `align`: X-AIGD's rows or what `tellsign forge` wrote.

    Returns
    -------
    Path
        `out / "run.safetensors"`: updates and heads, averaged over the last steps.

    Raises
    ------
    SettingError
        A recipe with `align` has no updates, or no pictures with marked artifacts.
    """
    marked: MarkedWindows | None = None
    if recipe.align:
        if not recipe.rank:
            raise SettingError("align", "0 where `rank` is 0: attention that is frozen cannot be drawn", recipe.align)
        marked = MarkedWindows.read(masks, CROP)
    tower = half_precision(tower)
    run = Run(recipe, tower.width)
    if start is not None:
        run.load_state_dict(load_file(start), strict=False)

    def losses(crops: NDArray[np.uint8], labels: Tensor, step: int) -> dict[str, Tensor]:
        parts = loss_of(recipe, *forward(tower, run, crops), labels)
        return parts if marked is None else parts | loss_on_marked(recipe, tower, run, marked, step)

    return _loop(recipe, run.to(tower.conv1.weight.device), losses, folder=folder, out=out)


def finetune_early(
    recipe: Recipe, *, folder: Path, run: Path, out: Path, teacher: ClipTower, student: ClipTower
) -> Path:
    """Adapt the early head and its updates to the four-bit trunk, with the finished tower model as the teacher.

    Parameters
    ----------
    recipe : Recipe
        `early`, `steps` and the rates are used; the deep parts of the run pass through unchanged.
    folder : Path
        What `prepare` wrote.
    run : Path
        Folder of the finished run.
    out : Path
        As for `train`.
    teacher : ClipTower
        The whole tower.
    student : ClipTower
        The four-bit trunk.
    """
    finished = load_file(run / "run.safetensors")
    teacher, student = half_precision(teacher), half_precision(student)
    taught = Run(recipe, teacher.width)
    taught.load_state_dict(finished)
    taught.requires_grad_(False)
    learning = Run(recipe, student.width)
    learning.load_state_dict(finished)

    def losses(crops: NDArray[np.uint8], labels: Tensor, _step: int) -> dict[str, Tensor]:
        with torch.no_grad():
            deep, _ = forward(teacher, taught, crops, only="deep")
        _, early = forward(student, learning, crops, only="early")
        parts = loss_of(recipe, deep, early, labels)
        del parts["deep"]
        return parts

    device = student.conv1.weight.device
    return _loop(recipe, learning.to(device), losses, folder=folder, out=out)


def _loop(
    recipe: Recipe,
    run: Run,
    losses: Callable[[NDArray[np.uint8], Tensor, int], dict[str, Tensor]],
    *,
    folder: Path,
    out: Path,
) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(json.dumps(attrs.asdict(recipe), indent=1))
    windows = Windows(folder)
    pairs = read_pairs(recipe, folder, out)
    device = run.early.weight.device
    average = {k: v.clone() for k, v in run.state_dict().items()}
    heads = [*run.deep.parameters(), *run.early.parameters()]
    optimiser = torch.optim.AdamW(
        [
            {"params": run.lora.parameters() if run.lora is not None else [], "lr": recipe.lora_rate},
            {"params": heads, "lr": recipe.head_rate},
        ],
        weight_decay=0.01,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(recipe, step))
    first = 0
    saved = out / "checkpoint.pt"
    if saved.is_file():
        state: dict[str, Any] = torch.load(saved, weights_only=True)
        run.load_state_dict(state["run"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        average, first = state["average"], state["step"]
        # Steps after the checkpoint are done again, and told once.
        kept = [line for line in (out / "curve.csv").read_text().splitlines()[1:] if int(line.split(",")[0]) < first]
        (out / "curve.csv").write_text("\n".join([",".join(("step", "seconds", *PARTS)), *kept]) + "\n")
    else:
        (out / "curve.csv").write_text(",".join(("step", "seconds", *PARTS)) + "\n")
    begun = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(batch, recipe, windows, pairs, first)
        for step in range(first, recipe.steps):
            crops, labels = coming.result()
            coming = pool.submit(batch, recipe, windows, pairs, step + 1)
            parts = losses(crops, torch.from_numpy(labels).to(device), step)
            optimiser.zero_grad()
            torch.stack(list(parts.values())).sum().backward()
            nn.utils.clip_grad_norm_(run.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            decay = min(recipe.average, (step + 1) / (step + 10))
            for k, v in run.state_dict().items():
                average[k].lerp_(v, 1 - decay)
            told = [f"{parts[k].item():.4f}" if k in parts else "" for k in PARTS]
            with (out / "curve.csv").open("a") as handle:
                handle.write(f"{step},{time.monotonic() - begun:.1f},{','.join(told)}\n")
            if (step + 1) % 25 == 0 or step + 1 == recipe.steps:
                state = {
                    "run": run.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "schedule": schedule.state_dict(),
                    "average": average,
                    "step": step + 1,
                }
                torch.save(state, saved.with_suffix(".part"))
                saved.with_suffix(".part").replace(saved)
    done = out / "run.safetensors"
    save_file({k: v.contiguous().cpu() for k, v in average.items()}, done)
    return done


def _rate(recipe: Recipe, step: int) -> float:
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    share = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.5 * (1 + float(np.cos(np.pi * min(1.0, share))))

"""Trains GAMMA on a forged folder: seeded, resumable, with early stopping and a curve."""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tellsign.alignment import Alignment, recorded
from tellsign.errors import SettingError
from tellsign.plugins.segmentation.encoders import STRIDES, build_encoder, load_imagenet, own_name
from tellsign.plugins.segmentation.losses import gamma_loss
from tellsign.plugins.segmentation.model import GammaModel
from tellsign.plugins.segmentation.residual import add_residual_stem

from .augment import augment, centre_crop, random_crop
from .data import UNTOUCHED, ForgedRow, Sample, balanced, hold_out, load, read_forged, without_tools
from .metrics import CUT, Counts
from .recipe import PARTS, Recipe

CURVE = ("epoch", "seconds", *PARTS, "accuracy", "f1_ai", "f1_manipulation", "score", "align")
LEAST = 0.002
"""Share of a crop that a region must cover for the crop to carry the picture's class."""


class Batch(NamedTuple):
    """What one step learns from."""

    pixels: NDArray[np.uint8]
    """(B, side, side, 3)."""
    cls: NDArray[np.float32]
    """(B, 1)."""
    ai: NDArray[np.uint8]
    """(B, 1, side, side)."""
    manipulation: NDArray[np.uint8]
    ai_counts: NDArray[np.float32]
    """(B,)."""
    manipulation_counts: NDArray[np.float32]


@attrs.define
class EarlyStopping:
    """Ends a run when nothing improves.

    Parameters
    ----------
    delta : float
        An improvement counts when it is larger than this.
    patience : int
        Calls without an improvement after which `update` says stop; 0 never does.
    """

    delta: float
    patience: int
    best: float = -np.inf
    waited: int = 0

    def update(self, value: float) -> bool:
        """Take note of a validation's value (higher is better) and say whether to stop."""
        if value > self.best + self.delta:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        return 0 < self.patience <= self.waited


def class_of(row: ForgedRow, sample: Sample, recipe: Recipe) -> float:
    """The class of a crop: that of the picture where the crop shows some of what gave the picture its class."""
    region = sample.ai
    cls = row.cls
    if row.kind in ("copymove", "splice") and not cls:
        cls, region = recipe.moved_cls[row.kind == "splice"], sample.manipulation
    return float(cls and (not row.ai_counts or region.mean() >= LEAST))


def stack(rows: Sequence[ForgedRow], samples: Sequence[Sample], recipe: Recipe) -> Batch:
    """Samples of one size as a batch."""
    return Batch(
        np.stack([s.pixels for s in samples]),
        np.array([[class_of(r, s, recipe)] for r, s in zip(rows, samples, strict=True)], np.float32),
        np.stack([s.ai for s in samples])[:, None],
        np.stack([s.manipulation for s in samples])[:, None],
        np.array([r.ai_counts for r in rows], np.float32),
        np.array([r.ma_counts for r in rows], np.float32),
    )


class Plan:
    """Which pictures train, which validate, and which are drawn in each epoch.

    Parameters
    ----------
    recipe : Recipe
    rows : sequence of ForgedRow

    Raises
    ------
    SettingError
        The recipe's choice of kinds leaves no pictures.
    """

    def __init__(self, recipe: Recipe, rows: Sequence[ForgedRow]) -> None:
        self.recipe = recipe
        self.open: Callable[[ForgedRow], Sample] = load
        """Opens a row's picture and masks."""
        kept = without_tools(rows, recipe.without)
        if recipe.kinds:
            kept = [r for r in kept if r.kind in (UNTOUCHED, *recipe.kinds)]
        self.fit, self.validation = hold_out(kept, recipe.validation)
        if not self.fit:
            raise SettingError("recipe", "kinds that the forged folder has", f"none left of {len(rows)} pictures")
        rng = np.random.default_rng(recipe.seed)
        if len(self.validation) > recipe.validation_crops:
            p = balanced(self.validation, recipe.authentic)
            chosen = rng.choice(len(self.validation), recipe.validation_crops, replace=False, p=p)
            self.validation = [self.validation[i] for i in sorted(chosen)]
        self.chances = balanced(self.fit, recipe.authentic, recipe.emphasis)

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return self.recipe.steps or max(1, round(self.recipe.share * len(self.fit) / self.recipe.batch))

    def batch(self, epoch: int, step: int) -> Batch:
        """The same for the same seed, epoch and step."""
        draws = np.random.default_rng((self.recipe.seed, epoch))
        size = self.steps * self.recipe.batch
        possible = int((self.chances > 0).sum())
        chosen = draws.choice(len(self.fit), size, replace=size > possible, p=self.chances)
        rng = np.random.default_rng((self.recipe.seed, epoch, step))
        rows = [self.fit[i] for i in chosen[step * self.recipe.batch : (step + 1) * self.recipe.batch]]
        return stack(rows, [self.crop(r, rng) for r in rows], self.recipe)

    def crop(self, row: ForgedRow, rng: np.random.Generator) -> Sample:
        """A square of a picture, changed as the recipe says."""
        recipe = self.recipe
        sample = random_crop(self.open(row), recipe.side, rng, native=recipe.native)
        return augment(sample, rng, strength=recipe.strength, lossless=recipe.lossless, qualities=recipe.qualities)

    def validation_batches(self) -> Iterator[Batch]:
        """Middles of the validation pictures, without augmentation."""
        for start in range(0, len(self.validation), self.recipe.batch):
            part = self.validation[start : start + self.recipe.batch]
            yield stack(part, [centre_crop(load(r), self.recipe.side) for r in part], self.recipe)


def tensors(batch: Batch, device: torch.device) -> tuple[Tensor, ...]:
    """Pixels as uint8 and the rest as float32, on the device."""
    pixels, *rest = (torch.from_numpy(a).to(device) for a in batch)
    return (pixels, *(a.float() for a in rest))


def validate(model: nn.Module, batches: Iterable[Batch], device: torch.device) -> dict[str, float]:
    """Accuracy of the class, pooled F1 of both masks, and the mean of the three ("score")."""
    right = total = 0
    counts = {"ai": Counts(), "manipulation": Counts()}
    model.eval()
    with torch.inference_mode():
        for batch in batches:
            pixels, cls, *_ = tensors(batch, device)
            out = model(pixels)
            right += int(((out.logit > 0).float() == cls).sum())
            total += len(cls)
            for name, known, truth in (
                ("ai", batch.ai_counts, batch.ai),
                ("manipulation", batch.manipulation_counts, batch.manipulation),
            ):
                marked = (getattr(out, name).sigmoid() >= CUT).cpu().numpy()
                use = known > 0
                counts[name].add(Counts.of(marked[use], truth[use] > 0))
    model.train()
    told = {"accuracy": right / max(1, total)}
    told |= {f"f1_{name}": c.f1 or 0.0 for name, c in counts.items()}
    return told | {"score": sum(told.values()) / 3}


def build(recipe: Recipe, imagenet: Path | None, *, initialise: bool = True) -> GammaModel:
    """A network at the start of a run.

    Parameters
    ----------
    recipe : Recipe
    imagenet : Path, optional
        See `encoders.load_imagenet`.
    initialise : bool
        Whether the encoder starts on ImageNet weights.
    """
    torch.manual_seed(recipe.seed)
    encoder = build_encoder(recipe.model.encoder)
    if initialise:
        load_imagenet(encoder, recipe.model.encoder, imagenet)
    if recipe.model.residual:
        add_residual_stem(encoder, recipe.model.residual)
    return GammaModel(recipe.model, encoder)


def train(
    recipe: Recipe,
    folders: Sequence[Path],
    out: Path,
    *,
    model: GammaModel | None = None,
    imagenet: Path | None = None,
    start: Path | None = None,
    traces: Path | None = None,
) -> Path:
    """Train, or go on where an interrupted run stopped.

    Parameters
    ----------
    recipe : Recipe
    folders : sequence of Path
        What `tellsign forge` wrote of pictures that plugins may learn from. The manifests are read anew before each
        epoch, so that a run can begin while forging goes on.
    out : Path
        Receives `recipe.json`, `curve.csv`, `checkpoint.pt` while it runs, and `run.safetensors`.
    model : GammaModel, optional
        The network to start from; by default `build(recipe, imagenet)`.
    imagenet : Path, optional
        The encoder's ImageNet weights; by default those on the hub.
    start : Path, optional
        Weights of an earlier run, of which all tensors that fit are taken over.
    traces : Path, optional
        Weights of the path on residuals, as `trace.pretrain` writes them; the recipe's `model.trace` must fit.

    Returns
    -------
    Path
        `out / "run.safetensors"`: the averaged weights of the best validation, or the last ones where the recipe
        does not stop early.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(recipe.dump())

    def plan() -> Plan:
        return Plan(recipe, [row for folder in folders for row in read_forged(folder)])

    net = model if model is not None else build(recipe, imagenet, initialise=not (out / "checkpoint.pt").is_file())
    if start is not None:
        own = net.state_dict()
        there = {own_name(k): v for k, v in load_file(start).items()}
        told = {k: v for k, v in there.items() if k in own and own[k].shape == v.shape}
        net.load_state_dict(told, strict=False)
    if traces is not None:
        if net.traces is None:
            raise SettingError("traces", "a recipe with model.trace", "one without")
        net.traces.load_state_dict(load_file(traces))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = net.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    return _Run(recipe, plan, net, out, device).go()


class _Run:
    """One training run's state."""

    def __init__(
        self, recipe: Recipe, plan: Callable[[], Plan], net: GammaModel, out: Path, device: torch.device
    ) -> None:
        self.recipe, self.net, self.out, self.device = recipe, net, out, device
        self.read_plan, self.plan = plan, plan()
        encoder = list(net.encoder.parameters())
        own = {id(p) for p in encoder}
        self.optimiser = torch.optim.AdamW(
            [
                {"params": encoder, "lr": recipe.rate * recipe.encoder_rate},
                {"params": [p for p in net.parameters() if id(p) not in own], "lr": recipe.rate},
            ],
            weight_decay=recipe.decay,
        )
        self.peaks = [group["lr"] for group in self.optimiser.param_groups]
        self.average = {k: v.detach().clone() for k, v in net.state_dict().items()}
        self.stopping = EarlyStopping(recipe.delta, recipe.patience)
        self.epoch = self.steps = 0
        self.seconds = 0.0
        self.weights = {k: w for k, w in recipe.loss_weights.items() if k in recipe.parts}
        # A network whose weights are not averaged yet is validated through a copy that holds the average.
        self.judge = GammaModel(recipe.model).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _rate(self, step: int) -> float:
        """The learning rate's share of its peak at a step of the current epoch."""
        if self.steps < self.recipe.warmup:
            return (self.steps + 1) / self.recipe.warmup
        if self.recipe.schedule == "constant":
            return 1.0
        done = (self.epoch + step / self.plan.steps) / self.recipe.epochs
        return max(0.01, 0.5 * (1 + float(np.cos(np.pi * done))))

    def go(self) -> Path:
        """All epochs that are left."""
        stop = self._resume()
        while self.epoch < self.recipe.epochs and not stop:
            began = time.monotonic()
            self.plan = self.read_plan()
            told: dict[str, float] = self._epoch()
            self.epoch += 1
            due = self.epoch % self.recipe.validate_every == 0 or self.epoch == self.recipe.epochs
            if self.plan.validation and due:
                self.judge.load_state_dict(self.average)
                told |= validate(self.judge, self.plan.validation_batches(), self.device)
                stop = self.stopping.update(told[self.recipe.monitor])
                if self.stopping.waited == 0:
                    self._write("best.safetensors")
            self.seconds += time.monotonic() - began
            self._tell(told)
            self._save(stop)
        done = self.out / "run.safetensors"
        best = self.out / "best.safetensors"
        if self.recipe.patience and best.is_file():
            shutil.copyfile(best, done)
        else:
            self._write("run.safetensors")
        return done

    def _epoch(self) -> dict[str, float]:
        """One epoch's steps; the mean of each part of the loss."""
        # Dropout draws the same whether the run came here in one go or was taken up.
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.epoch)
        sums: dict[str, float] = {}
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self.plan.batch, self.epoch, 0)
            for step in range(self.plan.steps):
                pixels, *targets = tensors(coming.result(), self.device)
                if step + 1 < self.plan.steps:
                    coming = pool.submit(self.plan.batch, self.epoch, step + 1)
                parts = self._loss(pixels, targets)
                self.optimiser.zero_grad()
                torch.stack(list(parts.values())).sum().backward()
                nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
                for group, peak in zip(self.optimiser.param_groups, self.peaks, strict=True):
                    group["lr"] = peak * self._rate(step)
                self.optimiser.step()
                self.steps += 1
                self._follow()
                for name, value in parts.items():
                    sums[name] = sums.get(name, 0.0) + value.item() / self.plan.steps
        return sums

    def _loss(self, pixels: Tensor, targets: Sequence[Tensor]) -> dict[str, Tensor]:
        """The parts of the loss, weighted."""
        if not self.recipe.align:
            return gamma_loss(self.net(pixels), *targets, weights=self.weights)
        with recorded(self.net) as attentions:
            out = self.net(pixels)
        ai, counts, side = targets[1][:, 0], targets[3], self.recipe.side // STRIDES[-1]
        # A picture that is generated as a whole has artifacts, and nobody knows where.
        known = (counts > 0) & (ai.mean(dim=(1, 2)) < 1)
        alignment = Alignment(beta=self.recipe.align, benign=self.recipe.align_benign)
        parts = gamma_loss(out, *targets, weights=self.weights)
        return parts | {"align": alignment.cross_loss(out.logit, attentions, ai, (side, side), known=known)}

    def _follow(self) -> None:
        decay = min(self.recipe.average, self.steps / (self.steps + 10))
        for name, value in self.net.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def _tell(self, told: dict[str, float]) -> None:
        values = {"epoch": f"{self.epoch}", "seconds": f"{self.seconds:.1f}"}
        values |= {k: f"{v:.4f}" for k, v in told.items()}
        with (self.out / "curve.csv").open("a", newline="") as handle:
            csv.DictWriter(handle, CURVE, restval="").writerow(values)

    def _write(self, name: str) -> None:
        state = {k: v.contiguous().cpu() for k, v in self.average.items()}
        save_file(state, self.out / name, metadata={"config": self.recipe.model.to_json()})

    def _save(self, stop: bool) -> None:
        state = {
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "epoch": self.epoch,
            "steps": self.steps,
            "seconds": self.seconds,
            "best": float(self.stopping.best),
            "waited": self.stopping.waited,
            "stop": stop,
        }
        part = self.out / "checkpoint.part"
        torch.save(state, part)
        part.replace(self.out / "checkpoint.pt")

    def _resume(self) -> bool:
        """Take up a checkpoint; whether the run had stopped early."""
        curve, saved = self.out / "curve.csv", self.out / "checkpoint.pt"
        if not saved.is_file():
            with curve.open("w", newline="") as handle:
                csv.writer(handle).writerow(CURVE)
            return False
        state: dict[str, Any] = torch.load(saved, weights_only=True, map_location=self.device)
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average = {own_name(k): v for k, v in state["average"].items()}
        self.epoch, self.steps = state["epoch"], state["steps"]
        self.seconds, self.stopping.best, self.stopping.waited = state["seconds"], state["best"], state["waited"]
        # Epochs after the checkpoint are done again, and told once.
        lines = curve.read_text().splitlines()
        kept = [line for line in lines[1:] if int(line.split(",")[0]) <= self.epoch]
        curve.write_text("\n".join([lines[0], *kept]) + "\n")
        return bool(state["stop"])

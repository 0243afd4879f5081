"""Trains the path on residuals alone, before it joins the network: many small crops, both masks, no encoder."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tellsign.plugins.segmentation.decoder import upsample
from tellsign.plugins.segmentation.losses import masked_bce
from tellsign.plugins.segmentation.model import MASKS, GammaOutput
from tellsign.plugins.segmentation.trace import Traces

from .data import read_forged
from .export import shifted
from .recipe import Recipe
from .train import Plan, tensors

WIDTH = 48
"""Channels of the path where the recipe names none."""
EVERY = 100
"""Steps from one line of the curve to the next."""


def pretrain(recipe: Recipe, folders: Sequence[Path], out: Path, steps: int, start: Path | None = None) -> Path:
    """Train the path for a number of steps, whose rate falls along a cosine.

    Parameters
    ----------
    recipe : Recipe
        Of which the crops, the sampler, the rate, `model.trace` and `model.width` count.
    folders : sequence of Path
        As for `train`.
    out : Path
        Receives `trace.safetensors`, the averaged weights, every `EVERY` steps and at the end; and `curve.csv`.
    steps : int
    start : Path, optional
        Weights of an earlier run.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(recipe.dump())
    torch.manual_seed(recipe.seed)
    plan = Plan(recipe, [row for folder in folders for row in read_forged(folder)])
    # Small crops are made faster than PNGs are decoded.
    plan.open = cache(plan.open)
    net = Traces(recipe.model.trace or WIDTH, recipe.model.width, MASKS)
    if start is not None:
        net.load_state_dict(load_file(start))
    net = net.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    average = {k: v.detach().clone() for k, v in net.state_dict().items()}
    began, sums = time.monotonic(), np.zeros(len(MASKS))
    with (out / "curve.csv").open("w", newline="") as handle:
        curve = csv.writer(handle)
        curve.writerow(("step", "seconds", *MASKS))
        for step, (pixels, _, *targets) in zip(range(steps), _batches(plan), strict=False):
            rate = min((step + 1) / recipe.warmup, max(0.02, 0.5 * (1 + float(np.cos(np.pi * step / steps)))))
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate * rate
            parts = _losses(net, pixels, targets)
            optimiser.zero_grad()
            torch.stack(parts).sum().backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            _follow(average, net, min(recipe.average, (step + 1) / (step + 11)))
            sums += [p.item() / EVERY for p in parts]
            if (step + 1) % EVERY == 0:
                curve.writerow((step + 1, f"{time.monotonic() - began:.1f}", *(f"{x:.4f}" for x in sums)))
                handle.flush()
                sums[:] = 0
                _write(average, out)
    return _write(average, out)


class TracesAlone(nn.Module):
    """The path as if it were the network: its masks, and a class that is always even."""

    def __init__(self, traces: Traces) -> None:
        super().__init__()
        self.traces = traces

    def forward(self, pictures: Tensor, *, coarse: bool = False) -> GammaOutput:
        """As the network's, but for the class."""
        masks = {name: mask for name, (_, mask) in self.traces(pictures).items()}
        if not coarse:
            masks = {name: upsample(x, (pictures.shape[1], pictures.shape[2])) for name, x in masks.items()}
        return GammaOutput(masks["ai"].new_zeros(len(pictures), 1), masks["ai"], masks["manipulation"])


def load_traces(recipe: Recipe, weights: Path, shift: Mapping[str, float] | None = None) -> TracesAlone:
    """What `pretrain` wrote, to be looked through alone; `shift` is added to the masks' log-odds."""
    net = Traces(recipe.model.trace, recipe.model.width, MASKS)
    net.load_state_dict(shifted(load_file(weights), shift or {}))
    return TracesAlone(net).to(memory_format=torch.channels_last).eval()


def _losses(net: Traces, pixels: Tensor, targets: Sequence[Tensor]) -> list[Tensor]:
    size = (pixels.shape[1], pixels.shape[2])
    told = net(pixels)
    truths, counts = targets[: len(MASKS)], targets[len(MASKS) :]
    return [
        masked_bce(upsample(told[name][1], size), truth, known)
        for name, truth, known in zip(MASKS, truths, counts, strict=True)
    ]


def _follow(average: dict[str, Tensor], net: nn.Module, decay: float) -> None:
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def _write(average: dict[str, Tensor], out: Path) -> Path:
    file = out / "trace.safetensors"
    save_file({k: v.contiguous() for k, v in average.items()}, file)
    return file


def _batches(plan: Plan) -> Iterator[tuple[Tensor, ...]]:
    device = torch.device("cpu")
    with ThreadPoolExecutor(1) as pool:
        epoch, step = 0, 0
        coming = pool.submit(plan.batch, 0, 0)
        while True:
            batch = coming.result()
            step += 1
            if step == plan.steps:
                epoch, step = epoch + 1, 0
            coming = pool.submit(plan.batch, epoch, step)
            yield tensors(batch, device)

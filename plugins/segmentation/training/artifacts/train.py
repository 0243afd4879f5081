"""Trains the network: seeded, resumable, with a curve."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from tellsign.artifacts.rows import MarkedPicture
from tellsign.errors import SettingError
from tellsign.plugins.segmentation.encoders import build_encoder, load_imagenet
from tellsign.plugins.segmentation.losses import masked_bce

from .crops import Batch, Crops, hold_out
from .model import ArtifactModel, ArtifactOutput
from .recipe import Recipe

CURVE = ("step", "seconds", "cls", "maps")
EVERY = 50
"""Steps between checkpoints."""
RUN = "run.safetensors"


def losses(out: ArtifactOutput, batch: Batch, recipe: Recipe) -> dict[str, Tensor]:
    """The weighted parts of the loss that the recipe's mode trains.

    The class's is binary cross-entropy over all pictures; that of the maps is its mean over pixels and the 8 maps of
    the pictures whose artifacts are marked. Real pictures have none, and count.
    """
    device = out.logit.device
    parts: dict[str, Tensor] = {}
    if recipe.learns_class:
        parts["cls"] = F.binary_cross_entropy_with_logits(out.logit, torch.from_numpy(batch.labels).to(device))
    if recipe.learns_maps:
        masks, known = torch.from_numpy(batch.masks).to(device).float(), torch.from_numpy(batch.known).to(device)
        parts["maps"] = recipe.maps * masked_bce(out.maps, masks, known)
    return parts


def build(recipe: Recipe, imagenet: Path | None, *, initialise: bool = True) -> ArtifactModel:
    """A network at the start of a run; see the segmentation plugin's `train.build`."""
    torch.manual_seed(recipe.seed)
    encoder = build_encoder(recipe.encoder)
    if initialise:
        load_imagenet(encoder, recipe.encoder, imagenet)
    return ArtifactModel(encoder, recipe.width)


def train(
    recipe: Recipe,
    pictures: Sequence[MarkedPicture],
    out: Path,
    *,
    model: ArtifactModel | None = None,
    imagenet: Path | None = None,
    start: Path | None = None,
) -> Path:
    """Train, or go on where an interrupted run stopped.

    Parameters
    ----------
    recipe : Recipe
    pictures : sequence of MarkedPicture
        Those of held-out groups are left out.
    out : Path
        Receives `recipe.json`, `curve.csv`, `checkpoint.pt` and `run.safetensors`.
    model : ArtifactModel, optional
        The network to start from; by default `build(recipe, imagenet)`.
    imagenet : Path, optional
        The encoder's ImageNet weights; by default those on the hub.
    start : Path, optional
        Weights of a run of mode "pad", which "transfer" needs: encoder and decoder are taken over, the class is new.

    Returns
    -------
    Path
        `out / "run.safetensors"`.

    Raises
    ------
    SettingError
        "transfer" without `start`, or another mode with it; see also `Crops`.
    """
    if (recipe.mode == "transfer") != (start is not None):
        raise SettingError("start", 'weights of a run of mode "pad" for "transfer", and none else', start)
    crops = Crops(recipe, hold_out(pictures, recipe.validation)[0])
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(json.dumps(attrs.asdict(recipe), indent=1))
    saved, curve = out / "checkpoint.pt", out / "curve.csv"
    fresh = start is None and not saved.is_file()
    net = model if model is not None else build(recipe, imagenet, initialise=fresh)
    if start is not None:
        state = {k: v for k, v in load_file(start).items() if not k.startswith("head.")}
        net.load_state_dict(state, strict=False)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = net.to(device).train()
    # In "transfer" nothing trains the decoder; weight decay would wear it out.
    learned = [p for n, p in net.named_parameters() if recipe.learns_maps or not n.startswith("decoder.")]
    optimiser = torch.optim.AdamW(learned, lr=recipe.rate, weight_decay=recipe.decay)
    first = _resume(net, optimiser, saved, curve, device)
    begun = time.monotonic()
    for step in range(first, recipe.steps):
        # Dropout draws the same whether the run came here in one go or was taken up.
        torch.manual_seed(recipe.seed * 1_000_003 + step)
        batch = crops.batch(step)
        parts = losses(net(torch.from_numpy(batch.pixels).to(device)), batch, recipe)
        optimiser.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * _rate(recipe, step)
        optimiser.step()
        told = [f"{parts[n].item():.4f}" if n in parts else "" for n in CURVE[2:]]
        with curve.open("a", newline="") as handle:
            csv.writer(handle).writerow([step, f"{time.monotonic() - begun:.1f}", *told])
        if (step + 1) % EVERY == 0 or step + 1 == recipe.steps:
            part = saved.with_suffix(".part")
            torch.save({"net": net.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}, part)
            part.replace(saved)
    save_file({k: v.contiguous().cpu() for k, v in net.state_dict().items()}, out / RUN)
    return out / RUN


def _resume(
    net: ArtifactModel, optimiser: torch.optim.Optimizer, saved: Path, curve: Path, device: torch.device
) -> int:
    """Take up a checkpoint; the step to go on with."""
    if not saved.is_file():
        with curve.open("w", newline="") as handle:
            csv.writer(handle).writerow(CURVE)
        return 0
    state: dict[str, Any] = torch.load(saved, weights_only=True, map_location=device)
    net.load_state_dict(state["net"])
    optimiser.load_state_dict(state["optimiser"])
    first = int(state["step"])
    # Steps after the checkpoint are done again, and told once.
    lines = curve.read_text().splitlines()
    kept = [line for line in lines[1:] if int(line.split(",")[0]) < first]
    curve.write_text("\n".join([lines[0], *kept]) + "\n")
    return first


def _rate(recipe: Recipe, step: int) -> float:
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    share = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return max(0.01, 0.5 * (1 + float(np.cos(np.pi * share))))


__all__ = ["CURVE", "RUN", "build", "losses", "train"]

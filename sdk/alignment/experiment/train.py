"""One training run, and what it does on the test."""

from __future__ import annotations

import math

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tellsign.alignment import (
    alignment_loss,
    attention_map,
    attention_mass,
    patch_shares,
    recorded,
    relevance,
    rollout,
)
from tellsign.alignment.rollout import normalised
from tellsign.evaluation.pixels import binarised, count

from .model import Reader
from .setting import Arm, Setting

OFF, ON = 0, 1


@attrs.frozen(kw_only=True, eq=False)
class Inputs:
    """Pictures as the network takes them."""

    tokens: Tensor
    """float32 (n, 2, 1 + patches, width); index 1 of the second axis has the cue."""
    region: NDArray[np.bool_]
    """(n, side, side)"""
    salient: NDArray[np.bool_]
    fake: NDArray[np.bool_]
    """(n,)"""

    @property
    def grid(self) -> int:
        """Patches a side."""
        return math.isqrt(self.tokens.shape[2] - 1)

    def take(self, of: NDArray[np.bool_]) -> Inputs:
        """The pictures for which `of` (n,) is true."""
        return Inputs(
            tokens=self.tokens[torch.from_numpy(of)],
            region=self.region[of],
            salient=self.salient[of],
            fake=self.fake[of],
        )

    def target(self, mask: str) -> Tensor:
        """Shares of the patches (n, patches) that `mask` covers; zeros for untouched pictures."""
        chosen = self.region if mask == "artifact" else self.salient & self.fake[:, None, None]
        return patch_shares(torch.from_numpy(chosen), (self.grid, self.grid))


@attrs.frozen(kw_only=True, eq=False)
class Answers:
    """Of one run on n test pictures, without ([:, 0]) and with ([:, 1]) the cue."""

    logit: NDArray[np.float32]
    """(n, 2)"""
    mass: NDArray[np.float32]
    """(n, 2): share of the attention map that lies on the region; NaN for untouched pictures."""
    hits: NDArray[np.int64]
    """(n, 2, 3): pixels found, accused, missed by the map, stretched and cut at .5; -1 for untouched pictures."""
    explained: NDArray[np.int64]
    """(n, 2, 3): likewise by relevance propagation, which no loss trains."""


def fit(inputs: Inputs, setting: Setting, arm: Arm, seed: int) -> Reader:
    """Train; the same seed gives every arm the same start, order of pictures and cues."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    model = Reader(inputs.tokens.shape[-1], width=setting.width, heads=setting.heads, depth=setting.depth)
    agrees = rng.random(len(inputs.fake)) < setting.agreement
    cue = torch.from_numpy(np.where(agrees, inputs.fake, ~inputs.fake).astype(np.int64))
    tokens = inputs.tokens[torch.arange(len(cue)), cue]
    label, target = torch.from_numpy(inputs.fake).float(), inputs.target(arm.mask)
    optimiser = torch.optim.AdamW(model.parameters(), lr=setting.rate, weight_decay=setting.decay)
    steps = setting.epochs * -(-len(cue) // setting.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, setting.rate, total_steps=steps, pct_start=0.1)
    for _ in range(setting.epochs):
        order = torch.from_numpy(rng.permutation(len(cue)))
        for chosen in order.split(setting.batch):
            loss = _loss(model, tokens[chosen], label[chosen], target[chosen], arm)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def _loss(model: Reader, tokens: Tensor, label: Tensor, target: Tensor, arm: Arm) -> Tensor:
    if arm.beta == 0:
        return F.binary_cross_entropy_with_logits(model(tokens), label)
    with recorded(model) as attentions:
        logit = model(tokens)
    seen = attention_map(logit, attentions, together=not arm.own)
    return F.binary_cross_entropy_with_logits(logit, label) + arm.beta * alignment_loss(seen, target, benign=arm.benign)


def answer(model: Reader, inputs: Inputs) -> Answers:
    """Logits and attention of the test pictures."""
    n, grid, side = len(inputs.fake), inputs.grid, inputs.region.shape[-1]
    logit, mass = np.zeros((n, 2), np.float32), np.full((n, 2), np.nan, np.float32)
    hits, explained = np.full((n, 2, 3), -1, np.int64), np.full((n, 2, 3), -1, np.int64)
    target = inputs.target("artifact")
    for cue in (OFF, ON):
        with recorded(model) as attentions:
            out = model(inputs.tokens[:, cue])
        gradients = torch.autograd.grad(out.sum(), attentions)
        maps = [
            normalised(rollout(attentions, gradients)[:, 0, 1:]).detach(),
            relevance(attentions, gradients)[:, 0, 1:].detach(),
        ]
        logit[:, cue] = out.detach().numpy()
        own = attention_mass(maps[0], target).numpy()
        for k in np.flatnonzero(inputs.fake):
            mass[k, cue] = own[k]
            for kept, seen in zip((hits, explained), maps, strict=True):
                flags = binarised(seen[k].reshape(grid, grid).numpy(), side, side, "min-max")
                kept[k, cue] = count(flags, inputs.region[k])
    return Answers(logit=logit, mass=mass, hits=hits, explained=explained)

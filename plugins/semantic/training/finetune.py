"""Fine-tunes the student's trunk, from where its head on the frozen trunk stands.

The student that ships was not fine-tuned: see docs/semantic.md.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Mapping
from pathlib import Path

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from tellsign.plugins.semantic.student import Student, folded

from .features import Squares
from .lite import Recipe, squares_of
from .prepare import VERSIONS

EVERY = 50
"""Steps between checkpoints."""


def save_checkpoint(state: Mapping[str, object], file: Path) -> None:
    """Write a checkpoint whole or not at all."""
    torch.save(dict(state), file.with_suffix(".part"))
    file.with_suffix(".part").replace(file)


def finetune(
    recipe: Recipe,
    squares: Squares,
    rows: NDArray[np.int64],
    weight: NDArray[np.float64],
    teacher: NDArray[np.float64],
    start: Mapping[str, Tensor],
    out: Path,
) -> Path:
    """Train, or go on where an interrupted run stopped.

    Parameters
    ----------
    recipe : Recipe
    squares : Squares
        Of `prepare`.
    rows : int64 array of (k,)
        Pictures to learn from: those of `fit`.
    weight : float64 array of (k,)
        How often each is drawn.
    teacher : float64 array of (k,)
        The tower model's log-odds of `rows`.
    start : mapping
        State to begin with (`from_published`).
    out : Path
        Receives `recipe.json`, `curve.csv`, `checkpoint.pt` and `student.safetensors`.

    Returns
    -------
    Path
        `out / "student.safetensors"`, in half precision, batch norms folded.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(json.dumps(attrs.asdict(recipe), indent=1))
    student = Student(folded=False).to(memory_format=torch.channels_last)
    student.load_state_dict(dict(start))
    steps = recipe.epochs * len(rows) // recipe.batch
    optimiser = torch.optim.AdamW(student.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=max(steps, 2), pct_start=0.15)
    average = {k: v.clone() for k, v in student.state_dict().items()}
    first, saved = 0, out / "checkpoint.pt"
    if saved.is_file():
        state = torch.load(saved, weights_only=True)
        student.load_state_dict(state["student"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        average, first = state["average"], int(state["step"])
    share = weight / weight.sum()
    begun = time.monotonic()
    with (out / "curve.csv").open("a" if first else "w", newline="") as handle:
        curve = csv.writer(handle)
        if not first:
            curve.writerow(("step", "seconds", "loss"))
        student.train()
        for step in range(first, steps):
            rng = np.random.default_rng((recipe.seed, step))
            drawn = rng.choice(len(rows), size=recipe.batch, p=share)
            which = rng.choice([VERSIONS.index(v) for v in recipe.versions], size=recipe.batch)
            x = squares_of(squares, rows[drawn], which)
            mirrored = torch.from_numpy(rng.random(recipe.batch) < 0.5)
            x = torch.where(mirrored[:, None, None, None], x.flip(2), x)
            soft = torch.sigmoid(torch.from_numpy(teacher[drawn]).float())
            hard = torch.from_numpy(squares.label[rows[drawn]]).float()
            target = recipe.labels * hard + (1 - recipe.labels) * soft
            loss = F.binary_cross_entropy_with_logits(student(x), target)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            decay = min(0.99, (step + 1) / (step + 10))
            for k, v in student.state_dict().items():
                average[k] = torch.lerp(average[k], v, 1 - decay) if v.is_floating_point() else v.clone()
            curve.writerow((step, f"{time.monotonic() - begun:.1f}", f"{loss.item():.4f}"))
            handle.flush()
            if (step + 1) % EVERY == 0:
                state = {
                    "student": student.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "schedule": schedule.state_dict(),
                    "average": average,
                    "step": step + 1,
                }
                save_checkpoint(state, saved)
    file = out / "student.safetensors"
    save_file({k: v.half().contiguous() for k, v in folded(average).items()}, file)
    return file

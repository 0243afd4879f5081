"""Teaches the judge by preference pairs: trl's DPO on low-rank updates of the language model."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch

from tellsign.plugins.semantic.judge.inputs import render
from tellsign.towers.vlm import Vlm, load_vlm
from tellsign.towers.vlm_adapter import check_extra
from tellsign.towers.vlm_training import Run, VlmRecipe

from .loss import BETA
from .pairs import PreferencePair, read_pairs

if TYPE_CHECKING:
    from datasets import Dataset


@attrs.frozen(kw_only=True)
class DpoRecipe(VlmRecipe):
    """Settings of a run.

    Rank, alpha, rate, beta and epochs are what is reported of AlignGemini; targets and dropout are those of the
    third-party reading that reports them; the rest is ours.
    """

    dropout: float = 0.05
    beta: float = BETA
    batch: int = 1
    """Pairs per forward pass; a pair is two answers."""
    accumulate: int = 8
    """Forward passes per update."""


def preference_rows(vlm: Vlm, folder: Path, pairs: Sequence[PreferencePair]) -> Dataset:
    """The pairs as trl takes them, with the chat template applied by the judge's own code.

    trl would apply the template itself; then nothing would hold the prompt in training to the prompt in use.

    Parameters
    ----------
    vlm : Vlm
    folder : Path
        With the pictures.
    pairs : sequence of PreferencePair
    """
    from datasets import Dataset, Image, List

    end = vlm.processor.tokenizer.eos_token
    rows = {
        "images": [[str(folder / p.image)] for p in pairs],
        "prompt": [render(vlm.processor, answer="")] * len(pairs),
        "chosen": [p.chosen + end for p in pairs],
        "rejected": [p.rejected + end for p in pairs],
    }
    return Dataset.from_dict(rows).cast_column("images", List(Image()))


def make_trainer(vlm: Vlm, folder: Path, pairs: Sequence[PreferencePair], recipe: DpoRecipe, out: Path) -> Any:
    """Set up trl's trainer without starting it.

    Parameters
    ----------
    vlm : Vlm
        Its model is changed.
    folder, pairs
        See `preference_rows`.
    recipe : DpoRecipe
    out : Path
        Receives the run's state.

    Returns
    -------
    trl.DPOTrainer
    """
    check_extra()
    trl: Any = importlib.import_module("trl")
    config = trl.DPOConfig(
        **recipe.arguments(out),
        beta=recipe.beta,
        per_device_train_batch_size=recipe.batch,
        gradient_accumulation_steps=recipe.accumulate,
        # trl cuts at 1024 tokens: pictures alone may be as long, and what is cut then is the answer.
        max_length=None,
        # It would switch off the updates' own dropout too; the model itself has none.
        disable_dropout=False,
    )
    return trl.DPOTrainer(
        model=vlm.model,
        args=config,
        train_dataset=preference_rows(vlm, folder, pairs),
        processing_class=vlm.processor,
        peft_config=recipe.updates(dropout=recipe.dropout),
    )


def train(
    vlm: str | Path, folder: Path, out: Path, recipe: DpoRecipe, *, download: bool = False, force: bool = False
) -> Path:
    """Train, or go on with a run that was cut off.

    Parameters
    ----------
    vlm : str or Path
        The model to start from, as `load_vlm` takes it.
    folder : Path
        Pairs, as `read_pairs` takes them.
    out : Path
        Receives `adapter`, `recipe.json`, `log.json` and the run's state.
    recipe : DpoRecipe
    download, force : bool
        See `load_vlm` and `read_pairs`.

    Returns
    -------
    Path
        The adapter's folder; `merge_adapter` makes a model of it that the judge loads.

    Raises
    ------
    MissingExtraError
        trl or peft is not installed.
    """
    check_extra()
    pairs = read_pairs(folder, force=force)
    run = Run.at(out, recipe, {"vlm": str(vlm), "pairs": len(pairs)}, data="pairs")
    run.begin()
    judge = load_vlm(vlm, download=download, stored_dtype=torch.cuda.is_available())
    return run.finish(make_trainer(judge, folder, pairs, recipe, out))

"""Teaches the judge by preference pairs: trl's DPO on low-rank updates of the language model."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch

from tellsign.errors import SettingError
from tellsign.plugins.semantic.judge.inputs import render
from tellsign.towers.vlm import Vlm, load_vlm
from tellsign.towers.vlm_adapter import LANGUAGE_ATTENTION, check_extra

from .loss import BETA
from .pairs import PreferencePair, read_pairs

if TYPE_CHECKING:
    from datasets import Dataset

ADAPTER = "adapter"
"""Name of the folder, in a run's folder, that receives the updates."""


@attrs.frozen(kw_only=True)
class DpoRecipe:
    """Settings of a run.

    Rank, alpha, rate, beta and epochs are what is reported of AlignGemini; targets and dropout are those of the
    third-party reading that reports them; the rest is ours.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    rate: float = 1e-6
    beta: float = BETA
    epochs: float = 1.0
    batch: int = 1
    """Pairs per forward pass; a pair is two answers."""
    accumulate: int = 8
    """Forward passes per update."""
    save_every: int = 100
    """Updates between two saved states, from which a run that was cut off goes on."""
    checkpointing: bool = True
    """Compute activations twice rather than keep them: a quarter more time, a fraction of the memory."""
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> DpoRecipe:
        """A recipe from JSON with what differs from the default one.

        Raises
        ------
        SettingError
            No JSON object, or a key that is none of the recipe's.
        """
        names = [a.name for a in attrs.fields(cls)]
        try:
            given = json.loads(text)
            return cls(**given)
        except (ValueError, TypeError) as error:
            raise SettingError("recipe", f"a JSON object with some of {', '.join(names)}", text) from error


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
    peft: Any = importlib.import_module("peft")
    trl: Any = importlib.import_module("trl")
    accelerated = torch.cuda.is_available()
    config = trl.DPOConfig(
        output_dir=str(out / "state"),
        beta=recipe.beta,
        learning_rate=recipe.rate,
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch,
        gradient_accumulation_steps=recipe.accumulate,
        gradient_checkpointing=recipe.checkpointing,
        bf16=accelerated,
        use_cpu=not accelerated,
        # trl cuts at 1024 tokens: pictures alone may be as long, and what is cut then is the answer.
        max_length=None,
        # It would switch off the updates' own dropout too; the model itself has none.
        disable_dropout=False,
        save_steps=recipe.save_every,
        save_total_limit=1,
        logging_steps=1,
        report_to="none",
        seed=recipe.seed,
        dataloader_pin_memory=accelerated,
    )
    updates = peft.LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=LANGUAGE_ATTENTION,
        task_type="CAUSAL_LM",
    )
    return trl.DPOTrainer(
        model=vlm.model,
        args=config,
        train_dataset=preference_rows(vlm, folder, pairs),
        processing_class=vlm.processor,
        peft_config=updates,
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
    out.mkdir(parents=True, exist_ok=True)
    told = json.dumps(attrs.asdict(recipe) | {"vlm": str(vlm), "pairs": len(pairs)}, indent=1)
    file = out / "recipe.json"
    if file.is_file() and file.read_text(encoding="utf-8") != told:
        raise SettingError("out", "a new folder, or that of a run with the same recipe, model and pairs", str(out))
    file.write_text(told, encoding="utf-8")
    judge = load_vlm(vlm, download=download, stored_dtype=torch.cuda.is_available())
    trainer = make_trainer(judge, folder, pairs, recipe, out)
    trainer.train(resume_from_checkpoint=any((out / "state").glob("checkpoint-*")))
    # Not trainer.save_model, which pickles its own arguments beside the weights.
    trainer.model.save_pretrained(str(out / ADAPTER))
    (out / "log.json").write_text(json.dumps(trainer.state.log_history, indent=1), encoding="utf-8")
    return out / ADAPTER

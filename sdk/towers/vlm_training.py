"""What trl's trainers on a vision-language model have in common: recipe, folder of a run, arguments, commands.

The low-rank updates go where `vlm_adapter` says. A plugin brings its own data, its own loss and trl's trainer for it.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import attrs
import numpy as np
import torch
import typer
from numpy.typing import NDArray

from tellsign.decoding import decode
from tellsign.errors import SettingError, TellsignError
from tellsign.plugin import UnavailableError

from .vlm_adapter import LANGUAGE_ATTENTION, merge_adapter

ADAPTER = "adapter"
"""Name of the folder, in a run's folder, that receives the updates."""

Model = Annotated[str, typer.Option("--vlm", help="Folder of a Qwen2.5-VL model, or its repository on the hub.")]
Download = Annotated[bool, typer.Option(help="Fetch the repository when it is not on this machine.")]


@attrs.frozen(kw_only=True)
class VlmRecipe:
    """Settings of a run that every way of training has."""

    rate: float = 1e-6
    rank: int = 16
    alpha: int = 32
    epochs: float = 1.0
    save_every: int = 100
    """Updates between two saved states, from which a run that was cut off goes on."""
    checkpointing: bool = True
    """Compute activations twice rather than keep them: a quarter more time, a fraction of the memory."""
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """A recipe from JSON with what differs from the default one.

        Raises
        ------
        SettingError
            No JSON object, or a key that is none of the recipe's.
        """
        names = [a.name for a in attrs.fields(cls)]
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise SettingError("recipe", f"a JSON object with some of {', '.join(names)}", text) from error

    def arguments(self, out: Path) -> dict[str, Any]:
        """What trl's configurations take of it; `out` receives the run's state."""
        accelerated = torch.cuda.is_available()
        return {
            "output_dir": str(out / "state"),
            "learning_rate": self.rate,
            "num_train_epochs": self.epochs,
            "gradient_checkpointing": self.checkpointing,
            "bf16": accelerated,
            "use_cpu": not accelerated,
            "save_steps": self.save_every,
            "save_total_limit": 1,
            "logging_steps": 1,
            "report_to": "none",
            "seed": self.seed,
            "dataloader_pin_memory": accelerated,
        }

    def updates(self, *, dropout: float = 0.0) -> Any:
        """The low-rank updates of the language model's attention, as peft's LoraConfig."""
        peft: Any = importlib.import_module("peft")
        return peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=dropout,
            target_modules=LANGUAGE_ATTENTION,
            task_type="CAUSAL_LM",
        )


@attrs.frozen(kw_only=True)
class Run:
    """A folder that belongs to one recipe, model and data."""

    folder: Path
    told: str
    """What recipe.json says."""

    @classmethod
    def at(cls, folder: Path, recipe: VlmRecipe, facts: Mapping[str, object], *, data: str) -> Run:
        """A new run, or one that goes on.

        Parameters
        ----------
        folder : Path
        recipe : VlmRecipe
        facts : mapping
            What else must be the same for a run to go on, JSON-able.
        data : str
            What the data are called in the error.

        Raises
        ------
        SettingError
            The folder holds another run.
        """
        folder.mkdir(parents=True, exist_ok=True)
        told = json.dumps(attrs.asdict(recipe) | dict(facts), indent=1)
        file = folder / "recipe.json"
        if file.is_file() and file.read_text(encoding="utf-8") != told:
            raise SettingError(
                "out", f"a new folder, or that of a run with the same recipe, model and {data}", str(folder)
            )
        return cls(folder=folder, told=told)

    def begin(self) -> None:
        """Take the folder: whoever comes with something else is refused from now on."""
        (self.folder / "recipe.json").write_text(self.told, encoding="utf-8")

    def finish(self, trainer: Any) -> Path:
        """Train from where the run stands; the folder that received the updates."""
        trainer.train(resume_from_checkpoint=any((self.folder / "state").glob("checkpoint-*")))
        # Not trainer.save_model, which pickles its own arguments beside the weights.
        trainer.model.save_pretrained(str(self.folder / ADAPTER))
        (self.folder / "log.json").write_text(json.dumps(trainer.state.log_history, indent=1), encoding="utf-8")
        return self.folder / ADAPTER


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """A picture as detection decodes it, uint8 (H, W, 3)."""
    return decode(path).pixels


def merge(
    vlm: Model,
    adapter: Annotated[Path, typer.Option(help="What `train` wrote.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    download: Download = False,
) -> None:
    """Write model and updates as one folder."""
    typer.echo(merge_adapter(vlm, adapter, out, download=download))


def run_commands(app: typer.Typer) -> None:
    """Run a command; errors that are raised on purpose become one line."""
    try:
        app()
    except (TellsignError, UnavailableError) as error:
        typer.echo(f"tellsign: {error}", err=True)
        raise SystemExit(1) from None


__all__ = ["ADAPTER", "Download", "Model", "Run", "VlmRecipe", "merge", "read_pixels", "run_commands"]

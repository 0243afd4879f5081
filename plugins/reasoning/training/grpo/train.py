"""Trains a vision-language model by rewards: trl's GRPO on low-rank updates of the language model."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tellsign.data.labelled import LabelledPicture
from tellsign.errors import DecodeError, SettingError
from tellsign.schemas import Picture
from tellsign.towers.vlm import Vlm, load_vlm
from tellsign.towers.vlm_adapter import check_extra
from tellsign.towers.vlm_training import Run, VlmRecipe
from tellsign.views import semantic_view

from .loss import BETA, EPSILON
from .prompt import messages
from .rewards import detection_reward, format_reward

if TYPE_CHECKING:
    from datasets import Dataset

VIEWS = "views"
"""Name of the folder, in a run's folder, with what the model is shown."""


@attrs.frozen(kw_only=True)
class GrpoRecipe(VlmRecipe):
    """Settings of a run.

    Rate and beta are ReAlign's. It does not give group size, clipping, temperature, length, updates or batch: those are
    ours, as is training low-rank updates rather than all weights.
    """

    beta: float = BETA
    epsilon: float = EPSILON
    group: int = 8
    """Answers per picture."""
    temperature: float = 1.0
    new_tokens: int = 512
    """Of an answer, at most."""
    pictures: int = 1
    """Pictures per forward pass; each has `group` answers."""
    accumulate: int = 4
    """Forward passes per update."""


def make_views(
    pictures: Sequence[LabelledPicture], out: Path, *, read: Callable[[Path], NDArray[np.uint8]]
) -> tuple[list[LabelledPicture], list[str]]:
    """Write what the reasoning plugin is shown of each picture; what is there is kept.

    Parameters
    ----------
    pictures : sequence of LabelledPicture
    out : Path
    read : callable
        Path to pixels, uint8 (H, W, 3).

    Returns
    -------
    views : list of LabelledPicture
        With the views' paths.
    unreadable : list of str
        What could not be read, with the reason.
    """
    out.mkdir(parents=True, exist_ok=True)
    views, unreadable = [], []
    for number, picture in enumerate(pictures):
        file = out / f"{number:06d}.png"
        try:
            if not file.is_file():
                view = semantic_view(Picture(pixels=read(picture.path)), key="training")
                part = file.with_suffix(".part")
                Image.fromarray(view.image).save(part, "PNG")
                part.replace(file)  # a picture that was cut off must not be taken for whole
        except DecodeError as error:
            unreadable.append(f"{picture.path}: {error.message}")
        else:
            views.append(attrs.evolve(picture, path=file))
    return views, unreadable


def prompt_rows(views: Sequence[LabelledPicture]) -> Dataset:
    """The views as trl takes them: picture, conversation, and the label for the reward."""
    from datasets import Dataset
    from datasets import Image as ImageFeature

    rows = {
        "prompt": [messages()] * len(views),
        "image": [str(v.path) for v in views],
        "fake": [v.fake for v in views],
    }
    return Dataset.from_dict(rows).cast_column("image", ImageFeature())


def make_trainer(vlm: Vlm, views: Sequence[LabelledPicture], recipe: GrpoRecipe, out: Path) -> Any:
    """Set up trl's trainer without starting it.

    Parameters
    ----------
    vlm : Vlm
        Its model is changed.
    views : sequence of LabelledPicture
        See `make_views`.
    recipe : GrpoRecipe
    out : Path
        Receives the run's state.

    Returns
    -------
    trl.GRPOTrainer
    """
    check_extra()
    trl: Any = importlib.import_module("trl")
    config = trl.GRPOConfig(
        **recipe.arguments(out),
        # trl's own defaults are another algorithm by now: no reference, and a loss averaged over all tokens.
        beta=recipe.beta,
        loss_type="grpo",
        scale_rewards="group",
        epsilon=recipe.epsilon,
        num_generations=recipe.group,
        temperature=recipe.temperature,
        top_p=1.0,
        top_k=0,
        max_completion_length=recipe.new_tokens,
        per_device_train_batch_size=recipe.pictures * recipe.group,
        gradient_accumulation_steps=recipe.accumulate,
    )
    return trl.GRPOTrainer(
        model=vlm.model,
        reward_funcs=[detection_reward, format_reward],
        args=config,
        train_dataset=prompt_rows(views),
        processing_class=vlm.processor,
        peft_config=recipe.updates(),
    )


def train(
    vlm: str | Path,
    pictures: Sequence[LabelledPicture],
    out: Path,
    recipe: GrpoRecipe,
    *,
    read: Callable[[Path], NDArray[np.uint8]],
    download: bool = False,
) -> list[str]:
    """Train, or go on with a run that was cut off.

    Parameters
    ----------
    vlm : str or Path
        The model to start from, as `tellsign.towers.vlm.load_vlm` takes it.
    pictures : sequence of LabelledPicture
        Of both labels.
    out : Path
        Receives `adapter`, `recipe.json`, `log.json`, the views and the run's state.
    recipe : GrpoRecipe
    read : callable
        Path to pixels, uint8 (H, W, 3).
    download : bool
        See `load_vlm`.

    Returns
    -------
    list of str
        Pictures that could not be read, with the reason.

    Raises
    ------
    MissingExtraError
        trl or peft is not installed.
    SettingError
        The pictures have one label, or `out` holds another run.
    """
    check_extra()
    run = Run.at(out, recipe, {"vlm": str(vlm), "given": len(pictures)}, data="pictures")
    views, unreadable = make_views(pictures, out / VIEWS, read=read)
    if len({v.fake for v in views}) < 2:
        got = f"{len(views)} that can be read, of one label" if views else "none that can be read"
        raise SettingError("pictures", "real pictures and fake ones", got)
    run.begin()
    loaded = load_vlm(vlm, download=download, stored_dtype=torch.cuda.is_available())
    run.finish(make_trainer(loaded, views, recipe, out))
    return unreadable

"""A classifier of the hub behind the interface of a detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tellsign.errors import SettingError
from tellsign.plugin import DetectorPlugin, UnavailableError
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import Declaration, Evidence, PixelView, SemanticView, View

from .labels import log_odds, split

SETTINGS = ("model", "revision", "suspicious", "download")


class Classifier(DetectorPlugin):
    """Scores pictures with a classifier; whole ones or native crops, as the manifest's task has it.

    Settings
    --------
    model : path or str
        A folder, or a name on the hub.
    revision : str
        Branch, tag or commit on the hub.
    suspicious : str or list of str
        Labels that mean AI.
    download : bool
        Fetch what is missing; default no.
    """

    def __init__(self, declaration: Declaration, settings: Mapping[str, object]) -> None:
        super().__init__(declaration, settings)
        for name in settings:
            if name not in SETTINGS:
                raise SettingError(f"settings of {declaration.name}", ", ".join(SETTINGS), name)
        model, revision = settings.get("model"), settings.get("revision")
        if model is not None and not (isinstance(model, str | Path) and str(model)):
            raise SettingError("model", "a folder, or a name on the hub", model)
        if revision is not None and not isinstance(revision, str):
            raise SettingError("revision", "a branch, a tag or a commit", revision)
        download = settings.get("download", False)
        if not isinstance(download, bool):
            raise SettingError("download", "true or false", download)
        self._source = None if model is None else str(model)
        self._revision, self._download = revision, download
        self._suspicious = _labels(settings.get("suspicious"))
        self._processor: Any = None
        self._sides: tuple[list[int], list[int]] = ([], [])
        self._spoken = self.model

    def setup(self, runtime: DeviceRuntime) -> None:
        """Read the model's configuration, which says what it is called and which labels it has."""
        if self._source is None:
            name = self.declaration.name
            raise UnavailableError(f"no model is set: --set {name}.model=FOLDER_OR_NAME")
        from transformers import AutoConfig

        config = self._read(AutoConfig, "config.json")
        try:
            self._sides = split(dict(config.id2label), self._suspicious)
        except ValueError as error:
            raise UnavailableError(f"{self._source}: {error}") from error
        commit = getattr(config, "_commit_hash", None)
        self._spoken = (
            f"{Path(self._source).name if Path(self._source).is_dir() else self._source} {commit or ''}".strip()
        )

    def detect(self, views: Sequence[View], runtime: DeviceRuntime) -> Sequence[Sequence[Evidence]]:
        """One score for each picture."""
        shown = [_images(view) for view in views]
        images = [image for some in shown for image in some]
        values = self._log_odds(images, runtime) if images else []
        answers: list[list[Evidence]] = []
        for some in shown:
            mine, values = values[: len(some)], values[len(some) :]
            answers.append([self._score(mine)] if mine else [self.not_applicable("the picture is too small")])
        return answers

    def _score(self, values: Sequence[float]) -> Evidence:
        logit = float(np.mean(values))
        return self.score("ai", 1 / (1 + np.exp(-np.clip(logit, -500, 500))), logit=logit, model=self._spoken)

    def _log_odds(self, images: Sequence[NDArray[np.uint8]], runtime: DeviceRuntime) -> list[float]:
        import torch

        out: list[float] = []
        with runtime.use(f"hf:{self._source}@{self._revision}", self._build) as model, torch.inference_mode():
            if self._processor is None:  # the model was built by another plugin
                self._processor = self._read_processor()
            tensors = [self._tensor(image) for image in images]
            # Pictures of one size go through together; most processors make all of one size.
            for shape in dict.fromkeys(t.shape for t in tensors):
                alike = [i for i, t in enumerate(tensors) if t.shape == shape]
                for start in range(0, len(alike), runtime.batch_size):
                    some = alike[start : start + runtime.batch_size]
                    batch = torch.stack([tensors[i] for i in some]).to(runtime.device)
                    logits = model(pixel_values=batch).logits.float().cpu().numpy()
                    out += list(zip(some, (log_odds(row, *self._sides) for row in logits), strict=True))  # type: ignore[arg-type]
        return [value for _, value in sorted(out)]  # type: ignore[misc]

    def _tensor(self, image: NDArray[np.uint8]) -> Any:
        from PIL import Image

        return self._processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"][0]

    def _build(self) -> Any:
        from transformers import AutoModelForImageClassification

        self._processor = self._read_processor()
        return self._read(AutoModelForImageClassification, "model.safetensors", use_safetensors=True)

    def _read_processor(self) -> Any:
        from transformers import AutoImageProcessor

        return self._read(AutoImageProcessor, "preprocessor_config.json")

    def _read(self, auto: Any, what: str, **options: Any) -> Any:
        """Load a part of the model, from this machine unless a setting allows more; never foreign code."""
        if self._revision is not None:
            options["revision"] = self._revision
        try:
            return auto.from_pretrained(
                self._source, local_files_only=not self._download, trust_remote_code=False, **options
            )
        except (OSError, ValueError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            cure = "" if self._download else f"; --set {self.declaration.name}.download=true fetches it from the hub"
            if what == "model.safetensors":
                cure += "; only safetensors are read, never pickles"
            raise UnavailableError(f"{what} of {self._source} cannot be read ({first[:200]}){cure}") from error


def _images(view: View) -> Sequence[NDArray[np.uint8]]:
    if isinstance(view, PixelView):
        return view.crops
    if isinstance(view, SemanticView):
        return (view.image,)
    raise TypeError(f"a classifier takes SemanticView or PixelView, got {type(view).__name__}")


def _labels(given: object) -> list[str] | None:
    if given is None:
        return None
    labels = [part.strip() for part in given.split(",")] if isinstance(given, str) else given
    if not isinstance(labels, list) or not labels or not all(isinstance(x, str) and x for x in labels):
        raise SettingError("suspicious", "labels, comma-separated or as a list", given)
    return labels


__all__ = ["Classifier"]

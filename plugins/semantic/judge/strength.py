"""The vision-language judge as one of the models behind the semantic plugin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tellsign.errors import SettingError, TellsignError
from tellsign.plugin import UnavailableError
from tellsign.plugins.semantic.strengths import Answer, Strength
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import SemanticView
from tellsign.towers.vlm import Vlm, folder_of, load_vlm, name_of, source_of

from .inputs import MOST_ASPECT, too_narrow
from .judge import LEAST_MASS, Judgement, judge


class VlmJudge(Strength):
    """A vision-language model of Qwen2.5-VL's class.

    Parameters
    ----------
    vlm : str or Path
        A folder with the model, or a repository of the model hub.
    download : bool
        Fetch the repository when it is not on this machine.
    rationale : bool
        Give reasons in words as well; they take most of the time.
    """

    name = "vlm"

    def __init__(self, vlm: str | Path, *, download: bool = False, rationale: bool = True) -> None:
        if not isinstance(vlm, str | Path):
            raise SettingError("vlm", "a folder, or a repository such as Qwen/Qwen2.5-VL-7B-Instruct", vlm)
        source_of(vlm)  # what can be no model at all is told before any picture is read
        self.vlm, self.download, self.rationale = vlm, download, rationale

    @property
    def version(self) -> str:
        """The folder's name, or the repository and its commit where it is on this machine."""
        try:
            return name_of(self.vlm, folder_of(self.vlm))
        except (TellsignError, UnavailableError):
            return f"vlm {self.vlm}"

    def answer(self, views: Sequence[SemanticView], runtime: DeviceRuntime) -> Sequence[Answer]:
        """Score each view and say why; a view without a verdict has no logit."""
        narrow = [too_narrow(v.image.shape[1], v.image.shape[0]) for v in views]
        images = [v.image for v, no in zip(views, narrow, strict=True) if not no]
        said: list[Judgement] = []
        if images:
            with runtime.use(f"vlm:{self.vlm}", lambda: self._build(runtime)) as vlm:
                assert isinstance(vlm, Vlm)
                said = judge(vlm, images, rationale=self.rationale, batch_size=runtime.batch_size)
        spoken = iter(said)
        return [_narrow() if no else _answer(next(spoken)) for no in narrow]

    def _build(self, runtime: DeviceRuntime) -> Vlm:
        return load_vlm(self.vlm, download=self.download, stored_dtype=runtime.device.type != "cpu")


def _answer(said: Judgement) -> Answer:
    if said.logit is None:
        least = f"{said.mass:.1e} of its probability is on real or fake, {LEAST_MASS:g} is asked for"
        return Answer(logit=None, why_not=f"the model gave no verdict that can be read ({least})")
    return Answer(logit=said.logit, rationale=said.rationale)


def _narrow() -> Answer:
    return Answer(logit=None, why_not=f"a strip whose sides differ by more than {MOST_ASPECT} times is not taken")

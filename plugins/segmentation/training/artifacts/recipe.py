"""Everything that decides what a run gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs

from tellsign.errors import SettingError

MODES = ("judge", "pad", "transfer", "both")
"""judge: the class alone, the baseline. pad: the maps alone. transfer: the class, from a run of `pad`. both: together.
X-AIGD's rows "AJ-only", "PAD-only", "transfer" and "multi-task"."""


@attrs.frozen(kw_only=True)
class Recipe:
    """A run's settings; written beside its weights."""

    mode: str = "both"
    encoder: str = "efficientnet-lite0"
    """See the segmentation plugin's `build_encoder`."""
    width: int = 64
    """Channels of the decoder."""
    seed: int = 0
    side: int = 224
    """Crops in pixels; a picture with a shorter side is scaled up."""
    batch: int = 16
    steps: int = 1000
    rate: float = 3e-4
    """AdamW's learning rate at its peak."""
    decay: float = 0.01
    warmup: int = 20
    maps: float = 1.0
    """Weight of the maps' loss beside the class's."""
    qualities: tuple[int, int] = attrs.field(default=(70, 100), converter=tuple)
    """Range of the JPEG quality that every crop of both classes is saved with."""
    validation: float = 0.1
    """Share of the groups that are not learned from; `evaluate --held-out` measures on them."""

    def __attrs_post_init__(self) -> None:
        if self.mode not in MODES:
            raise SettingError("mode", f"one of {', '.join(MODES)}", self.mode)
        for name in ("side", "batch", "steps", "width"):
            if getattr(self, name) < 1:
                raise SettingError(name, "at least 1", getattr(self, name))
        if not 0 <= self.validation < 1:
            raise SettingError("validation", "a share from 0 and below 1", self.validation)
        low, high = self.qualities
        if not 1 <= low <= high <= 100:
            raise SettingError("qualities", "two numbers in [1, 100], the lower first", self.qualities)

    @property
    def learns_class(self) -> bool:
        """Whether the class is trained."""
        return self.mode != "pad"

    @property
    def learns_maps(self) -> bool:
        """Whether the maps are trained."""
        return self.mode in ("pad", "both")

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """From JSON; what it does not name stays at its default."""
        told: dict[str, Any] = json.loads(text)
        if unknown := set(told) - {f.name for f in attrs.fields(cls)}:
            raise SettingError("recipe", "settings of a recipe", ", ".join(sorted(unknown)))
        return cls(**told)

    @classmethod
    def read(cls, run: Path) -> Recipe:
        """The recipe of a run's folder."""
        return cls.parse((run / "recipe.json").read_text())


__all__ = ["MODES", "Recipe"]

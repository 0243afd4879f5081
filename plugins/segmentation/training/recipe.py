"""Everything that decides what a training run gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs

from tellsign.errors import SettingError
from tellsign.plugins.segmentation.encoders import STRIDES
from tellsign.plugins.segmentation.model import GammaConfig

PARTS = ("cls", "ai", "manipulation")


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value)


@attrs.frozen(kw_only=True)
class Recipe:
    """A run's settings; written beside its weights."""

    model: GammaConfig = attrs.field(factory=lambda: GammaConfig(width=64, query_pool=4))
    seed: int = 0
    side: int = 224
    """Crops in pixels; 512 in the paper. The windows that the default fusion is trained on have 224 to 304."""
    batch: int = 16
    epochs: int = 60
    share: float = 0.1
    """Of the pictures, drawn anew for each epoch."""
    steps: int = 0
    """Batches of an epoch whatever the number of pictures; 0 leaves it to `share`."""
    rate: float = 5e-4
    """AdamW's learning rate at its peak; 1e-4 in the paper, whose encoder starts on ImageNet weights of a MiT."""
    encoder_rate: float = 0.5
    """The encoder's rate as a share of `rate`."""
    decay: float = 0.01
    schedule: str = "cosine"
    """"cosine" over all epochs after `warmup` steps, or "constant"."""
    warmup: int = 50
    average: float = 0.99
    """Decay of the moving average of the weights that is validated and kept; 0 keeps the weights themselves."""
    alpha: float = 2.0
    """Weight of the class and of the AI mask (equation 6)."""
    weights: tuple[float, float, float] | None = attrs.field(default=None, converter=attrs.converters.optional(_tuple))
    """Of class, AI mask and manipulation mask, instead of (alpha, alpha, 1): the ablation of the loss."""
    parts: tuple[str, ...] = attrs.field(default=PARTS, converter=_tuple)
    """What is trained: the ablation of the heads."""
    kinds: tuple[str, ...] = attrs.field(default=(), converter=_tuple)
    """Kinds of forgery that are used; empty for all."""
    without: tuple[str, ...] = attrs.field(default=(), converter=_tuple)
    """Kinds or tools that are left out of training: leave one kind out."""
    moved_cls: tuple[int, int] = attrs.field(default=(0, 0), converter=_tuple)
    """Class of copy-move and of splicing: the ablation of their labels."""
    emphasis: dict[str, float] = attrs.field(factory=dict)
    """Factors of how often kinds are drawn; 1 where a kind is not named."""
    native: float = 0.15
    """Share of crops that are not resampled."""
    strength: float = 1.0
    """Factor of the chances of blur, colours and noise."""
    lossless: float = 0.2
    """Share of crops that are not compressed."""
    qualities: tuple[int, int] = attrs.field(default=(60, 100), converter=_tuple)
    """Range of JPEG and WebP quality."""
    align: float = 0.0
    """Weight of the loss that draws the class's attention to the AI mask (docs/artifacts.md); 0, as in the paper, is
    without. For `attention` "reverse" on "tokens", and a side that is a multiple of 32."""
    align_benign: float = 0.4
    """Its weight of places that the mask does not cover."""
    authentic: float = 0.3
    """Share of untouched pictures among the draws."""
    validation: float = 0.1
    """Share of the groups that validates."""
    validate_every: int = 1
    """Epochs from one validation to the next."""
    validation_crops: int = 256
    """At most so many pictures validate."""
    monitor: str = "accuracy"
    """What early stopping looks at: "accuracy" of the class, as in the paper, or "score", its mean with both F1."""
    delta: float = 0.01
    patience: int = 5
    """Validations without an improvement of more than `delta` after which training ends; 0 never ends early."""

    def __attrs_post_init__(self) -> None:
        for name, allowed, value in (
            ("schedule", ("cosine", "constant"), self.schedule),
            ("monitor", ("accuracy", "score"), self.monitor),
        ):
            if value not in allowed:
                raise SettingError(name, f"one of {', '.join(allowed)}", value)
        if self.align and ((self.model.attention, self.model.kv) != ("reverse", "tokens") or self.side % STRIDES[-1]):
            told = f'attention "reverse", kv "tokens" and a side that is a multiple of {STRIDES[-1]}'
            raise SettingError("align", f"0 without {told}", self.align)
        if not 0 < self.share <= 1:
            raise SettingError("share", "a number above 0 and at most 1", self.share)
        if self.steps < 0:
            raise SettingError("steps", "an integer of at least 0", self.steps)
        if not self.parts or set(self.parts) - set(PARTS):
            raise SettingError("parts", f"some of {', '.join(PARTS)}", self.parts)

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weight of each part of the loss."""
        return dict(zip(PARTS, self.weights or (self.alpha, self.alpha, 1.0), strict=True))

    def dump(self) -> str:
        """As JSON."""
        return json.dumps(attrs.asdict(self), indent=1)

    @classmethod
    def parse(cls, text: str, base: Recipe | None = None) -> Recipe:
        """From JSON; what it does not name stays as in `base`, by default the default recipe."""
        told: dict[str, Any] = json.loads(text)
        base = base or cls()
        model = told.pop("model", {})
        unknown = set(told) - {f.name for f in attrs.fields(cls)} | set(model) - {
            f.name for f in attrs.fields(GammaConfig)
        }
        if unknown:
            raise SettingError("recipe", "settings of a recipe", ", ".join(sorted(unknown)))
        return attrs.evolve(base, model=attrs.evolve(base.model, **model), **told)

    @classmethod
    def read(cls, run: Path) -> Recipe:
        """The recipe of a run's folder."""
        return cls.parse((run / "recipe.json").read_text())

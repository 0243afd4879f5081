"""What an experiment is: pictures, cue, network, grid."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import attrs

from tellsign.errors import SettingError

from .cues import CUES

MASKS = ("artifact", "salient")


@attrs.frozen(kw_only=True)
class Arm:
    """One way of training."""

    benign: float = 0.4
    """Weight of benign patches, the paper's lambda."""
    beta: float = 1.0
    """Weight of the alignment loss; 0 is training without it."""
    mask: str = "artifact"
    """What attention is aligned with; "salient" is the control."""
    own: bool = False
    """Maps divided by each picture's own maximum, the literal reading, and not by the batch's."""

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.benign <= 1:
            raise SettingError("benign", "a number in [0, 1]", self.benign)
        if self.beta < 0:
            raise SettingError("beta", "a number from 0", self.beta)
        if self.mask not in MASKS:
            raise SettingError("mask", f"one of {', '.join(MASKS)}", self.mask)

    @property
    def name(self) -> str:
        """For files and tables."""
        if self.beta == 0:
            return "none"
        return f"{self.mask}, lambda {self.benign:g}, beta {self.beta:g}" + (", own maximum" if self.own else "")


@attrs.frozen(kw_only=True)
class Setting:
    """Everything that a result depends on, beside the pictures and the tower."""

    fit_tools: tuple[str, ...] = ("migan",)
    held_out: tuple[str, ...] = ("peel", "sheet")
    cue: str = "tone"
    agreement: float = 0.9
    """Share of the fit's pictures whose cue goes with their class."""
    fit: int = 75
    """Pictures of each class to fit on."""
    test: int = 60
    """Untouched pictures of the test, and inpaintings by held-out tools."""
    seen: int = 20
    """Inpaintings of the test by the tools of the fit."""
    side: int = 224
    """Of the native window, in pixels."""
    block: int = 6
    """Of the frozen tower; its tokens are what is learned from."""
    pool: int = 2
    """Tokens a side that are averaged into one."""
    width: int = 64
    heads: int = 4
    depth: int = 2
    epochs: int = 15
    batch: int = 32
    rate: float = 1e-3
    decay: float = 0.05
    seeds: int = 5
    lambdas: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    beta: float = 5.0
    """Of the arms that differ in lambda."""
    betas: tuple[float, ...] = (0.1, 1.0)
    """Tried at lambda .4, beside `beta`."""
    pictures_seed: int = 0

    def __attrs_post_init__(self) -> None:
        if self.cue not in CUES:
            raise SettingError("cue", f"one of {', '.join(CUES)}", self.cue)
        if set(self.fit_tools) & set(self.held_out) or not self.fit_tools or not self.held_out:
            raise SettingError("held_out", "tools that are not among those of the fit", self.held_out)
        if not 0.5 <= self.agreement <= 1:
            raise SettingError("agreement", "a share in [.5, 1]", self.agreement)
        for name in ("fit", "test", "seeds", "epochs", "batch", "pool", "block"):
            if getattr(self, name) < 1:
                raise SettingError(name, "at least 1", getattr(self, name))

    def arms(self) -> tuple[Arm, ...]:
        """None; lambda at `beta`; `betas` at lambda .4; the literal maximum; the control."""
        return (
            Arm(beta=0.0),
            *(Arm(benign=value, beta=self.beta) for value in self.lambdas),
            *(Arm(beta=value) for value in self.betas),
            Arm(beta=self.beta, own=True),
            Arm(beta=self.beta, mask="salient"),
        )

    def key(self, pictures: Sequence[str]) -> str:
        """Hash of what a trained model depends on, beside its arm and its seed."""
        facts = {k: v for k, v in attrs.asdict(self).items() if k not in {"seeds", "lambdas", "beta", "betas"}}
        facts["of"] = list(pictures)
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]

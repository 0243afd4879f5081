"""The small network that speaks where the tower cannot be had: EfficientNet-lite0's trunk and a linear head."""

from __future__ import annotations

from torch import Tensor, nn

from tellsign.towers.lite import CHANNELS, EPSILON, FEATURES, MEAN, SIDE, STAGES, STD, TAPS, TOP, LiteTrunk, folded

__all__ = ["CHANNELS", "EPSILON", "FEATURES", "MEAN", "SIDE", "STAGES", "STD", "TAPS", "TOP", "Student", "folded"]


class Student(LiteTrunk):
    """EfficientNet-lite0 with one logit.

    Parameters
    ----------
    folded : bool, default True
        As for the trunk.
    """

    def __init__(self, *, folded: bool = True) -> None:
        super().__init__(folded=folded)
        self.head = nn.Linear(FEATURES, 1)

    def forward(self, squares: Tensor) -> Tensor:
        """Log-odds that a picture is made by AI, float32 (B,), of uint8 squares (B, 192, 192, 3)."""
        out: Tensor = self.head(self.features(squares))[:, 0]
        return out

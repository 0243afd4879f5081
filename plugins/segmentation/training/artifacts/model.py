"""One encoder, a decoder of 7 + 1 maps, and a class (X-AIGD, arXiv 2601.19430)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tellsign.artifacts import CATEGORIES
from tellsign.plugins.segmentation.decoder import MlpDecoder, upsample
from tellsign.plugins.segmentation.encoders import Encoder

MAPS = len(CATEGORIES) + 1
"""The seven categories, and one map of any of them."""


class ArtifactOutput(NamedTuple):
    """What the network says of a batch, in log-odds."""

    logit: Tensor
    """float (B,): is the picture made by AI."""
    maps: Tensor
    """float (B, 8, H, W): an artifact of each category of `CATEGORIES`, then of any."""


class ArtifactModel(nn.Module):
    """The segmentation plugin's encoder and decoder with other heads.

    The eighth map is trained on the union of the masks. The paper's columns tell a category-agnostic number apart from
    the seven, and a union of seven cuts is not the best cut of the union.

    Parameters
    ----------
    encoder : Encoder
    width : int
        Channels of the decoder.
    """

    def __init__(self, encoder: Encoder, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = MlpDecoder(encoder.channels, width)
        self.decoder.mask = nn.Conv2d(width, MAPS, 1)
        # Artifacts are rare: maps that start at even odds would first of all unlearn the encoder.
        nn.init.constant_(self.decoder.mask.bias, -3.0)  # type: ignore[arg-type]
        self.head = nn.Linear(encoder.channels[-1], 1)

    def forward(self, pictures: Tensor) -> ArtifactOutput:
        """Look at pictures, uint8 (B, H, W, 3)."""
        maps = self.encoder(pictures)
        _, logits = self.decoder(maps)
        logit = self.head(maps[-1].mean(dim=(2, 3)))[:, 0]
        return ArtifactOutput(logit, upsample(logits, (pictures.shape[1], pictures.shape[2])))


def judged_by_maps(maps: Tensor) -> Tensor:
    """Log-odds (B,) of a network that learned maps alone: the highest value (8th map) of a picture (B, 8, H, W)."""
    out: Tensor = torch.amax(maps[:, -1], dim=(1, 2))
    return out


__all__ = ["MAPS", "ArtifactModel", "ArtifactOutput", "judged_by_maps"]

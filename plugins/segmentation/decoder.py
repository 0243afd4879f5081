"""The all-MLP decoder of SegFormer (arXiv 2105.15203), as GAMMA uses it twice (equations 1 to 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tellsign.towers.fused import conv2d


class MlpDecoder(nn.Module):
    """Four feature maps to decoder features and a mask.

    Each map is projected to `width` channels, brought to the finest map's size and concatenated, coarsest first as
    transformers' SegFormer head does it; a 1 x 1 convolution with batch norm and ReLU fuses them, and one more MLP
    makes the decoder features.

    Parameters
    ----------
    channels : sequence of int
        Of the maps, finest first.
    width : int
        C_dec.
    contrast : bool
        Give the last MLP the fused features' distance from their mean over the picture as well, in standard
        deviations: what an edit is, is told by the rest of the picture (the z-score of ManTra-Net, CVPR 2019). Beyond
        GAMMA.
    """

    def __init__(self, channels: Sequence[int], width: int, *, contrast: bool = False) -> None:
        super().__init__()
        self.contrast = contrast
        self.project = nn.ModuleList(nn.Linear(c, width) for c in channels)
        self.fuse = nn.Conv2d(len(channels) * width, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.mlp = nn.Conv2d(2 * width if contrast else width, width, 1)
        self.mask = nn.Conv2d(width, 1, 1)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Decode.

        Parameters
        ----------
        maps : sequence of float tensors of (B, C_i, h_i, w_i)
            Finest first.

        Returns
        -------
        features : float tensor of (B, width, h_1, w_1)
            F_Dec.
        logits : float tensor of (B, 1, h_1, w_1)
            Of the mask, at the finest map's size.
        """
        size = maps[0].shape[2:]
        total: Tensor | None = None
        for x, (weight, bias) in zip(maps, self._projections(), strict=True):
            y = conv2d(x, weight, bias)
            if y.shape[2:] != size:
                y = F.interpolate(y, size=size, mode="bilinear", align_corners=False)
            total = y if total is None else total + y
        assert total is not None
        fused = F.relu(self.norm(total))
        if self.contrast:
            distance = total - total.mean(dim=(2, 3), keepdim=True)
            spread = distance.square().mean(dim=(2, 3), keepdim=True)
            fused = torch.cat([fused, distance / (spread + 1e-4).sqrt()], dim=1)
        features = conv2d(fused, self.mlp.weight, self.mlp.bias, act="relu")
        return features, conv2d(features, self.mask.weight, self.mask.bias)

    def _projections(self) -> list[tuple[Tensor, Tensor]]:
        """Weight (width, C_i, 1, 1) and bias (width,) of each map: its own projection and its share of `fuse` in one.

        A 1 x 1 convolution of a concatenation is a sum of convolutions, all of them commute with bilinear scaling, and
        two linear maps in a row are one: the same numbers as concatenating at the finest size, at a fraction of the
        work.
        """
        shares = self.fuse.weight.flatten(1).chunk(len(self.project), dim=1)[::-1]
        out = []
        for project, share in zip(self.project, shares, strict=True):
            assert isinstance(project, nn.Linear)
            out.append(((share @ project.weight)[:, :, None, None], share @ project.bias))
        return out


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Mask logits (B, 1, h, w) to the picture's size (B, 1, H, W), bilinear."""
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


__all__ = ["MlpDecoder", "upsample"]

"""A small network on the residuals alone, at full resolution: traces that an encoder's first layers average away.

Beyond GAMMA. An encoder made for objects halves the picture twice within its first layers and keeps 24 channels there;
what an inpainter, an autoencoder or an up-scaler leaves is finer. This path reads the same high-pass residuals as
`residual.ResidualStem`, sees about 65 px around each cell, and has a decoder of its own for each mask. A mask says the
higher of what this path and the encoder's decoders say: the one sees traces, the other what was pasted or repeated. So
it is trained alone, by `training.trace`, on many more crops a second than the whole network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .decoder import MlpDecoder
from .residual import LIMIT, ResidualEnergy, kernels


class TraceNet(nn.Module):
    """Residuals to a map at stride 4.

    Parameters
    ----------
    width : int
        Channels of the map; half of them at stride 2 and a third at full resolution.
    """

    kernels: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.channels = width
        self.register_buffer("kernels", kernels()[:, None], persistent=False)
        fine, middle = max(1, width // 3), max(1, width * 2 // 3)
        self.steps = nn.ModuleList(
            [
                _step(9, fine),
                _step(fine, middle, stride=2),
                _step(middle, width, stride=2),
                _step(width, width),
                _step(width, width, dilation=2),
                _step(width, width, dilation=4),
            ]
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) to float (B, width, ceil(H / 4), ceil(W / 4))."""
        count, height, width, _ = pictures.shape
        levels = pictures.permute(0, 3, 1, 2).to(self.kernels.dtype).reshape(-1, 1, height, width)
        residual = F.conv2d(F.pad(levels, (2, 2, 2, 2), mode="reflect"), self.kernels)
        x = residual.clamp(-LIMIT, LIMIT).div(LIMIT).reshape(count, 9, height, width)
        x = x.contiguous(memory_format=torch.channels_last)
        for step in self.steps:
            y = step(x)
            x = F.relu(x + y) if y.shape == x.shape else F.relu(y)
        return x


def _step(inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
    )


class Traces(nn.Module):
    """The small network with a decoder for each mask, which also see the residual's energy.

    Parameters
    ----------
    trace : int
        Channels of the small network's map.
    width : int
        Of the decoders.
    masks : sequence of str
        Their names.
    """

    def __init__(self, trace: int, width: int, masks: Sequence[str]) -> None:
        super().__init__()
        self.trace, self.energy = TraceNet(trace), ResidualEnergy()
        self.decoders = nn.ModuleDict(
            {name: MlpDecoder((trace, ResidualEnergy.channels), width, contrast=True) for name in masks}
        )

    def forward(self, pictures: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """uint8 (B, H, W, 3) to features (B, width, h, w) and mask logits (B, 1, h, w) at stride 4, by mask."""
        maps = [self.trace(pictures), self.energy(pictures)]
        return {name: decoder(maps) for name, decoder in self.decoders.items()}


__all__ = ["TraceNet", "Traces"]

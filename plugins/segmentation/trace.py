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

from tellsign.towers.fused import Activation, conv2d

from .decoder import MlpDecoder
from .residual import LIMIT, ResidualEnergy, high_pass, kernels


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
                Step(9, fine),
                Step(fine, middle, stride=2),
                Step(middle, width, stride=2),
                Step(width, width),
                Step(width, width, dilation=2),
                Step(width, width, dilation=4),
            ]
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) to float (B, width, ceil(H / 4), ceil(W / 4))."""
        return self.of(high_pass(pictures, self.kernels))

    def of(self, residual: Tensor) -> Tensor:
        """The same of what `high_pass` gave."""
        x = residual.clamp(-LIMIT, LIMIT).div(LIMIT).contiguous(memory_format=torch.channels_last)
        for step in self.steps:
            x = step(x)
        return x


class Step(nn.Sequential):
    """A convolution, its batch norm unless folded, what went in where the shape is the same, and ReLU."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.place = (stride, dilation)
        self.skip = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride))."""
        if len(self) == 1:  # folded
            (conv,) = self
            assert isinstance(conv, nn.Conv2d)
            s, d = self.place
            act: Activation = "none" if self.skip else "relu"
            z = conv2d(x, conv.weight, conv.bias, stride=(s, s), padding=(d, d), dilation=(d, d), act=act)
            return F.relu_(z.add_(x)) if self.skip else z
        y: Tensor = self[1](self[0](x))
        return F.relu(x + y) if self.skip else F.relu(y)


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
        residual = high_pass(pictures, self.trace.kernels)
        return self.of(residual, self.energy.of(residual))

    def of(self, residual: Tensor, energy: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """The same of what `high_pass` and `ResidualEnergy` gave."""
        maps = [self.trace.of(residual), energy]
        return {name: decoder(maps) for name, decoder in self.decoders.items()}


__all__ = ["TraceNet", "Traces"]

"""A second path into an encoder's first layer: what the picture is beyond its neighbourhood.

Beyond GAMMA, which feeds RGB alone. An encoder that starts on ImageNet weights halves the resolution in its first
layer with filters made for edges; this path reads three high-pass residuals of each colour (Fridrich & Kodovsky,
"Rich Models for Steganalysis", 2012: SQUARE 3 x 3, SQUARE 5 x 5, and second order) at full resolution first. It starts
at zero, so that training begins with the encoder as it was.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tellsign.towers.fused import Activation, conv2d

from .encoders import Encoder

CELL = 4
"""Stride of the energies in pixels, that of an encoder's finest map."""

WINDOWS = (4, 16, 32)
"""Pixels over which energies are taken; the larger ones are steadier, the smaller ones sharper."""

LIMIT = 3.0
"""Residuals are cut off at this many grey levels times the kernel's norm: edges say nothing about traces."""


def kernels() -> Tensor:
    """The three high-pass kernels, float32 (3, 5, 5), each with its largest weight at -1."""
    square3 = torch.tensor([[-1.0, 2, -1], [2, -4, 2], [-1, 2, -1]]) / 4
    square5 = torch.tensor(
        [[-1.0, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]]
    )
    second = torch.tensor([[0.0, 0, 0], [1, -2, 1], [0, 0, 0]]) / 2
    return torch.stack([F.pad(square3, (1, 1, 1, 1)), square5 / 12, F.pad(second, (1, 1, 1, 1))])


def high_pass(pictures: Tensor, weights: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) filtered by `kernels` with an axis of inputs (3, 1, 5, 5): float (B, 9, H, W), grey levels."""
    count, height, width, _ = pictures.shape
    levels = pictures.permute(0, 3, 1, 2).to(weights.dtype).reshape(-1, 1, height, width)
    return F.conv2d(F.pad(levels, (2, 2, 2, 2), mode="reflect"), weights).reshape(count, 9, height, width)


class ResidualStem(nn.Module):
    """The first convolution of an encoder with the residual path beside it.

    Parameters
    ----------
    conv : torch.nn.Conv2d
        Takes 3 channels and rounds sides up.
    width : int
        Channels of the path at full resolution.
    scale : float tensor of (3,)
        Grey levels per unit of the input's channels.
    """

    kernels: Tensor
    scale: Tensor

    def __init__(self, conv: nn.Conv2d, width: int, scale: Tensor) -> None:
        super().__init__()
        self.conv = conv
        stride = conv.stride[0]
        self.register_buffer("kernels", kernels()[:, None], persistent=False)
        self.register_buffer("scale", scale.clone(), persistent=False)
        self.first = nn.Conv2d(9, width, 3, padding=1, bias=False)
        self.norm: nn.BatchNorm2d | None = nn.BatchNorm2d(width)
        self.last = nn.Conv2d(width, conv.out_channels, 2 * stride - 1, stride=stride, padding=stride - 1, bias=False)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, act: Activation = "none") -> Tensor:
        """(B, 3, H, W) normalised to (B, C, ceil(H / s), ceil(W / s))."""
        levels = x * self.scale[:, None, None]
        flat = levels.reshape(-1, 1, *x.shape[2:])
        flat = F.conv2d(F.pad(flat, (2, 2, 2, 2), mode="reflect"), self.kernels)
        residual = flat.clamp(-LIMIT, LIMIT).reshape(x.shape[0], 9, *x.shape[2:]) / LIMIT
        residual = residual.contiguous(memory_format=torch.channels_last)
        if self.norm is None:
            path = conv2d(residual, self.first.weight, self.first.bias, padding=(1, 1), act="relu")
        else:
            path = F.relu(self.norm(self.first(residual)))
        stride, padding = self.last.stride[0], self.last.padding[0]
        assert isinstance(padding, int)
        path = conv2d(path, self.last.weight, stride=(stride, stride), padding=(padding, padding))
        out: Tensor = self.conv(x) + path
        return out if act == "none" else F.relu_(out) if act == "relu" else F.relu6(out, inplace=True)


class ResidualEnergy(nn.Module):
    """How much residual there is, where: log energies over `WINDOWS` px at stride 4, one more map for the decoders.

    What a plain noise map is made of, so that a decoder need not find it first. Nothing in it is trained.
    """

    kernels: Tensor
    channels = 9 * len(WINDOWS)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernels", kernels()[:, None], persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) to float (B, channels, ceil(H / 4), ceil(W / 4)), about in [-2, 2]."""
        return self.of(high_pass(pictures, self.kernels))

    def of(self, residual: Tensor) -> Tensor:
        """The same of what `high_pass` gave."""
        height, width = residual.shape[2:]
        squares = residual.square()
        if height % CELL or width % CELL:
            squares = F.pad(squares, (0, -width % CELL, 0, -height % CELL), mode="replicate")
        energy = F.avg_pool2d(squares, CELL)
        maps = [
            energy if side == CELL else F.avg_pool2d(energy, side // CELL + 1, 1, side // CELL // 2, False, False)
            for side in WINDOWS
        ]
        return (torch.cat(maps, dim=1) + 0.05).log().sub(1).div(2)


def add_residual_stem(encoder: Encoder, width: int) -> None:
    """Put the path beside the first convolution that takes the picture's three channels.

    Parameters
    ----------
    encoder : Encoder
        Changed in place; load ImageNet weights before, because the names below the convolution change.
    width : int
        Channels at full resolution, at least 1.
    """
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            parent, _, last = name.rpartition(".")
            setattr(encoder.get_submodule(parent), last, ResidualStem(module, width, 255 * encoder.std))
            return
    raise ValueError("the encoder has no convolution that takes three channels")

"""EfficientNet-lite0's trunk: the small network that speaks where no tower can be had, and a pyramid of feature maps.

EfficientNet (Tan and Le, arXiv 1905.11946) in the lite variant: ReLU6 instead of swish, no squeeze-and-excitation, so
that batch norms fold into the convolutions and what is computed is convolutions with a bias and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import accumulate

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fused import Activation, conv2d

SIDE = 192
MEAN, STD = 127.0, 128.0
"""How the published weights take their pixels."""
EPSILON = 1e-3
"""Of the batch norms."""


@attrs.frozen
class Stage:
    """Blocks of one kind."""

    repeats: int
    kernel: int
    stride: int
    ratio: int
    """Channels inside a block over those that enter it."""
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
STEM, TOP = 32, 1280
TAPS = (4, 7, 10, 14, 15)
"""Blocks, counted from 0, whose pooled output the head reads beside the top's: synthesis shows in the middle of a
network trained on ImageNet more than at its end, as it does in the tower."""


CHANNELS = tuple(stage.channels for stage in STAGES for _ in range(stage.repeats))
FEATURES = sum(CHANNELS[n] for n in TAPS) + TOP


def _levels() -> dict[int, int]:
    strides: dict[int, int] = {}
    stride = 2
    for stage in STAGES:
        stride *= stage.stride
        strides[stride] = strides.get(stride, 0) + stage.repeats
    ends = accumulate(strides.values())
    return {stride: end - 1 for stride, end in zip(strides, ends, strict=True)}


LEVELS = _levels()
"""By stride, from 2 to 32: the last block, counted from 0, whose map has it."""


class SameConv(nn.Conv2d):
    """Convolution padded as TensorFlow's "same": an odd pixel of padding goes to the right and below."""

    def forward(self, x: Tensor, act: Activation = "none") -> Tensor:
        """(B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride))."""
        pads = [
            max(0, (-(-n // s) - 1) * s + k - n)
            for n, k, s in zip(x.shape[2:], self.kernel_size, self.stride, strict=True)
        ]
        # What the convolution can pad by itself is not copied for it.
        if pads[0] % 2 or pads[1] % 2:
            rows, columns = ((p // 2, p - p // 2) for p in pads)
            x, pads = F.pad(x, (*columns, *rows)), [0, 0]
        padding = (pads[0] // 2, pads[1] // 2)
        stride = (self.stride[0], self.stride[1])
        return conv2d(x, self.weight, self.bias, stride=stride, padding=padding, groups=self.groups, act=act)


class Conv(nn.Module):
    """Convolution, batch norm unless folded, ReLU6 unless linear; padded as TensorFlow's "same"."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, act: bool, folded: bool
    ) -> None:
        super().__init__()
        self.conv: nn.Module = SameConv(inputs, outputs, kernel, stride, groups=groups, bias=folded)
        self.norm: nn.BatchNorm2d | None = None
        if not folded:
            self.norm = nn.BatchNorm2d(outputs, eps=EPSILON, momentum=0.01)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride))."""
        if self.norm is None:
            out: Tensor = self.conv(x, "relu6" if self.act else "none")
            return out
        x = self.norm(self.conv(x))
        return F.relu6(x, inplace=True) if self.act else x


class Block(nn.Module):
    """Inverted bottleneck (Sandler et al., arXiv 1801.04381)."""

    def __init__(self, inputs: int, stage: Stage, *, stride: int, folded: bool) -> None:
        super().__init__()
        inside = inputs * stage.ratio
        layers = [Conv(inputs, inside, 1, act=True, folded=folded)] if stage.ratio > 1 else []
        layers.append(Conv(inside, inside, stage.kernel, stride=stride, groups=inside, act=True, folded=folded))
        layers.append(Conv(inside, stage.channels, 1, act=False, folded=folded))
        self.layers = nn.Sequential(*layers)
        self.skip = stride == 1 and inputs == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, channels, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.layers(x)
        return x + y if self.skip else y


class LiteTrunk(nn.Module):
    """EfficientNet-lite0 up to its pooled features.

    Parameters
    ----------
    folded : bool, default True
        Batch norms are folded into the convolutions, as in the files that ship; training takes them apart.
    top : bool, default True
        Whether the last layer is there, which `features` needs and `pyramid` does not.
    """

    def __init__(self, *, folded: bool = True, top: bool = True) -> None:
        super().__init__()
        self.stem = Conv(3, STEM, 3, stride=2, act=True, folded=folded)
        blocks: list[nn.Module] = []
        inputs = STEM
        for stage in STAGES:
            for number in range(stage.repeats):
                blocks.append(Block(inputs, stage, stride=stage.stride if number == 0 else 1, folded=folded))
                inputs = stage.channels
        self.blocks = nn.ModuleList(blocks)
        self.top = Conv(inputs, TOP, 1, act=True, folded=folded) if top else None

    def pyramid(self, x: Tensor, strides: Collection[int]) -> list[Tensor]:
        """Feature maps of normalised pictures.

        Parameters
        ----------
        x : float tensor of (B, 3, H, W)
        strides : collection of int
            Of `LEVELS`.

        Returns
        -------
        list of float tensors of (B, C, ceil(H / s), ceil(W / s))
            The last map of each stride, finest first.
        """
        wanted = {LEVELS[stride] for stride in strides}
        x = self.stem(x)
        maps = []
        for number, block in enumerate(self.blocks[: max(wanted) + 1]):
            x = block(x)
            if number in wanted:
                maps.append(x)
        return maps

    def features(self, squares: Tensor) -> Tensor:
        """Pooled features, float32 (B, 2024), of uint8 squares (B, 192, 192, 3)."""
        # Not made contiguous: channels stay last in memory, which halves the time on a CPU.
        x = ((squares.float() - MEAN) / STD).permute(0, 3, 1, 2)
        x = self.stem(x)
        pooled = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in TAPS:
                pooled.append(x.mean(dim=(2, 3)))
        assert self.top is not None
        pooled.append(self.top(x).mean(dim=(2, 3)))
        return torch.cat(pooled, dim=1).float()


def folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of `Student(folded=True)` that computes what the state of a trained `Student(folded=False)` does."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith(".conv.weight"):
            norm = name.removesuffix("conv.weight") + "norm."
            scale = state[norm + "weight"] / torch.sqrt(state[norm + "running_var"] + EPSILON)
            out[name] = value * scale[:, None, None, None]
            out[name.removesuffix("weight") + "bias"] = state[norm + "bias"] - state[norm + "running_mean"] * scale
        elif ".norm." not in name:
            out[name] = value
    return out

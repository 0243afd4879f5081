"""The small network that speaks where no tower can be had: EfficientNet-lite0's trunk, for the plugins' heads.

EfficientNet (Tan and Le, arXiv 1905.11946) in the lite variant: ReLU6 instead of swish, no squeeze-and-excitation, so
that batch norms fold into the convolutions and what ships is convolutions with a bias and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

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


class Conv(nn.Module):
    """Convolution, batch norm unless folded, ReLU6 unless linear; padded as TensorFlow's "same"."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, act: bool, folded: bool
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=folded)
        self.norm = None if folded else nn.BatchNorm2d(outputs, eps=EPSILON, momentum=0.01)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride))."""
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        if kernel > 1:
            pads = [max(0, (-(-n // stride) - 1) * stride + kernel - n) for n in (x.shape[3], x.shape[2])]
            x = F.pad(x, [pads[0] // 2, pads[0] - pads[0] // 2, pads[1] // 2, pads[1] - pads[1] // 2])
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return F.relu6(x) if self.act else x


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
    """

    def __init__(self, *, folded: bool = True) -> None:
        super().__init__()
        self.stem = Conv(3, STEM, 3, stride=2, act=True, folded=folded)
        blocks: list[nn.Module] = []
        inputs = STEM
        for stage in STAGES:
            for number in range(stage.repeats):
                blocks.append(Block(inputs, stage, stride=stage.stride if number == 0 else 1, folded=folded))
                inputs = stage.channels
        self.blocks = nn.ModuleList(blocks)
        self.top = Conv(inputs, TOP, 1, act=True, folded=folded)

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

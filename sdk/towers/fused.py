"""Linear maps and convolutions for inference on a CPU, through oneDNN where torch has it.

torch sends float32 matrix products on a CPU to MKL, which on AMD's processors takes twice as long as oneDNN does, and
oneDNN clips a convolution's result while it is still in the cache. The operators are those that torch's own compiler
writes (`torch.ops.mkldnn`). Where they are not there, or gradients are wanted, or tensors are not float32 on a CPU, the
plain functions are called: the same numbers up to the order of summation.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["none", "relu", "relu6"]

FEWEST = 16
"""Rows below which a matrix product is not worth another layout of its weights."""

_ATTRIBUTES: dict[str, tuple[str, list[float]]] = {
    "none": ("none", []),
    "relu": ("relu", []),
    "relu6": ("hardtanh", [0.0, 6.0]),
}


@cache
def _there() -> bool:
    """Whether this torch has oneDNN's operators, and they do what is expected of them."""
    if not torch.backends.mkldnn.is_available():
        return False
    x, weight = torch.arange(6.0).view(2, 3) - 3, torch.ones(1, 3)
    try:
        with torch.inference_mode():
            line = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
            args = ([0, 0], [1, 1], [1, 1], 1, "hardtanh", [0.0, 6.0], "")
            plane = torch.ops.mkldnn._convolution_pointwise(x[:, :, None, None], weight[:, :, None, None], None, *args)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool(line.flatten().tolist() == [-6.0, 3.0] and plane.flatten().tolist() == [0.0, 3.0])


def _applies(x: Tensor, weight: Tensor) -> bool:
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    return plain and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu") and _there()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`: (..., inputs) to (..., outputs)."""
    if x.ndim < 2 or x.numel() < FEWEST * x.shape[-1] or not _applies(x, weight):
        return F.linear(x, weight, bias)
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def through(layer: nn.Module, x: Tensor) -> Tensor:
    """What a `torch.nn.Linear` makes of (..., inputs)."""
    assert isinstance(layer, nn.Linear)
    return linear(x, layer.weight, layer.bias)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    act: Activation = "none",
) -> Tensor:
    """`torch.nn.functional.conv2d` and what is done with its result: (B, C, H, W) to (B, outputs, h, w)."""
    if _applies(x, weight):
        args = (list(padding), list(stride), list(dilation), groups, *_ATTRIBUTES[act], "")
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *args)
        return out
    out = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    return out if act == "none" else F.relu_(out) if act == "relu" else F.relu6(out, inplace=True)


__all__ = ["FEWEST", "Activation", "conv2d", "linear", "through"]

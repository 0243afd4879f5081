"""Four-bit weights in safetensors, so that a few transformer blocks fit into a wheel.

Symmetric, one scale for each group of `GROUP` neighbouring inputs of an output (as weight-only quantisation of language
models does it); the scale is the one with the smallest squared error among shrunk maxima. Levels are -7 to 7, stored
as level + 8, two to a byte, the even input in the low half.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

GROUP = 64
_LEVELS = ":int4"
_SCALES = ":scale"


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise a matrix.

    Parameters
    ----------
    weight : float tensor of (outputs, inputs)
        Inputs a multiple of `GROUP`.

    Returns
    -------
    levels : uint8 tensor of (outputs, inputs / 2)
    scales : float16 tensor of (outputs, inputs / 64)

    Raises
    ------
    ValueError
        Another shape.
    """
    if weight.ndim != 2 or weight.shape[1] % GROUP:
        raise ValueError(f"weight takes a matrix with a multiple of {GROUP} inputs, got shape {tuple(weight.shape)}")
    groups = weight.float().reshape(weight.shape[0], -1, GROUP)
    top = groups.abs().amax(dim=2, keepdim=True).clamp_min(1e-8)
    best, scales = torch.full_like(top, torch.inf), top / 7
    # A scale below the maximum's clips a few outliers and serves the rest better.
    for shrink in torch.linspace(0.6, 1.0, 17).tolist():
        # Scales are stored in half precision, so the error is taken with what will be read back.
        scale = (top * shrink / 7).half().float().clamp_min(1e-7)
        error = ((groups / scale).round().clamp(-7, 7) * scale - groups).square().sum(dim=2, keepdim=True)
        better = error < best
        best, scales = torch.where(better, error, best), torch.where(better, scale, scales)
    levels = (groups / scales).round().clamp(-7, 7).add(8).to(torch.uint8).reshape(weight.shape)
    return levels[:, 0::2] | (levels[:, 1::2] << 4), scales.squeeze(2).half()


def dequantise(levels: Tensor, scales: Tensor) -> Tensor:
    """What `quantise` gave, as a float32 tensor of (outputs, inputs)."""
    out = torch.empty((*levels.shape, 2), device=levels.device)
    out[..., 0], out[..., 1] = levels & 15, levels >> 4
    # In place: fresh memory for each step would take longer than the arithmetic.
    grouped = out.view(levels.shape[0], -1, GROUP).sub_(8).mul_(scales.float().unsqueeze(2))
    return grouped.view(levels.shape[0], -1)


def pack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with its large matrices in four bits and the rest in half precision."""
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if tensor.ndim == 2 and tensor.shape[1] % GROUP == 0 and "resblocks" in name:
            out[name + _LEVELS], out[name + _SCALES] = quantise(tensor)
        else:
            out[name] = tensor.half()
    return out


def unpack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float32 state dict that `pack` took, as near as four bits get."""
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(_LEVELS):
            out[name.removesuffix(_LEVELS)] = dequantise(tensor, state[name.removesuffix(_LEVELS) + _SCALES])
        elif not name.endswith(_SCALES):
            out[name] = tensor.float()
    return out

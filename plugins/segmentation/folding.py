"""Batch norms folded into the convolutions before them: what a trained network computes, in fewer steps.

Only for inference. Training keeps them apart, and so do the weights files.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tellsign.towers.lite import Conv

from .residual import ResidualStem
from .trace import Step


@torch.no_grad()
def fold(model: nn.Module) -> None:
    """Fold what can be folded, in place; the model must be in eval mode.

    Parameters
    ----------
    model : torch.nn.Module
        `ResidualStem`, `trace.Step` and the convolutions of `tellsign.towers.lite` within it are changed.
    """
    for module in list(model.modules()):
        if isinstance(module, ResidualStem) and module.norm is not None:
            _into(module.norm, module.first)
            module.norm = None
        elif isinstance(module, Step) and len(module) == 2:
            conv, norm = module
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            _into(norm, conv)
            del module[1]
        elif isinstance(module, Conv) and module.norm is not None:
            if isinstance(module.conv, ResidualStem):
                _into(module.norm, module.conv.conv, module.conv.last)
            else:
                _into(module.norm, module.conv)
            module.norm = None


def _into(norm: nn.BatchNorm2d, conv: nn.Module, *others: nn.Conv2d) -> None:
    """Into a convolution without a bias, and those whose results are added to its own."""
    assert isinstance(conv, nn.Conv2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale: Tensor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    for one in (conv, *others):
        one.weight.mul_(scale[:, None, None, None])
    conv.bias = nn.Parameter(norm.bias - norm.running_mean * scale)


__all__ = ["fold"]

"""Makes a transformer's attention explicit for as long as it is looked at.

Fused attention never holds the weights in memory, so there is nothing to take a gradient of. Inside `recorded` the
weights are computed in the open and in float32: half precision loses what a second derivative needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def recorded(model: nn.Module) -> Iterator[list[Tensor]]:
    """Record the attention weights of every block of `model`, in the order in which they are computed.

    Works for `ClipTower`, for timm's vision transformers, and for any module with an attribute `record` that, where it
    is not None, is called with the weights. Models of transformers need no recording: build them with
    `attn_implementation="eager"` and ask for `output_attentions=True`.

    Parameters
    ----------
    model : torch.nn.Module

    Yields
    ------
    list of float32 tensors of (B, heads, N, N)
        Filled by each forward pass inside the block; empty it between two.

    Raises
    ------
    ValueError
        No block of `model` can be recorded.
    """
    kept: list[Tensor] = []
    with ExitStack() as stack:
        count = 0
        for module in model.modules():
            if "record" in vars(module):
                stack.enter_context(_own(module, kept))
                count += 1
            elif hasattr(module, "fused_attn") and isinstance(getattr(module, "attn_drop", None), nn.Module):
                stack.enter_context(_timm(module, kept))
                count += 1
        if not count:
            raise ValueError(
                f"model takes one whose blocks are ClipTower's or timm's, or have a `record`, "
                f"got {type(model).__name__} without any"
            )
        yield kept


@contextmanager
def _own(module: Any, kept: list[Tensor]) -> Iterator[None]:
    before, module.record = module.record, kept.append
    try:
        yield
    finally:
        module.record = before


@contextmanager
def _timm(module: Any, kept: list[Tensor]) -> Iterator[None]:
    fused, module.fused_attn = module.fused_attn, False
    # timm drops out of the softmax; what goes in there is the attention.
    hook = module.attn_drop.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    try:
        yield
    finally:
        hook.remove()
        module.fused_attn = fused

"""The class token's attention with a low-rank update, without ever making the updated keys and values.

With keys k_i + U_k d_i, where d_i = D x_i has the update's rank, a query's product with them is q k_i + (U_k^T q) d_i;
likewise for values. What is frozen (x_i, k_i, v_i) is computed once, and a step handles a few numbers per token.
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from tellsign.towers import LoraSet
from tellsign.towers.clip import Attention, Block


@attrs.frozen(eq=False)
class Frozen:
    """What a block's frozen weights make of pictures' tokens."""

    token: Tensor
    """(B, 1, width): the class token as it enters the block."""
    normed: Tensor
    """(B, N, width): all tokens behind the block's first norm."""
    keys: Tensor
    """(B, heads, N, width / heads)."""
    values: Tensor
    """Likewise."""

    def take(self, at: Tensor) -> Frozen:
        """Of the pictures `at`."""
        return Frozen(self.token[at], self.normed[at], self.keys[at], self.values[at])


@torch.no_grad()
def freeze(block: Block, tokens: Tensor) -> Frozen:
    """Compute once what does not change: tokens (B, N, width) as they enter `block`."""
    b, n, width = tokens.shape
    heads = block.attn.heads
    normed = block.ln_1(tokens)
    parts = block.attn.keys_and_values(normed).view(b, n, 2, heads, width // heads).permute(2, 0, 3, 1, 4)
    keys, values = parts.contiguous().unbind()
    return Frozen(tokens[:, :1].clone(), normed, keys, values)


def class_token(block: Block, frozen: Frozen, lora: LoraSet | None, name: str) -> Tensor:
    """`Block.class_token` from what is frozen, with updates of the packed projection: (B, width).

    Parameters
    ----------
    block : Block
    frozen : Frozen
    lora : LoraSet, optional
        Updates of queries, keys and values alone.
    name : str
        The block's.
    """
    attn: Attention = block.attn
    b, heads, _, each = frozen.keys.shape
    width = heads * each
    entering = frozen.normed[:, :1]
    q = torch.nn.functional.linear(entering, attn.in_proj_weight[:width], attn.in_proj_bias[:width])
    update = None if lora is None else lora.parts(f"{name}.attn.in_proj")
    if update is None:
        mixed = _mix(q.view(b, heads, 1, each), frozen, None)
    else:
        down, up = (p.to(entering.dtype) for p in update)
        d = frozen.normed @ down.T
        q = q + d[:, :1] @ up[:width].T
        mixed = _mix(q.view(b, heads, 1, each), frozen, (d, up[width:].view(2, heads, each, -1)))
    out = attn.out_proj(mixed.reshape(b, 1, width).to(frozen.token.dtype))
    return block.after_attention(frozen.token + out, lora, name)[:, 0]


def _mix(q: Tensor, frozen: Frozen, update: tuple[Tensor, Tensor] | None) -> Tensor:
    """Values mixed by one query's attention: (B, heads, 1, each)."""
    scores = q @ frozen.keys.transpose(2, 3)
    if update is not None:
        d, up = update
        scores = scores + (q @ up[0]) @ d[:, None].transpose(2, 3)
    share = (scores.float() * q.shape[3] ** -0.5).softmax(dim=3).to(q.dtype)
    mixed = share @ frozen.values
    if update is not None:
        d, up = update
        mixed = mixed + (share @ d[:, None]) @ up[1].transpose(1, 2)
    out: Tensor = mixed
    return out

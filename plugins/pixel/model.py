"""The pixel model: the first blocks of an image tower, low-rank updates, and a linear head that also says where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tellsign.towers import ClipTower, LoraSet, clip_input


class PixelHead(nn.Module):
    """A linear head on class tokens for the score, and on patch tokens for where.

    The score reads class tokens only: in the yardstick, patch tokens cost AUC on families and sources that were not
    trained on. The patch tokens distribute the score over the crop: patch logits differ by what their tokens say and
    average to the score's logit exactly.

    Parameters
    ----------
    blocks : sequence of int
        Counted from 1; the tokens after these blocks are read (RINE, arXiv 2402.19091, reads all of them).
    width : int
    """

    mean: Tensor
    std: Tensor

    def __init__(self, blocks: Sequence[int], width: int) -> None:
        super().__init__()
        self.blocks = tuple(blocks)
        shape = (len(self.blocks), 2, width)
        self.weight = nn.Parameter(torch.zeros(shape))
        self.bias = nn.Parameter(torch.zeros(()))
        # Statistics of the training features (class token, mean patch token), so that all weights are on one scale.
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def forward(self, tokens: Mapping[int, Tensor]) -> tuple[Tensor, Tensor]:
        """Logit and patch logits.

        Parameters
        ----------
        tokens : mapping from block to float tensor of (B, 1 + N, width)

        Returns
        -------
        logit : float32 tensor of (B,)
        patches : float32 tensor of (B, N)
            Their mean is the logit.
        """
        scaled = self.weight / self.std
        logit = self.bias - (scaled[:, 0] * self.mean[:, 0]).sum()
        where = torch.zeros((), device=logit.device)
        for i, block in enumerate(self.blocks):
            x = tokens[block].float()
            logit = logit + x[:, 0] @ scaled[i, 0]
            where = where + x[:, 1:] @ scaled[i, 1]
        return logit, logit[:, None] + where - where.mean(dim=1, keepdim=True)


class PixelModel(nn.Module):
    """Tower, adapter and head in one; the tower may be shared with others.

    Parameters
    ----------
    tower : ClipTower
    lora : LoraSet or None
    head : PixelHead
    """

    def __init__(self, tower: ClipTower, lora: LoraSet | None, head: PixelHead) -> None:
        super().__init__()
        self.tower, self.lora, self.head = tower, lora, head

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Score crops.

        Parameters
        ----------
        crops : uint8 tensor of (B, H, W, 3)
            Native-resolution RGB; sides are cut down to a multiple of the tower's patch.

        Returns
        -------
        logit : float32 tensor of (B,)
        patches : float32 tensor of (B, rows, columns)
        """
        patch = self.tower.patch
        rows, columns = crops.shape[1] // patch, crops.shape[2] // patch
        x = clip_input(crops[:, : rows * patch, : columns * patch])
        logit, patches = self.head(self.tower.tokens(x, self.head.blocks, self.lora))
        return logit, patches.view(-1, rows, columns)

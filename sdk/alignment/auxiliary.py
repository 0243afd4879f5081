"""Alignment as an auxiliary loss of a recipe that has a loss of its own."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from torch import Tensor

from tellsign.errors import SettingError

from .loss import alignment_loss
from .rollout import attention_map, cross_attention_map
from .targets import patch_shares


@attrs.frozen(kw_only=True)
class Alignment:
    """How strongly attention is drawn to artifacts, and what that costs off them."""

    beta: float = 5.0
    """Weight of the loss; 0 is training without it. 5 and `benign` .4 are the best measured (docs/artifacts.md)."""
    benign: float = 0.4
    """Weight of patches without an artifact, the paper's lambda; in [0, 1]."""
    last: int | None = None
    """Roll out the last so many blocks only, which caps the memory of the second derivative."""
    soft: bool = False
    """Weigh patches by the share that the artifact covers; see `alignment_loss`."""

    def __attrs_post_init__(self) -> None:
        if not self.beta >= 0:
            raise SettingError("beta", "a number from 0", self.beta)
        if not 0 <= self.benign <= 1:
            raise SettingError("benign", "a number in [0, 1]", self.benign)
        if self.last is not None and self.last < 1:
            raise SettingError("last", "an integer of at least 1", self.last)

    def __bool__(self) -> bool:
        return self.beta > 0

    def loss(
        self,
        logits: Tensor,
        attentions: Sequence[Tensor],
        masks: Tensor,
        grid: tuple[int, int],
        *,
        known: Tensor | None = None,
        skip: int = 1,
    ) -> Tensor:
        """The weighted loss of a transformer's attention, maps divided by the largest value of the batch.

        Parameters
        ----------
        logits : tensor of (B,) or (B, 1)
            For "made by AI".
        attentions : sequence of tensors of (B, heads, N, N)
            Recorded while `logits` were computed (`recorded`).
        masks : bool or float tensor of (B, H, W)
            Artifacts at the size that the model was given; zeros for real pictures.
        grid : (int, int)
            Patches down and across; N is their product plus `skip`.
        known : bool tensor of (B,), optional
            See `alignment_loss`.
        skip : int, default 1
            Tokens before the patches.

        Returns
        -------
        scalar tensor
        """
        seen = attention_map(logits, attentions, last=self.last, skip=skip, together=True)
        return self.beta * alignment_loss(
            seen, patch_shares(masks, grid), benign=self.benign, known=known, soft=self.soft
        )

    def cross_loss(
        self,
        logits: Tensor,
        attentions: Sequence[Tensor],
        masks: Tensor,
        grid: tuple[int, int],
        *,
        known: Tensor | None = None,
    ) -> Tensor:
        """`loss` for attention of other tokens on the patches: tensors of (B, heads, M, N), N patches in `grid`."""
        seen = cross_attention_map(logits, attentions, together=True)
        return self.beta * alignment_loss(
            seen, patch_shares(masks, grid), benign=self.benign, known=known, soft=self.soft
        )


__all__ = ["Alignment"]

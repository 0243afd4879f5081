"""How the classification branch hears of the masks (GAMMA's equations 6 to 8 and their alternatives).

Reverse cross-attention asks with the decoder features and looks into the classification branch. As printed, keys and
values are one pooled token, and a softmax over one key is 1: the decoder features change nothing. So keys and values
are by default the branch's tokens, the last feature map before pooling; `kv="pooled"` is the printed form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

ATTENTIONS = ("none", "standard", "dual", "reverse")
KEYS = ("tokens", "pooled")


class CrossAttention(nn.Module):
    """Multi-head attention of one set of tokens on another; no positions, so the order of neither set matters.

    Parameters
    ----------
    width : int
        A multiple of `heads`.
    heads : int
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.record: Callable[[Tensor], object] | None = None
        """Called with the weights (B, heads, N, M) where they are asked for (`tellsign.alignment.recorded`)."""
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """(B, N, C) asks (B, M, C) and gets (B, N, C)."""
        q, k, v = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, queries), (self.key, tokens), (self.value, tokens))
        )
        if self.record is None:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            weights = ((q.float() * q.shape[-1] ** -0.5) @ k.float().transpose(-2, -1)).softmax(dim=-1)
            self.record(weights)
            mixed = (weights @ v.float()).to(v.dtype)
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class ClassAttention(nn.Module):
    """Updates the class token with what the decoders know.

    Parameters
    ----------
    width, heads : int
    decoders : int
        How many; each has projections of its own.
    kind : {"reverse", "standard", "dual", "none"}
        reverse: decoder features ask, the class branch answers, pooled over the queries. standard: the class token
        asks the decoder features. dual: both. none: the token stays as it is.
    kv : {"tokens", "pooled"}
        What answers in the reverse direction.
    query_pool : int
        Side of the average pooling of decoder features before they take part; 1 is exact.
    """

    def __init__(
        self, width: int, heads: int, decoders: int, *, kind: str = "reverse", kv: str = "tokens", query_pool: int = 1
    ) -> None:
        super().__init__()
        self.kind, self.kv, self.query_pool = kind, kv, query_pool
        reverse, standard = kind in ("reverse", "dual"), kind in ("standard", "dual")
        self.reverse = nn.ModuleList(CrossAttention(width, heads) for _ in range(decoders if reverse else 0))
        self.standard = nn.ModuleList(CrossAttention(width, heads) for _ in range(decoders if standard else 0))

    def forward(self, token: Tensor, branch: Tensor, decoded: Sequence[Tensor]) -> Tensor:
        """Update the class token.

        Parameters
        ----------
        token : float tensor of (B, C)
            F_cls.
        branch : float tensor of (B, N, C)
            The class branch's tokens.
        decoded : sequence of float tensors of (B, C, h, w)
            F_Dec of each decoder.

        Returns
        -------
        float tensor of (B, C)
        """
        if self.kind == "none":
            return token
        keys = branch if self.kv == "tokens" else token[:, None]
        new = token
        for i, features in enumerate(decoded):
            if self.query_pool > 1:
                features = F.avg_pool2d(features, self.query_pool, ceil_mode=True, count_include_pad=False)
            places = features.flatten(2).transpose(1, 2)
            if self.reverse:
                new = new + self.reverse[i](places, keys).mean(dim=1)
            if self.standard:
                new = new + self.standard[i](token[:, None], places)[:, 0]
        return new


__all__ = ["ATTENTIONS", "KEYS", "ClassAttention", "CrossAttention"]

"""From attention weights and their gradients to one map per picture.

Two published readings of self-attention: gradient attention rollout, which X-AIGD aligns, and relevance propagation
(Chefer et al., arXiv 2103.15679), by which it judges explanations. The rollout code in circulation pairs gradients,
which arrive from the last block backwards, with attentions counted forwards, and divides by a row sum that lost its
axis; both are guarded by tests here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def attention_map(
    logits: Tensor,
    attentions: Sequence[Tensor],
    *,
    last: int | None = None,
    per_head: bool = False,
    skip: int = 1,
    together: bool = False,
    create_graph: bool = True,
) -> Tensor:
    """Where the class token looks for the sake of `logits`, by gradient attention rollout.

    Parameters
    ----------
    logits : tensor of (B,) or (B, 1)
        For "made by AI", computed from `attentions`.
    attentions : sequence of tensors of (B, heads, N, N)
        First block first.
    last : int, optional
        Roll out the last so many blocks only, which caps the memory of the second derivative.
    per_head : bool, default False
        False: the heads' mean, then what is positive. True: what is positive of each head, then the mean.
    skip : int, default 1
        Tokens before the patches: the class token and registers.
    together : bool, default False
        Divide by the largest value of the batch instead of each picture's own. A loss on the map then leaves alone
        pictures in which next to nothing is looked at; with each picture's own maximum it pushes those hardest, and
        training from scratch can end with maps that are 0 everywhere and have no gradient left (docs/artifacts.md).
    create_graph : bool, default True
        Keep the graph, for a loss on the map.

    Returns
    -------
    tensor of (B, N - skip)
        In [0, 1]; the largest of each picture (of the batch, if `together`) is 1. All 0 where nothing was looked at.
    """
    chosen = list(attentions if last is None else attentions[-last:])
    gradients = torch.autograd.grad(logits.sum(), chosen, create_graph=create_graph)
    return normalised(rollout(chosen, gradients, per_head=per_head)[:, 0, skip:], together=together)


def cross_attention_map(
    logits: Tensor, attentions: Sequence[Tensor], *, together: bool = False, create_graph: bool = True
) -> Tensor:
    """Which patches other tokens look at for the sake of `logits`: what is positive of gradient times attention.

    For attention between two sets of tokens, as GAMMA's from its masks to its class. There is nothing to roll out: each
    block is one step from the patches.

    Parameters
    ----------
    logits : tensor of (B,) or (B, 1)
    attentions : sequence of tensors of (B, heads, M, N)
        Of M asking tokens on the same N patches.
    together, create_graph : bool
        See `attention_map`.

    Returns
    -------
    tensor of (B, N)
        In [0, 1].
    """
    if not attentions or any(a.ndim != 4 or a.shape[-1] != attentions[0].shape[-1] for a in attentions):
        told = [tuple(a.shape) for a in attentions]
        raise ValueError(f"attentions takes at least one tensor of (B, heads, M, N), all of one N, got {told}")
    gradients = torch.autograd.grad(logits.sum(), list(attentions), create_graph=create_graph)
    weighted = [(g * a).mean(dim=1).relu().sum(dim=1) for g, a in zip(gradients, attentions, strict=True)]
    return normalised(torch.stack(weighted).sum(dim=0), together=together)


def normalised(attended: Tensor, epsilon: float = 1e-8, *, together: bool = False) -> Tensor:
    """Divided by each picture's maximum, or by that of all of them `together`; (B, n) to (B, n).

    The maximum is a constant to the gradient. If it were not, the map of a picture without artifacts could never reach
    an all-zero target: its maximum would be 1 whatever the model did.
    """
    largest = attended.amax() if together else attended.amax(dim=1, keepdim=True)
    return attended / (largest.detach() + epsilon)


def rollout(attentions: Sequence[Tensor], gradients: Sequence[Tensor], *, per_head: bool = False) -> Tensor:
    """Gradient attention rollout.

    Parameters
    ----------
    attentions, gradients : sequences of tensors of (B, heads, N, N)
        In one order, first block first.
    per_head : bool, default False
        See `attention_map`.

    Returns
    -------
    tensor of (B, N, N)
        Row i says how much of each input token is in output token i; its rows sum to 1. The identity that residual
        connections add is part of it.
    """
    _check(attentions, gradients)
    n = attentions[0].shape[-1]
    identity = torch.eye(n, device=attentions[0].device, dtype=attentions[0].dtype)
    out = identity.expand(attentions[0].shape[0], n, n)
    for attention, gradient in zip(attentions, gradients, strict=True):
        weighted = gradient * attention
        mixed = weighted.relu().mean(dim=1) if per_head else weighted.mean(dim=1).relu()
        mixed = (mixed + identity) / 2
        out = (mixed / mixed.sum(dim=-1, keepdim=True)) @ out
    return out


def relevance(attentions: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """Relevance propagation through self-attention (Chefer et al., equations 5 and 6).

    Parameters
    ----------
    attentions, gradients : sequences of tensors of (B, heads, N, N)
        First block first.

    Returns
    -------
    tensor of (B, N, N)
        R after the last block, from R = 1 and R + mean over heads of relu(gradient * attention) @ R.
    """
    _check(attentions, gradients)
    n = attentions[0].shape[-1]
    out = torch.eye(n, device=attentions[0].device, dtype=attentions[0].dtype).expand(attentions[0].shape[0], n, n)
    for attention, gradient in zip(attentions, gradients, strict=True):
        out = out + (gradient * attention).relu().mean(dim=1) @ out
    return out


def _check(attentions: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    if not attentions or len(attentions) != len(gradients):
        raise ValueError(
            f"attentions and gradients take as many tensors as there are blocks, at least one; "
            f"got {len(attentions)} and {len(gradients)}"
        )
    shape = attentions[0].shape
    for name, tensors in (("attentions", attentions), ("gradients", gradients)):
        for tensor in tensors:
            if tensor.shape != shape or tensor.ndim != 4 or shape[-1] != shape[-2]:
                raise ValueError(f"{name} takes tensors of one shape (B, heads, N, N), got {tuple(tensor.shape)}")

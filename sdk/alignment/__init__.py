"""Does a detector look at the artifact? Maps of what it looks at, and a loss that moves its attention there.

X-AIGD (arXiv 2601.19430), section on attention alignment, as docs/artifacts.md reconstructs it. The loss is an
auxiliary one for any recipe whose model attends: record the attention, roll it out, compare it with the artifact mask.

    with recorded(model) as attentions:
        logits = model(pictures)
    seen = attention_map(logits, attentions, together=True)
    loss = bce(logits, labels) + beta * alignment_loss(seen, patch_shares(masks, grid), benign=0.4)
"""

from .auxiliary import Alignment
from .gradcam import grad_cam
from .loss import alignment_loss, attention_mass
from .recording import recorded
from .rollout import attention_map, cross_attention_map, relevance, rollout
from .targets import patch_shares

__all__ = [
    "Alignment",
    "alignment_loss",
    "attention_map",
    "attention_mass",
    "cross_attention_map",
    "grad_cam",
    "patch_shares",
    "recorded",
    "relevance",
    "rollout",
]

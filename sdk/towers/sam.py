"""Segment Anything from a checkpoint, with MobileSAM's small encoder too.

Kirillov et al. 2023 (segment-anything); Zhang et al. 2023 (MobileSAM: TinyViT distilled from SAM's encoder, the prompt
encoder and the mask decoder unchanged).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tellsign.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

_SIZE, _WIDTH = 1024, 256
# MobileSAM's names of TinyViT's parts -> timm's.
_RENAMED = (
    ("patch_embed.seq.0.", "patch_embed.conv1."),
    ("patch_embed.seq.2.", "patch_embed.conv2."),
    *((f"layers.{i}.blocks.", f"stages.{i}.blocks.") for i in range(4)),
    # timm counts the halving to the stage that follows it.
    *((f"layers.{i}.downsample.", f"stages.{i + 1}.downsample.") for i in range(3)),
)


def load_sam(checkpoint: Path) -> Any:
    """The model in a checkpoint.

    Parameters
    ----------
    checkpoint : Path
        MobileSAM's `mobile_sam.pt`, or one of segment-anything's own (ViT-B, -L, -H); read without unpickling code.

    Returns
    -------
    segment_anything.modeling.Sam
        In eval mode, on the CPU.

    Raises
    ------
    WeightsError
        The file is not there, or is none of these.
    """
    import torch

    if not checkpoint.is_file():
        raise WeightsError(str(checkpoint), "there is no such file; MobileSAM's mobile_sam.pt serves here")
    try:
        state: dict[str, Tensor] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a broken archive raises
        raise WeightsError(str(checkpoint), f"is no checkpoint that can be read ({type(error).__name__})") from error
    # safetensors-like plain dicts only; a training checkpoint keeps its weights one level down.
    state = state.get("model", state) if isinstance(state, dict) else {}  # type: ignore[assignment]
    try:
        if any(k.startswith("image_encoder.layers.") for k in state):
            return _mobile(state)
        return _original(state)
    except (KeyError, RuntimeError) as error:
        raise WeightsError(str(checkpoint), "is neither MobileSAM's nor segment-anything's checkpoint") from error


def _original(state: dict[str, Tensor]) -> Any:
    from segment_anything import sam_model_registry

    width = state["image_encoder.pos_embed"].shape[-1]
    sam = sam_model_registry[{768: "vit_b", 1024: "vit_l", 1280: "vit_h"}[width]](checkpoint=None)
    sam.load_state_dict(state)
    return sam.eval()


def _mobile(state: dict[str, Tensor]) -> Any:
    from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    grid = _SIZE // 16
    sam = Sam(
        image_encoder=tiny_vit_encoder(),
        prompt_encoder=PromptEncoder(
            embed_dim=_WIDTH, image_embedding_size=(grid, grid), input_image_size=(_SIZE, _SIZE), mask_in_chans=16
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=_WIDTH, mlp_dim=2048, num_heads=8),
            transformer_dim=_WIDTH,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )
    sam.load_state_dict({_renamed(k): v for k, v in state.items() if _wanted(k)})
    return sam.eval()


def _wanted(key: str) -> bool:
    # The classification head of the encoder's first training.
    return not key.startswith(("image_encoder.head.", "image_encoder.norm_head."))


def _renamed(key: str) -> str:
    head, _, rest = key.partition("image_encoder.")
    if head or rest.startswith("neck."):
        return key
    for theirs, ours in _RENAMED:
        if rest.startswith(theirs):
            rest = ours + rest[len(theirs) :]
            break
    return "image_encoder.vit." + rest.replace(".c.weight", ".conv.weight")


def tiny_vit_encoder() -> nn.Module:
    """MobileSAM's image encoder on timm's TinyViT-5M: (B, 3, 1024, 1024) to (B, 256, 64, 64)."""
    import timm
    from segment_anything.modeling.common import LayerNorm2d
    from torch import nn

    class Encoder(nn.Module):
        img_size = _SIZE

        def __init__(self) -> None:
            super().__init__()
            self.vit = cast(Any, timm.create_model("tiny_vit_5m_224", num_classes=0))
            # SAM's decoder wants a grid of 16 px; the last halving is taken back.
            self.vit.stages[3].downsample.conv2.conv.stride = (1, 1)
            self.vit.head = nn.Identity()
            self.neck = nn.Sequential(
                nn.Conv2d(320, _WIDTH, 1, bias=False),
                LayerNorm2d(_WIDTH),
                nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1, bias=False),
                LayerNorm2d(_WIDTH),
            )

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.neck(self.vit.forward_features(x))
            return out

    return Encoder()

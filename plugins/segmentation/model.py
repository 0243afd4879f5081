"""GAMMA's network: one encoder, two masks, one class, and attention from the masks to the class.

"GAMMA: Generalizable Alignment via Multi-task and Manipulation-Augmented Training for AI-Generated Image Detection",
equations 1 to 8; what this network adds is said where it is added.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import attrs
import torch
from torch import Tensor, nn

from tellsign.errors import SettingError

from .attention import ATTENTIONS, KEYS, ClassAttention
from .decoder import MlpDecoder, upsample
from .encoders import STRIDES, Encoder, build_encoder
from .residual import ResidualEnergy, add_residual_stem, high_pass
from .trace import Traces

MASKS = ("ai", "manipulation")
"""The two masks: which pixels a network made; which pixels were moved, pasted or painted."""

CELL = STRIDES[0]
"""Pixels per cell of the masks before they are scaled up."""


@attrs.frozen(kw_only=True)
class GammaConfig:
    """What decides the network's layout."""

    encoder: str = "efficientnet-lite0"
    """See `encoders.build_encoder`."""
    width: int = 96
    """C_dec, a multiple of `heads`; 768 in SegFormer's larger heads."""
    heads: int = 8
    attention: str = "reverse"
    kv: str = "tokens"
    query_pool: int = 1
    residual: int = 16
    """Channels of the residual path into the first layer; 0 is the paper's network."""

    energy: bool = True
    """Whether the decoders see the residual's energy as one more map; no in the paper."""
    contrast: bool = True
    """Whether the decoders see how far features are from the picture's mean; no in the paper."""
    trace: int = 0
    """Channels of the second path, on residuals at full resolution (`trace.py`); 0, as in the paper, is none."""

    def __attrs_post_init__(self) -> None:
        if self.attention not in ATTENTIONS:
            raise SettingError("attention", f"one of {', '.join(ATTENTIONS)}", self.attention)
        if self.kv not in KEYS:
            raise SettingError("kv", f"one of {', '.join(KEYS)}", self.kv)
        if self.width < 1 or self.heads < 1 or self.width % self.heads:
            raise SettingError("width", f"a positive multiple of heads ({self.heads})", self.width)
        if self.query_pool < 1:
            raise SettingError("query_pool", "an integer of at least 1", self.query_pool)
        if self.residual < 0:
            raise SettingError("residual", "an integer of at least 0", self.residual)
        if self.trace < 0:
            raise SettingError("trace", "an integer of at least 0", self.trace)

    def to_json(self) -> str:
        """As weights files carry it."""
        return json.dumps(attrs.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> GammaConfig:
        """What `to_json` wrote."""
        return cls(**json.loads(text))


class GammaOutput(NamedTuple):
    """What the network says of a batch, in log-odds."""

    logit: Tensor
    """float (B, 1): are there synthesised pixels."""
    ai: Tensor
    """float (B, 1, H, W), or (B, 1, ceil(H / 4), ceil(W / 4)) where coarse masks were asked for."""
    manipulation: Tensor
    """As `ai`."""


class GammaModel(nn.Module):
    """The network.

    Parameters
    ----------
    config : GammaConfig
    encoder : Encoder, optional
        By default the one that the configuration names, with random weights and the residual path.
    """

    def __init__(self, config: GammaConfig, encoder: Encoder | None = None) -> None:
        super().__init__()
        self.config = config
        if encoder is None:
            encoder = build_encoder(config.encoder)
            if config.residual:
                add_residual_stem(encoder, config.residual)
        self.encoder = encoder
        self.energy = ResidualEnergy() if config.energy else None
        self.traces = Traces(config.trace, config.width, MASKS) if config.trace else None
        channels = (ResidualEnergy.channels, *encoder.channels) if config.energy else encoder.channels
        self.decoders = nn.ModuleDict(
            {name: MlpDecoder(channels, config.width, contrast=config.contrast) for name in MASKS}
        )
        self.branch = nn.Linear(encoder.channels[-1], config.width)
        self.attention = ClassAttention(
            config.width,
            config.heads,
            len(MASKS),
            kind=config.attention,
            kv=config.kv,
            query_pool=config.query_pool,
        )
        self.head = nn.Linear(config.width, 1)

    def decode(self, maps: list[Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Decoder features and coarse mask logits by mask."""
        features, logits = {}, {}
        for name, decoder in self.decoders.items():
            features[name], logits[name] = decoder(maps)
        return features, logits

    def classify(self, deepest: Tensor, features: dict[str, Tensor]) -> Tensor:
        """The class logit (B, 1) of the last feature map (B, C_4, h, w) and the decoder features."""
        # Linear before or after pooling is the same, so the token is the mean of the branch's tokens.
        tokens = self.branch(deepest.flatten(2).transpose(1, 2))
        token = self.attention(tokens.mean(dim=1), tokens, [features[name] for name in MASKS])
        return self.head(token)  # type: ignore[no-any-return]

    def forward(self, pictures: Tensor, *, coarse: bool = False) -> GammaOutput:
        """Look at pictures.

        Parameters
        ----------
        pictures : uint8 tensor of (B, H, W, 3)
        coarse : bool
            Leave the masks at a quarter of the picture's size.

        Returns
        -------
        GammaOutput
        """
        maps = self.encoder(pictures)
        residual = energy = None
        if self.energy is not None:
            residual = high_pass(pictures, self.energy.kernels)
            energy = self.energy.of(residual)
        features, logits = self.decode(maps if energy is None else [energy, *maps])
        if self.traces is not None:
            told = self.traces(pictures) if residual is None or energy is None else self.traces.of(residual, energy)
            for name, (_, mask) in told.items():
                logits[name] = torch.maximum(logits[name], mask)
        logit = self.classify(maps[-1], features)
        if not coarse:
            size = (pictures.shape[1], pictures.shape[2])
            logits = {name: upsample(x, size) for name, x in logits.items()}
        return GammaOutput(logit, logits["ai"], logits["manipulation"])


__all__ = ["CELL", "MASKS", "GammaConfig", "GammaModel", "GammaOutput"]

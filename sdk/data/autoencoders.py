"""The tiny autoencoders whose decoders leave the traces that aligned pairs teach (madebyollin's TAESD family)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

NAMES = ("taesd", "taesdxl", "taesd3", "taef1", "taef2")
"""Latent spaces of Stable Diffusion 1/2, SDXL, SD3, FLUX.1 and FLUX.2."""


class _Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class _Block(nn.Module):
    """Three 3 x 3 convolutions with a skip; FLUX.2's carry a grouped bottleneck in front."""

    def __init__(self, width: int, pooled: int | None) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        if pooled is not None:
            self.pool: nn.Module | None = nn.Sequential(
                nn.Conv2d(width, pooled, 1, bias=False),
                nn.GroupNorm(4, pooled),
                nn.ReLU(),
                nn.Conv2d(pooled, width, 1, bias=False),
            )
        else:
            self.pool = None

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return F.relu(self.conv(x) + x)


def read_stack(state: Mapping[str, Tensor], *, decoder: bool) -> nn.Sequential:
    """Build the convolutional stack that a state dict describes.

    Parameters
    ----------
    state : mapping from "<layer>.<rest>" to tensor
        As published; the layers without parameters are inferred from the gaps in the numbering.
    decoder : bool
        A decoder squashes its latents first and doubles the size where its encoder halves it.
    """
    layers: list[nn.Module] = []
    for index in range(1 + max(int(k.split(".")[0]) for k in state)):
        keys = {k.split(".", 1)[1] for k in state if k.startswith(f"{index}.")}
        if not keys:
            # Gaps: a decoder's latent clamp, the ReLU after its first convolution, and its up-samplings.
            layers.append(_Clamp() if index == 0 else nn.ReLU() if index == 2 else nn.Upsample(scale_factor=2))
        elif "weight" in keys:
            out, inputs = state[f"{index}.weight"].shape[:2]
            bias = "bias" in keys
            # An encoder's convolutions without a bias are those that halve the size.
            stride = 1 if decoder or bias else 2
            layers.append(nn.Conv2d(inputs, out, 3, stride, 1, bias=bias))
        else:
            pooled = state[f"{index}.pool.0.weight"].shape[0] if "pool.0.weight" in keys else None
            layers.append(_Block(state[f"{index}.conv.0.weight"].shape[0], pooled))
    stack = nn.Sequential(*layers)
    stack.load_state_dict({k: v.float() for k, v in state.items()})
    return stack.eval().requires_grad_(False)


class Autoencoder(nn.Module):
    """Encoder and decoder of one latent space.

    Pictures are float tensors (B, 3, H, W) in [0, 1], sides multiples of 8.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, name: str) -> None:
        super().__init__()
        self.encoder, self.decoder, self.name = encoder, decoder, name

    @classmethod
    def load(cls, folder: Path, name: str) -> Autoencoder:
        """Read `<name>_encoder.safetensors` and `<name>_decoder.safetensors`."""
        if name not in NAMES:
            raise ValueError(f"name takes one of {', '.join(NAMES)}, got {name!r}")
        encoder = read_stack(load_file(folder / f"{name}_encoder.safetensors"), decoder=False)
        decoder = read_stack(load_file(folder / f"{name}_decoder.safetensors"), decoder=True)
        return cls(encoder, decoder, name)

    def encode(self, x: Tensor) -> Tensor:
        """Pictures to latents (B, C, H / 8, W / 8)."""
        out: Tensor = self.encoder(x)
        return out

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to pictures, not clipped."""
        out: Tensor = self.decoder(latents)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """The round trip: same shape, clipped to [0, 1]."""
        return self.decode(self.encode(x)).clamp(0, 1)

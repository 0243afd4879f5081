"""Small autoencoders trained here, one per way of up-sampling: traces that no published decoder leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

UPSAMPLERS = ("nearest", "bilinear", "pixel_shuffle", "transposed", "patch_linear", "vector_quantised")
"""How a decoder doubles its size; the last is `nearest` behind a code book."""
LATENTS = 8
WIDTH = 32
CODES = 256
PATCH = 64
"""Side of the pictures that they are trained on, in pixels."""
BATCH = 8


class _Doubling(nn.Sequential):
    """Twice the size by one of the up-samplers, and a ReLU."""

    def __init__(self, kind: str, width: int) -> None:
        if kind == "pixel_shuffle":
            layers: list[nn.Module] = [nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2)]
        elif kind == "transposed":
            layers = [nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1)]
        else:
            mode = "bilinear" if kind == "bilinear" else "nearest"
            layers = [nn.Upsample(scale_factor=2, mode=mode), nn.Conv2d(width, width, 3, padding=1)]
        super().__init__(*layers, nn.ReLU())


class SmallAutoencoder(nn.Module):
    """Four times down to `LATENTS` channels and up again.

    Pictures are float tensors (B, 3, H, W) in [0, 1], sides multiples of 4.

    Parameters
    ----------
    kind : str
        One of `UPSAMPLERS`.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        if kind not in UPSAMPLERS:
            raise ValueError(f"kind takes one of {', '.join(UPSAMPLERS)}, got {kind!r}")
        self.name = kind
        self.codes = nn.Embedding(CODES, LATENTS) if kind == "vector_quantised" else None
        self.encoder = nn.Sequential(
            nn.Conv2d(3, WIDTH, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, LATENTS, 3, 1, 1),
        )
        if kind == "patch_linear":
            # As a patch transformer ends: each latent cell writes its 4 x 4 pixels by itself.
            self.decoder = nn.Sequential(
                nn.Conv2d(LATENTS, 2 * WIDTH, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(2 * WIDTH, 2 * WIDTH, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(2 * WIDTH, 48, 1),
                nn.PixelShuffle(4),
            )
        else:
            self.decoder = nn.Sequential(
                nn.Conv2d(LATENTS, WIDTH, 3, padding=1),
                nn.ReLU(),
                _Doubling(kind, WIDTH),
                _Doubling(kind, WIDTH),
                nn.Conv2d(WIDTH, 3, 3, padding=1),
            )

    def quantise(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Each latent cell's nearest code with a straight-through gradient, and the code book's loss.

        Without a code book the latents come back, and 0 (VQ-VAE, arXiv 1711.00937, equation 3).
        """
        if self.codes is None:
            return latents, torch.zeros((), device=latents.device)
        cells = latents.movedim(1, -1)
        nearest = torch.cdist(cells.reshape(-1, LATENTS).float(), self.codes.weight.float()).argmin(dim=1)
        code = self.codes(nearest).view_as(cells).movedim(-1, 1)
        loss = F.mse_loss(code, latents.detach()) + 0.25 * F.mse_loss(latents, code.detach())
        return latents + (code - latents).detach(), loss

    def forward(self, x: Tensor) -> Tensor:
        """The round trip: same shape, clipped to [0, 1]."""
        out: Tensor = self.decoder(self.quantise(self.encoder(x))[0])
        return out.clamp(0, 1)


def train_decoder(
    kind: str, pictures: NDArray[np.uint8], out: Path, *, steps: int = 400, seed: int = 0, every: int = 50
) -> Path:
    """Train one small autoencoder, or go on where an interrupted run stopped.

    Parameters
    ----------
    kind : str
        One of `UPSAMPLERS`.
    pictures : uint8 array of (n, s, s, 3)
        Sides of at least `PATCH` px.
    out : Path
        Receives `<kind>.safetensors`; a finished one is not trained again.
    steps, seed : int
    every : int
        Steps between two checkpoints.

    Returns
    -------
    Path
        The finished file.
    """
    done, saved = out / f"{kind}.safetensors", out / f"{kind}.pt"
    if done.is_file():
        return done
    torch.manual_seed(seed)
    model = SmallAutoencoder(kind)
    if model.codes is not None:
        nn.init.uniform_(model.codes.weight, -0.5, 0.5)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    first = 0
    if saved.is_file():
        state: dict[str, Any] = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        first = state["step"]
    for step in range(first, steps):
        x = _patches(pictures, np.random.default_rng((seed, step)))
        latents, loss = model.quantise(model.encoder(x))
        y = model.decoder(latents)
        # Differences of neighbours keep edges and grain, which mean error alone would blur away.
        for a, b in ((y, x), (y.diff(dim=2), x.diff(dim=2)), (y.diff(dim=3), x.diff(dim=3))):
            loss = loss + F.l1_loss(a, b)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if (step + 1) % every == 0 and step + 1 < steps:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}
            torch.save(state | {"schedule": schedule.state_dict()}, saved.with_suffix(".part"))
            saved.with_suffix(".part").replace(saved)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, done)
    saved.unlink(missing_ok=True)
    return done


def load_decoder(file: Path) -> SmallAutoencoder:
    """What `train_decoder` wrote."""
    model = SmallAutoencoder(file.stem)
    model.load_state_dict(load_file(file))
    return model.eval().requires_grad_(False)


def _patches(pictures: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
    chosen = []
    for i in rng.integers(len(pictures), size=BATCH):
        top, left = (int(rng.integers(n - PATCH + 1)) for n in pictures.shape[1:3])
        chosen.append(pictures[i, top : top + PATCH, left : left + PATCH])
    return torch.from_numpy(np.stack(chosen)).permute(0, 3, 1, 2).float() / 255

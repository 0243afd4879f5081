"""A zoo of traces: pairs of a real picture and its round trip, family of decoders by family of decoders.

To the tiny autoencoders' pairs that `prepare` made come the small decoders trained here, a tiny autoencoder with
perturbed weights, with noise on its latents and with two pictures' latents mixed, and the networks of `tellsign forge`
(GAN inpainting, a GAN up-scaler). Which recipe carries over is decided by leaving one family out.
"""

from __future__ import annotations

import copy
import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from tellsign import decode
from tellsign.data.autoencoders import NAMES, Autoencoder
from tellsign.data.normalise import normalise_window
from tellsign.plugins.pixel.training.gate import LeakyPairsError, check_pairs
from tellsign.plugins.pixel.training.pairs import match_spectrum
from tellsign.plugins.pixel.training.train import crop

from .decoders import UPSAMPLERS, load_decoder, train_decoder

VARIANTS = ("perturbed", "noised", "mixed")
"""What is done to a tiny autoencoder that its own pairs do not have."""
FORGED = {"inpainting GAN": ("blend", "migan"), "up-scaling GAN": ("upscale", "real_esrgan_x2")}
"""Families read from a folder of `tellsign forge` that has the untouched scenes too: kind and tool of its manifest."""
WINDOW = 224
"""Side in pixels of the windows cut out of forgeries, whose scenes are small."""
FAMILIES = (*NAMES, *VARIANTS, *UPSAMPLERS, *FORGED)
PERTURBATION = 0.05
"""Standard deviation of the factor on each of the decoder's weights, around 1."""
NOISE = 0.2
"""Of the latents, as a share of their own standard deviation."""
MIXTURE = 0.15
"""Share of another picture's latents."""

Pixels = NDArray[np.uint8]
Pair = tuple[Pixels, Pixels, str]
"""The real member, the fake one, and the real one's collection."""


@torch.inference_mode()
def round_trips(
    bases: Sequence[Pixels], encode: Callable[[Tensor], Tensor], decode: Callable[[Tensor], Tensor]
) -> list[Pixels]:
    """Bases of one size through an encoder and a decoder, one after the other, with their own spectrum back."""
    out = []
    for base in bases:
        x = torch.from_numpy(np.array(base)).permute(2, 0, 1)[None].float() / 255
        y = decode(encode(x)).float().clamp(0, 1)[0].permute(1, 2, 0)
        out.append(match_spectrum((y * 255).round().byte().numpy(), base))
    return out


def variant(kind: str, model: Autoencoder, seed: int) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Encoder and decoder of one of `VARIANTS`.

    Parameters
    ----------
    kind : str
    model : Autoencoder
        Is left as it is.
    seed : int
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(like)

    if kind == "perturbed":
        decoder = copy.deepcopy(model.decoder)
        with torch.no_grad():
            for weight in decoder.parameters():
                weight.mul_(1 + PERTURBATION * normal(weight))
        return model.encode, decoder
    if kind == "noised":

        def noised(x: Tensor) -> Tensor:
            latents = model.encode(x)
            return latents + NOISE * latents.std() * normal(latents)

        return noised, model.decode
    if kind == "mixed":
        last: list[Tensor] = []

        def mixed(x: Tensor) -> Tensor:
            latents = model.encode(x)
            # The picture before; the first of all is mixed with itself turned round.
            other = last[0] if last else latents.flip(-1)
            last[:] = [latents]
            return (1 - MIXTURE) * latents + MIXTURE * other

        return mixed, model.decode
    raise ValueError(f"kind takes one of {', '.join(VARIANTS)}, got {kind!r}")


def make(
    folder: Path,
    weights: Path,
    out: Path,
    *,
    forged: Path | None = None,
    count: int = 48,
    seed: int = 0,
    steps: int = 400,
) -> Path:
    """Train the small decoders and write the zoo's pairs; what is done already is kept.

    Parameters
    ----------
    folder : Path
        What `prepare` wrote: pairs with their `pairs.csv`.
    weights : Path
        Folder of the tiny autoencoders.
    out : Path
        Receives the decoders, and `<family>.npz` with `real`, `fake` (uint8 (n, s, s, 3)) and `source`.
    forged : Path, optional
        A folder of `tellsign forge` on pictures of `fit`; without it the families of `FORGED` are left out.
    count : int
        Pairs of each family at most. No base serves two families.
    seed, steps : int

    Returns
    -------
    Path
        `out`.
    """
    out.mkdir(parents=True, exist_ok=True)
    reals, fakes = (np.load(folder / f"pairs_{name}.npy", mmap_mode="r") for name in ("real", "fake"))
    with (folder / "pairs.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    order = np.random.default_rng(seed).permutation(len(rows))
    tiny = {name: [i for i in order if rows[i]["autoencoder"] == name] for name in NAMES}
    # The tiny autoencoders' own pairs come first; the others take bases in turn from what is left.
    rest = [i for group in zip(*(tiny[n][count:] for n in NAMES), strict=False) for i in group]
    for family in tqdm(FAMILIES, desc="zoo", unit="family"):
        file = out / f"{family}.npz"
        if file.is_file() or (family in FORGED and forged is None):
            continue
        if family in NAMES:
            pairs = [(np.array(reals[i]), np.array(fakes[i]), rows[i]["source"]) for i in tiny[family][:count]]
        elif family in FORGED:
            assert forged is not None
            pairs = list(forged_pairs(forged, *FORGED[family], count=count))
        else:
            place = [*VARIANTS, *UPSAMPLERS].index(family)
            mine = rest[place * count : (place + 1) * count]
            if family in UPSAMPLERS:
                # Trained on other bases than those it is shown.
                others = np.stack([reals[i] for i in rest[::-1][:400] if i not in mine])
                small = load_decoder(train_decoder(family, others, out, steps=steps, seed=seed))
                encode, write = (lambda x, m=small: m.quantise(m.encoder(x))[0]), small.decoder
                trips = round_trips([reals[i] for i in mine], encode, write)
            else:
                trips = []
                for n, name in enumerate(NAMES):
                    mine_of = mine[n * len(mine) // len(NAMES) : (n + 1) * len(mine) // len(NAMES)]
                    model = Autoencoder.load(weights, name)
                    trips += round_trips([reals[i] for i in mine_of], *variant(family, model, seed + n))
            pairs = [(np.array(reals[i]), trip, rows[i]["source"]) for i, trip in zip(mine, trips, strict=True)]
        if pairs:
            real, fake, source = zip(*pairs, strict=True)
            part = file.with_suffix(".part.npz")
            np.savez(part, real=np.stack(real), fake=np.stack(fake), source=np.array(source))
            part.replace(file)
    return out


def forged_pairs(folder: Path, kind: str, tool: str, *, count: int) -> Iterator[Pair]:
    """Windows of `WINDOW` px around a forgery's mask: of its untouched scene, and of it, at the same place."""
    with (folder / "manifest.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    scene = {r["id"].split("-")[0]: folder / r["path"] for r in rows if r["kind"] == "untouched"}
    rows = [r for r in rows if r["kind"] == kind and r["tool"] == tool and r["id"].split("-")[0] in scene]
    made = 0
    # The largest regions first: a window should be made of trace, not of surroundings.
    for row in sorted(rows, key=lambda r: -float(r["share"])):
        if made == count:
            return
        forged, base = (decode(p).pixels for p in (folder / row["path"], scene[row["id"].split("-")[0]]))
        if min(base.shape[:2]) < WINDOW:
            continue
        mask = np.asarray(Image.open(folder / row["ai_mask"]).convert("L")) > 127
        place = []
        for axis, length in ((1, base.shape[0]), (0, base.shape[1])):
            there = np.flatnonzero(mask.any(axis=axis))
            place.append(int(np.clip((there[0] + there[-1] + 1) // 2 - WINDOW // 2, 0, length - WINDOW)))
        box = (slice(place[0], place[0] + WINDOW), slice(place[1], place[1] + WINDOW))
        made += 1
        yield base[box].copy(), forged[box].copy(), row["source"]


def features(
    out: Path, compute: Callable[[Pixels], NDArray[np.generic]], *, count: int | None = None, name: str = "tower"
) -> Path:
    """Frozen features of both members of every family's first `count` pairs, to `<family>.<name>.npy`: (n, 2, ...).

    Both members go through the pipeline that all pictures go through, with the same draws.
    """
    for file in sorted(out.glob("*.npz")):
        done = out / f"{file.stem}.{name}.npy"
        if done.is_file():
            continue
        made = []
        with np.load(file) as pairs:
            for k, members in enumerate(zip(pairs["real"][:count], pairs["fake"][:count], strict=True)):
                draws = [np.random.default_rng((9, k)) for _ in members]
                shown = [crop(normalise_window(m, r), r) for m, r in zip(members, draws, strict=True)]
                made.append(compute(np.stack(shown)))
        with done.with_suffix(".part").open("wb") as handle:
            np.save(handle, np.stack(made))
        done.with_suffix(".part").replace(done)
    return out


def gate(out: Path) -> dict[str, dict[str, float]]:
    """What linear probes on blockiness and on the radial spectrum make of each family's pairs (AUC).

    Families with too few pairs to ask (below 20) are left out.
    """
    told = {}
    for file in sorted(out.glob("*.npz")):
        with np.load(file) as pairs:
            if len(pairs["real"]) < 20:
                continue
            try:
                told[file.stem] = check_pairs(list(pairs["real"]), list(pairs["fake"]))
            except LeakyPairsError as error:
                told[file.stem] = error.auc
    return told

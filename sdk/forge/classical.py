"""Edits without any network: fills, a cloned patch, smoothing, resampling.

They are what tells the AI mask that smooth, cloned or resampled is not yet synthesised.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from .copymove import find_offset
from .errors import ForgeError

Pixels = NDArray[np.uint8]
Region = NDArray[np.bool_]


def _rounded(values: NDArray[np.float64]) -> Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def membrane(values: NDArray[np.float64], region: Region) -> NDArray[np.float64]:
    """The smoothest sheet through the region's border: Laplace's equation inside, `values` outside.

    Parameters
    ----------
    values : float64 array of (H, W, C)
    region : bool array of (H, W)
        Neither empty nor everything.
    """
    from scipy.sparse import coo_array, diags_array
    from scipy.sparse.linalg import splu

    if not region.any() or region.all():
        raise ForgeError("filling takes a region that is neither empty nor the whole picture")
    y, x = np.nonzero(region)
    number = np.full(region.shape, -1)
    number[y, x] = np.arange(len(y))
    count = np.zeros(len(y))
    right = np.zeros((len(y), values.shape[2]))
    rows, columns = [], []
    for down, across in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        ny, nx = y + down, x + across
        # The picture's own edge has no neighbour: nothing flows through it.
        inside = (ny >= 0) & (ny < region.shape[0]) & (nx >= 0) & (nx < region.shape[1])
        count += inside
        here = np.flatnonzero(inside)
        there = number[ny[here], nx[here]]
        unknown = there >= 0
        rows.append(here[unknown])
        columns.append(there[unknown])
        known = here[~unknown]
        right[known] += values[ny[known], nx[known]]
    row, column = np.concatenate(rows), np.concatenate(columns)
    links = coo_array((np.ones(len(row)), (row, column)), shape=(len(y), len(y)))
    out = values.copy()
    out[y, x] = splu((diags_array(count) - links).tocsc()).solve(right)
    return out


def sheet(pixels: Pixels, region: Region, rng: np.random.Generator) -> Pixels:
    """Fill with the membrane."""
    return _rounded(membrane(pixels.astype(np.float64), region))


def peel(pixels: Pixels, region: Region, rng: np.random.Generator) -> Pixels:
    """Fill from the border inwards, each ring with the weighted mean of what is known nearby.

    The order and the weighting by distance are Telea's (2004); his gradient term is left out.
    """
    from scipy.ndimage import binary_erosion, convolve

    radius = int(rng.integers(2, 6))
    grid = np.arange(-radius, radius + 1)
    square = grid[:, None] ** 2 + grid[None, :] ** 2
    weight = np.where(square <= radius**2, 1 / np.maximum(square, 1), 0.0)
    weight[radius, radius] = 0
    values = pixels.astype(np.float64)
    missing = region.copy()
    if missing.all():
        raise ForgeError("filling takes a region that is not the whole picture")
    while missing.any():
        ring = missing & ~binary_erosion(missing, border_value=1)
        # Only the neighbourhood of the ring matters; a large picture would cost its whole area per ring.
        y, x = np.nonzero(ring)
        window = (
            slice(max(int(y.min()) - radius, 0), int(y.max()) + radius + 1),
            slice(max(int(x.min()) - radius, 0), int(x.max()) + radius + 1),
        )
        known = (~missing[window]).astype(np.float64)
        total = np.maximum(convolve(known, weight, mode="constant"), 1e-12)
        for c in range(3):
            channel = values[..., c][window]
            mean = convolve(channel * known, weight, mode="constant") / total
            channel[ring[window]] = mean[ring[window]]
        missing &= ~ring
    return _rounded(values)


def clone(pixels: Pixels, region: Region, rng: np.random.Generator) -> Pixels:
    """Fill with another place of the picture, lifted to fit at the border (Perez et al. 2003, gradient domain)."""
    offset = find_offset(region, rng)
    if offset is None:
        raise ForgeError(f"cloning found no place from which a region of {region.mean():.0%} could be taken")
    from scipy.ndimage import binary_dilation

    down, right = offset
    height, width = region.shape
    y, x = np.nonzero(binary_dilation(region))
    values = pixels.astype(np.float64)
    moved = values[np.clip(y + down, 0, height - 1), np.clip(x + right, 0, width - 1)]
    lift = np.zeros_like(values)
    lift[y, x] = values[y, x] - moved
    copied = values.copy()
    copied[y, x] = moved
    return _rounded(np.where(region[..., None], copied + membrane(lift, region), values))


def smooth(pixels: Pixels, region: Region, rng: np.random.Generator) -> Pixels:
    """The region blurred or median filtered."""
    image = Image.fromarray(pixels)
    if rng.random() < 0.7:
        return np.asarray(image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.6, 2.5)))))
    return np.asarray(image.filter(ImageFilter.MedianFilter(int(rng.choice([3, 5])))))


def resample(pixels: Pixels, region: Region, rng: np.random.Generator) -> Pixels:
    """The region scaled down and up again with ordinary kernels: what super-resolution does, without a network."""
    image = Image.fromarray(pixels)
    factor = float(rng.uniform(0.4, 0.85))
    small = (max(8, round(image.width * factor)), max(8, round(image.height * factor)))
    kernels = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
    out = image.resize(small, kernels[int(rng.integers(3))]).resize(image.size, kernels[int(rng.integers(3))])
    if rng.random() < 0.5:
        out = out.filter(ImageFilter.UnsharpMask(1.0, int(rng.integers(50, 150)), 0))
    return np.asarray(out)


FILLS: dict[str, Callable[[Pixels, Region, np.random.Generator], Pixels]] = {
    "clone": clone,
    "peel": peel,
    "resample": resample,
    "sheet": sheet,
    "smooth": smooth,
}
"""Name -> (pixels, region, rng) to a picture of the same size; the caller blends the region in."""


def grain(
    pixels: Pixels, original: Pixels, region: Region, rng: np.random.Generator, share: float = 1.0
) -> tuple[Pixels, float]:
    """Add noise to the region as strong as the picture's own, as a retoucher would.

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)
    original : uint8 array of (H, W, 3)
        Whose noise outside the region is the measure (median absolute second difference, Immerkaer 1996 in spirit).
    region : bool array of (H, W)
    rng : numpy.random.Generator
    share : float, default 1
        Of the measured strength.

    Returns
    -------
    uint8 array of (H, W, 3), and the standard deviation added, in grey levels
    """
    y = original.astype(np.float64).mean(axis=2)
    second = np.abs(y[:, 1:-1] * 2 - y[:, :-2] - y[:, 2:])[~region[:, 1:-1]]
    # Of white noise the second difference has sqrt(6) times its deviation, and a median of .6745 of that. Grey is the
    # mean of three channels, so one channel is noisier by sqrt(3).
    sigma = float(np.median(second) / (0.6745 * np.sqrt(6)) * np.sqrt(3)) * share if second.size else 0.0
    noisy = _rounded(pixels + rng.normal(0, sigma, pixels.shape) if sigma else pixels.astype(np.float64))
    return np.where(region[..., None], noisy, pixels), sigma

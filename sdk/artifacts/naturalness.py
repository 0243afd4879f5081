"""NIQE: how far a picture's local statistics are from those of photographs (Mittal et al., IEEE SPL 2013).

The published numbers belong to a model of 125 photographs that comes with the authors' code. Here the model is fitted
to photographs that are at hand, so a number is comparable to others under the same model and to none elsewhere;
correlations are what it is for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import correlate1d
from scipy.special import gamma

Floats = NDArray[np.float64]
PATCH = 96
"""Pixels a side; half of it at the second scale."""
SHARP = 0.75
"""Patches of photographs count from this share of their picture's sharpest."""
FEATURES = 36
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
_SHAPES = np.arange(0.2, 10.001, 0.001)
_RATIOS = gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))
_WINDOW = np.exp(-0.5 * (np.arange(-3, 4) / (7 / 6)) ** 2)
_WINDOW /= _WINDOW.sum()


def aggd(values: Floats) -> tuple[float, float, float]:
    """Shape, left and right scale of an asymmetric generalised Gaussian, by moments.

    Parameters
    ----------
    values : float array
        Of any shape.

    Returns
    -------
    shape : float
        In [.2, 10]; 2 is a Gaussian, 1 a Laplacian.
    left, right : float
        Standard deviation of the half below and above 0 times sqrt(gamma(1/shape) / gamma(3/shape)).
    """
    left, right = values[values < 0], values[values > 0]
    below, above = (float(np.sqrt(np.mean(half**2))) if half.size else 0.0 for half in (left, right))
    square = float(np.mean(values**2))
    if square == 0 or above == 0:
        return float(_SHAPES[-1]), 0.0, 0.0
    ratio = below / above
    r = float(np.mean(np.abs(values))) ** 2 / square
    wanted = r * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shape = float(_SHAPES[np.argmin((_RATIOS - wanted) ** 2)])
    scale = float(np.sqrt(gamma(1 / shape) / gamma(3 / shape)))
    return shape, below * scale, above * scale


def patch_features(pixels: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Features of a picture's patches, and how sharp each is.

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)
        At least 96 a side.

    Returns
    -------
    features : float array of (patches, 36)
    sharpness : float array of (patches,)
        Mean of the local standard deviation.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or min(pixels.shape[:2]) < PATCH:
        raise ValueError(
            f"pixels takes uint8 (H, W, 3) of {PATCH} px a side or more, got {pixels.dtype} {pixels.shape}"
        )
    rows, columns = (n // PATCH for n in pixels.shape[:2])
    image = Image.fromarray(pixels[: rows * PATCH, : columns * PATCH]).convert("L")
    scales = []
    sharpness = np.zeros(0)
    for side in (PATCH, PATCH // 2):
        grey = image.resize((columns * side, rows * side), Image.Resampling.BICUBIC) if side < PATCH else image
        normal, spread = normalised_luminance(np.asarray(grey, np.float64))
        if side == PATCH:
            sharpness = _cells(spread, side).mean(axis=(1, 2))
        scales.append(np.array([_features(cell) for cell in _cells(normal, side)]))
    return np.concatenate(scales, axis=1), sharpness


def normalised_luminance(grey: Floats) -> tuple[Floats, Floats]:
    """Luminance less its local mean, over its local standard deviation plus 1; and that deviation. (H, W) both."""

    def smooth(x: Floats) -> Floats:
        return np.asarray(correlate1d(correlate1d(x, _WINDOW, 0, mode="nearest"), _WINDOW, 1, mode="nearest"))

    mean = smooth(grey)
    spread = np.sqrt(np.abs(smooth(grey**2) - mean**2))
    return (grey - mean) / (spread + 1), spread


def _cells(x: Floats, side: int) -> Floats:
    rows, columns = (n // side for n in x.shape)
    return x.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)


def _features(cell: Floats) -> list[float]:
    shape, left, right = aggd(cell)
    out = [shape, (left + right) / 2]
    for shift in _SHIFTS:
        shape, left, right = aggd(cell * np.roll(cell, shift, (0, 1)))
        mean = (right - left) * float(gamma(2 / shape) / gamma(1 / shape))
        out += [shape, mean, left, right]
    return out


@attrs.frozen(kw_only=True, eq=False)
class Naturalness:
    """What photographs' patches look like: mean (36,) and covariance (36, 36) of their features."""

    mean: Floats
    covariance: Floats

    @classmethod
    def fit(cls, photographs: Iterable[NDArray[np.uint8]]) -> Naturalness:
        """Of the sharp patches of photographs, each uint8 (H, W, 3); smaller ones than a patch are left out.

        Raises
        ------
        ValueError
            They have no more patches than features.
        """
        kept = []
        for pixels in photographs:
            if min(pixels.shape[:2]) >= PATCH:
                features, sharpness = patch_features(pixels)
                kept.append(features[sharpness >= SHARP * sharpness.max()])
        features = np.concatenate(kept) if kept else np.zeros((0, FEATURES))
        if len(features) <= FEATURES:
            raise ValueError(f"photographs takes some with more than {FEATURES} sharp patches, got {len(features)}")
        return cls(mean=features.mean(axis=0), covariance=np.cov(features.T))

    def distance(self, pixels: NDArray[np.uint8]) -> float:
        """NIQE of a picture, uint8 (H, W, 3): from 0, higher is less like a photograph. NaN below 96 px a side."""
        if min(pixels.shape[:2]) < PATCH:
            return float("nan")
        features, _ = patch_features(pixels)
        own = np.cov(features.T) if len(features) > 1 else np.zeros_like(self.covariance)
        gap = features.mean(axis=0) - self.mean
        inverse: Any = np.linalg.pinv((self.covariance + own) / 2)
        return float(np.sqrt(max(0.0, gap @ inverse @ gap)))


__all__ = ["FEATURES", "PATCH", "Naturalness", "aggd", "normalised_luminance", "patch_features"]

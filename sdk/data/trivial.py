"""Rules that look at nothing that matters. Where one of them tells the classes apart, a model's number is suspect.

`format`, `tables`, `size` and `blockiness` must stay at .55 AUC or below after `normalise`, or the number beside them
does not count; `sharpness` and `spectrum` are printed beside it, since content moves them too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

GATED = ("format", "tables", "size", "blockiness")
"""Rules that void a number when their AUC is above `LIMIT`."""
LIMIT = 0.55


def luma(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Rec. 601 luma, float32 (H, W), 0 to 255."""
    return (pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.float32)


def blockiness(pixels: NDArray[np.uint8]) -> float:
    """Strength of the strongest 8 x 8 grid: its mean step over that of the other columns and rows; 1 is no grid.

    All eight phases are tried, so that a cropped grid is found too.
    """
    y = luma(pixels)
    ratios = []
    for axis in (0, 1):
        steps = np.abs(np.diff(y, axis=axis)).mean(axis=1 - axis)
        phases = np.array([steps[p::8].mean() for p in range(8)])
        rest = (phases.sum() - phases) / 7
        ratios.append(float((phases / np.maximum(rest, 1e-6)).max()))
    return float(np.mean(ratios))


def sharpness(pixels: NDArray[np.uint8]) -> float:
    """Logarithm of the variance of the Laplacian of the luma."""
    y = luma(pixels)
    laplacian = 4 * y[1:-1, 1:-1] - y[:-2, 1:-1] - y[2:, 1:-1] - y[1:-1, :-2] - y[1:-1, 2:]
    return float(np.log1p(laplacian.var()))


def radial_spectrum(pixels: NDArray[np.uint8], bins: int = 16) -> NDArray[np.float32]:
    """Mean log power of the luma by spatial frequency.

    Returns
    -------
    float32 array of (bins,)
        From the lowest frequency to Nyquist.
    """
    y = luma(pixels)
    side = min(y.shape)
    y = y[:side, :side]
    hann = np.hanning(side).astype(np.float32)
    power = np.log(np.abs(np.fft.fft2((y - y.mean()) * hann[:, None] * hann[None, :])) ** 2 + 1.0)
    frequency = np.fft.fftfreq(side)
    radius = np.hypot(frequency[:, None], frequency[None, :])
    index = np.minimum((radius / 0.5 * bins).astype(int), bins)
    total = np.bincount(index.ravel(), power.ravel(), minlength=bins + 1)
    count = np.bincount(index.ravel(), minlength=bins + 1)
    return np.asarray(total[:bins] / np.maximum(count[:bins], 1), np.float32)


def spectrum_tail(pixels: NDArray[np.uint8]) -> float:
    """Mean log power of the upper quarter of the frequencies less that of the middle half."""
    spectrum = radial_spectrum(pixels)
    return float(spectrum[12:].mean() - spectrum[4:12].mean())


def separation(values: Sequence[float], labels: Sequence[int]) -> float:
    """AUC of a rule in its better direction, .5 to 1; .5 where it cannot be computed."""
    from sklearn.metrics import roc_auc_score

    if len(set(labels)) < 2:
        return 0.5
    auc = float(roc_auc_score(labels, values))
    return max(auc, 1 - auc)


def trivial_rules(columns: Mapping[str, Sequence[float]], labels: Sequence[int]) -> dict[str, float]:
    """AUC of each rule, in its better direction."""
    return {name: separation(values, labels) for name, values in columns.items()}

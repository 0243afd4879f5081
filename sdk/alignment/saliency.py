"""Where a picture catches the eye, without a network: the control that alignment with artifacts is held against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter

_SIDE = 64
_TIMES_MEAN = 3
"""From so many times the mean on a place is salient (the paper's threshold)."""


def salient(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Salient pixels by the spectral residual (Hou and Zhang, CVPR 2007).

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)

    Returns
    -------
    bool array of (H, W)
        Nothing where the picture is of one colour.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"pixels takes a uint8 array of (H, W, 3), got {pixels.dtype} {pixels.shape}")
    small = Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    grey = np.asarray(small, np.float64)
    if np.ptp(grey) == 0:
        return np.zeros(pixels.shape[:2], bool)
    spectrum = np.fft.fft2(grey)
    log = np.log(np.abs(spectrum) + 1e-9)
    residual = log - uniform_filter(log, 3, mode="wrap")
    seen = gaussian_filter(np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2, 2.5)
    flags = Image.fromarray((seen > _TIMES_MEAN * seen.mean()).astype(np.uint8) * 255)
    return np.asarray(flags.resize((pixels.shape[1], pixels.shape[0]), Image.Resampling.NEAREST)) > 127

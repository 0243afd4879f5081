"""The estimator measures noise, and the plugin keeps to what every plugin must keep to."""

import numpy as np
import pytest
from tellsign_noise.detector import noise_level

from tellsign import Detector

pytest_plugins = ["tellsign.devkit.pytest_plugin"]


def test_conformance(conformance):
    conformance("noise")


@pytest.mark.parametrize("sigma", [2.0, 5.0, 12.0])
def test_the_estimate_is_the_noise_that_was_added(sigma):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:224, 0:224]
    scene = 60 + 0.3 * x + 0.2 * y + 20 * (x > 100)
    noisy = scene + rng.normal(0, sigma, scene.shape)
    crop = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    assert noise_level(crop) == pytest.approx(sigma, rel=0.1)


def test_a_plane_has_no_noise():
    y, x = np.mgrid[0:50, 0:50]
    assert noise_level((2 * x + y).astype(np.uint8)[..., None].repeat(3, axis=2)) == pytest.approx(0, abs=1e-9)


def test_a_noisier_picture_scores_lower():
    rng = np.random.default_rng(1)
    scores = []
    with Detector(plugins=["noise"]) as detector:
        for sigma in (1, 4, 16):
            picture = np.clip(rng.normal(128, sigma, (300, 400, 3)), 0, 255).astype(np.uint8)
            (evidence,) = detector.collect(picture)
            scores.append(evidence.score)
    assert scores == sorted(scores, reverse=True)

"""The sign of up-scaling: seen on a lattice, and not on noise, blocks of JPEG or small pictures."""

import csv

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tellsign.data.normalise import reencode
from tellsign.plugins.segmentation.enhancement import SHORTEST, lattice
from tellsign.plugins.segmentation.training.__main__ import app


def grainy(side=256, seed=0):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(60, 190, (side // 16, side // 16, 3), dtype=np.uint8))
    base = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)).astype(float)
    return np.clip(base + rng.normal(0, 2, base.shape), 0, 255).astype(np.uint8)


def tiled(pixels, period, strength=1):
    """What a network's up-sampling leaves: the same small pattern every few pixels."""
    pattern = np.random.default_rng(1).integers(-strength, strength + 1, (period, period, 1))
    height, width = (-(-n // period) for n in pixels.shape[:2])
    whole = np.tile(pattern, (height, width, 1))[: pixels.shape[0], : pixels.shape[1]]
    return np.clip(pixels.astype(int) + whole, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("period", "strength"), [(2, 3), (4, 1)])
@pytest.mark.parametrize("height", [256, 251])
def test_a_lattice_of_two_or_four_pixels_is_seen(period, strength, height):
    told = lattice(tiled(grainy(), period, strength)[:height])
    assert told is not None
    assert told.rebuilt


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_none(seed):
    told = lattice(grainy(seed=seed))
    assert told is not None
    assert not told.rebuilt


def test_blocks_of_jpeg_are_none():
    for quality in (60, 85):
        told = lattice(reencode(grainy(), quality))
        assert told is not None
        assert not told.rebuilt
    # A lattice of eight pixels has peaks at the quarters too; those at the eighths say that it is JPEG's.
    told = lattice(tiled(grainy(), 8))
    assert told is not None
    assert told.quarters > 0.62
    assert not told.rebuilt


def test_a_small_picture_is_not_spoken_of():
    assert lattice(grainy()[: SHORTEST - 1]) is None


def test_a_flat_picture_is_none():
    told = lattice(np.full((200, 200, 3), 90, np.uint8))
    assert told is not None
    assert not told.rebuilt


def test_the_command_counts_by_kind(toys, tmp_path):
    forged = toys.draw_forged(tmp_path / "forged", count=4, side=192)
    Image.fromarray(tiled(grainy(), 4)).save(tmp_path / "up.png")
    with (tmp_path / "photos.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([["path", "label"], ["up.png", 0], ["missing.png", 1]])
    told = (
        CliRunner().invoke(app, ["lattice", "--folder", str(forged), "--photos", str(tmp_path / "photos.csv")]).stdout
    )
    assert "| photograph | 1 | 100.0 % |" in told
    assert "| untouched | 1 | 0.0 % |" in told

"""Measures of quality beside a detector's answers: NIQE's pieces, the table, and the correlation."""

import csv
import math

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.special import gamma
from typer.testing import CliRunner

from tellsign.artifacts.fidelity import correlations
from tellsign.artifacts.naturalness import FEATURES, Naturalness, aggd, normalised_luminance, patch_features
from tellsign.artifacts.quality import against_quality, read_quality
from tellsign.evaluation.items import DataError


def scene(seed, side=288):
    """Soft shapes and fine noise, as a photograph's."""
    rng = np.random.default_rng(seed)
    out = np.zeros((side, side, 3))
    for size in (4, 12, 36, 144, side):
        layer = Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        out += np.asarray(layer.resize((side, side), Image.Resampling.BICUBIC), float) / size**0.4
    out = 255 * (out - out.min()) / np.ptp(out)
    return np.clip(out + rng.normal(0, 3, out.shape), 0, 255).astype(np.uint8)


# -- NIQE ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [1.0, 2.0])
def test_the_asymmetric_gaussians_shape_and_scales_are_recovered(shape):
    rng = np.random.default_rng(0)
    draw = np.abs(rng.laplace(size=200_000) if shape == 1 else rng.normal(size=200_000))
    left, right = 0.5, 1.5  # each side in proportion to its scale, as the distribution has it
    values = np.where(rng.random(len(draw)) < left / (left + right), -left * draw, right * draw)
    found = aggd(values)
    # A Laplacian exp(-|x|) has scale 1; a normal exp(-x²/2) is exp(-(x/√2)²).
    unit = 1.0 if shape == 1 else math.sqrt(2)
    assert found == pytest.approx((shape, left * unit, right * unit), rel=0.03)


def test_values_that_do_not_vary_have_no_scale():
    assert aggd(np.zeros((4, 4)))[1:] == (0, 0)


def test_the_moment_ratio_is_the_distributions():
    # E|x|² / E[x²] of a Gaussian is 2/π, of which the table's inverse must be shape 2.
    assert gamma(1.0) ** 2 / (gamma(0.5) * gamma(1.5)) == pytest.approx(2 / math.pi)
    assert aggd(np.random.default_rng(0).normal(size=100_000))[0] == pytest.approx(2, abs=0.05)


def test_luminance_is_normalised_by_its_surroundings():
    normal, spread = normalised_luminance(np.full((20, 20), 90.0))
    assert np.abs(normal).max() < 1e-6
    assert np.abs(spread).max() < 1e-3
    noise = np.random.default_rng(0).normal(100, 20, (64, 64))
    normal, spread = normalised_luminance(noise)
    assert 0.5 < normal.std() < 1.2
    bright, _ = normalised_luminance(noise + 50)
    assert np.allclose(bright, normal, atol=1e-6)


def test_patches_have_36_features():
    features, sharpness = patch_features(scene(0, 200))
    assert features.shape == (4, FEATURES)
    assert sharpness.shape == (4,)
    assert np.isfinite(features).all()
    with pytest.raises(ValueError, match="96 px"):
        patch_features(np.zeros((90, 200, 3), np.uint8))


@pytest.fixture(scope="module")
def natural():
    return Naturalness.fit(scene(s) for s in range(12))


def test_pictures_that_are_blurred_or_noisy_are_less_natural(natural):
    for seed in (50, 51):
        clean = scene(seed)
        blurred = np.asarray(Image.fromarray(clean).filter(ImageFilter.GaussianBlur(2)))
        noisy = np.clip(clean + np.random.default_rng(0).normal(0, 40, clean.shape), 0, 255).astype(np.uint8)
        near = natural.distance(clean)
        assert near < natural.distance(blurred)
        assert near < natural.distance(noisy)
    assert math.isnan(natural.distance(np.zeros((50, 200, 3), np.uint8)))


def test_a_model_needs_more_patches_than_features():
    with pytest.raises(ValueError, match="more than 36 sharp patches"):
        Naturalness.fit([scene(0, 100), np.zeros((20, 20, 3), np.uint8)])


# -- the table and the correlation --------------------------------------------------------------------------------


def test_a_table_of_measures(tmp_path):
    file = tmp_path / "q.csv"
    file.write_text("name,niqe,mdfs\na,3.5,\nb,nan,2\nc,4,x\n")
    assert read_quality(file) == {"niqe": {"a": 3.5, "c": 4.0}, "mdfs": {"b": 2.0}}
    file.write_text("path,niqe\na,1\n")
    with pytest.raises(DataError, match="column `name`"):
        read_quality(file)
    with pytest.raises(DataError, match="cannot be read"):
        read_quality(tmp_path / "none.csv")


def test_the_correlation_by_hand():
    quality = {"niqe": {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}, "other": {}}
    out = against_quality(quality, list("abcde"), [0.9, 0.8, 0.2, 0.1, 0.5], list("abcde"), draws=20, seed=0)
    row = out["niqe"]
    assert (row["n"], row["n_missing"], row["mean"], row["accuracy"]) == (4, 1, 2.5, 0.5)
    assert row["spearman_p"] == pytest.approx(-1)
    # Ranks 1 2 3 4 against 3.5 3.5 1.5 1.5.
    assert row["spearman_right"] == pytest.approx(-4 / math.sqrt(5 * 4))
    assert out["other"]["n"] == 0
    assert out["other"]["spearman_p"] is out["other"]["mean"] is None
    with pytest.raises(ValueError, match="quality and p"):
        correlations(np.zeros(2), np.zeros(3))


def test_the_command_measures_what_is_missing(tmp_path):
    import typer

    from tellsign.artifacts.niqe import command

    for name, count in (("photographs", 10), ("real", 1), ("fake", 2)):
        folder = tmp_path / name if name == "photographs" else tmp_path / "data" / name
        folder.mkdir(parents=True)
        for k in range(count):
            Image.fromarray(scene(100 * len(name) + k)).save(folder / f"{k}.png")
    app = typer.Typer()
    app.command()(command)

    def call():
        out = tmp_path / "q.csv"
        words = [tmp_path / "data", "--photographs", tmp_path / "photographs", "--out", out]
        done = CliRunner().invoke(app, [str(w) for w in words])
        assert done.exit_code == 0, done.output
        return list(csv.DictReader(out.open()))

    rows = call()
    assert len({r["name"] for r in rows}) == 3
    assert all(float(r["niqe"]) > 0 for r in rows)
    (tmp_path / "q.csv").write_text(f"name,niqe\n{rows[0]['name']},7\n")
    again = {r["name"]: float(r["niqe"]) for r in call()}
    assert again[rows[0]["name"]] == 7
    assert len(again) == 3
    few = [str(tmp_path / "data"), "--photographs", str(tmp_path / "none"), "--out", str(tmp_path / "q.csv")]
    done = CliRunner().invoke(app, few)
    assert done.exit_code == 2
    assert "sharp patches" in done.output

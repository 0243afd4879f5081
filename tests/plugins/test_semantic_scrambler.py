"""The guard of the semantic view: a classifier that may learn anew behind the scrambler finds no trace there."""

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from tellsign.schemas import Picture
from tellsign.towers import semantic_square
from tellsign.views import semantic_view


def scene(rng, kind):
    """Stripes that lie or stand: the meaning. Grain: a sensor. No fine structure otherwise."""
    y, x = np.mgrid[0:192, 0:224]
    phase, period = rng.uniform(0, 6), rng.uniform(40, 70)
    wave = np.sin((y if kind else x) * 2 * np.pi / period + phase)[..., None]
    tint = rng.uniform(60, 180, 3)
    return tint + 40 * wave + rng.normal(0, 3, (192, 224, 3))


def up_sampled(values):
    """What a transposed convolution leaves: neighbours in a 2 x 2 cell share their value in part."""
    # The cell's mean, not one of its pixels: that would leave grain at half the resolution, which is no fine trace.
    small = values.reshape(96, 2, 112, 2, 3).mean(axis=(1, 3))
    return 0.6 * small.repeat(2, axis=0).repeat(2, axis=1) + 0.4 * values


def neighbouring(pixels):
    """Neighbouring-pixel residuals: mean magnitude by direction and by place in the 2 x 2 cell."""
    luma = pixels.astype(np.float64).mean(axis=2)
    steps = [np.abs(np.diff(luma, axis=a)) for a in (0, 1)]
    return np.log1p([s[i::2, j::2].mean() for s in steps for i in (0, 1) for j in (0, 1)])


def composition(pixels):
    """How much a thumbnail varies from row to row, and from column to column."""
    small = np.asarray(Image.fromarray(pixels).convert("L").resize((8, 8), Image.Resampling.BOX), np.float64)
    return [small.mean(axis=a).std() for a in (0, 1)]


def held_out_auc(features, labels):
    x, y = np.array(features), np.array(labels)
    half = len(x) // 2
    x = (x - x[:half].mean(0)) / (x[:half].std(0) + 1e-9)
    model = LogisticRegression(C=1.0, max_iter=1000).fit(x[:half], y[:half])
    return roc_auc_score(y[half:], model.decision_function(x[half:]))


def test_a_residual_classifier_falls_to_chance_and_the_meaning_stays():
    rng = np.random.default_rng(0)
    fake, meant, native, seen, squares = [], [], [], [], []
    for i in range(240):
        label, kind = i % 2, int(rng.integers(2))
        values = scene(rng, kind)
        pixels = np.clip(np.rint(up_sampled(values) if label else values), 0, 255).astype(np.uint8)
        view = semantic_view(Picture(pixels=pixels), key="k").image
        fake.append(label)
        meant.append(kind)
        native.append(pixels)
        seen.append(view)
        squares.append(semantic_square(view))
    assert held_out_auc([neighbouring(p) for p in native], fake) > 0.95
    for shown in (seen, squares):
        assert 0.35 < held_out_auc([neighbouring(p) for p in shown], fake) < 0.65
        assert held_out_auc([composition(p) for p in shown], meant) > 0.95

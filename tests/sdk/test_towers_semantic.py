"""One forward pass per view, whoever asks."""

import numpy as np
import pytest
import torch

from tellsign.runtime import DeviceRuntime
from tellsign.schemas import Picture
from tellsign.towers import ClipTower, class_tokens, clip_input, semantic_square, semantic_tokens
from tellsign.views import semantic_view


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    made = ClipTower(depth=3, width=64, heads=1, patch=16, size=64, projection=8)
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return made.eval()


def view(seed, width=96, height=80, key=None):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return semantic_view(Picture(pixels=pixels), key=key or f"v{seed}")


def test_the_square_is_the_middle_at_the_towers_size():
    image = np.zeros((60, 100, 3), np.uint8)
    image[:, 20:80] = 200
    for shown in (semantic_square(image, 30), semantic_square(image.transpose(1, 0, 2), 30)):
        assert shown.shape == (30, 30, 3)
        # The filter reaches one pixel beyond the square.
        assert (shown[1:-1, 1:-1] >= 200).all()
        assert (shown >= 180).all()
    assert semantic_square(np.zeros((1, 1, 3), np.uint8)).shape == (224, 224, 3)


def test_class_tokens_are_those_of_the_towers_own_pass(tower):
    squares = np.stack([semantic_square(view(s).image, 64) for s in range(3)])
    got = class_tokens(tower, squares)
    assert got.shape == (3, 3, 64)
    with torch.inference_mode():
        x = clip_input(torch.from_numpy(squares))
        want = tower.tokens(x, (1, 2, 3))
        for block in (1, 2, 3):
            torch.testing.assert_close(got[:, block - 1], want[block][:, 0])
        torch.testing.assert_close(tower.ln_post(got[:, -1]) @ tower.proj, tower(x))


def test_two_plugins_cost_one_forward_pass_per_view(tower):
    runtime = DeviceRuntime("cpu", batch_size=2)
    views = [view(s) for s in range(5)]
    with runtime.scope():
        first = semantic_tokens(views, tower, runtime, key="tiny")
        again = semantic_tokens(views[::-1], tower, runtime, key="tiny")
    assert runtime.counters.forwards == {"tiny/semantic": 5}
    assert all(a is b for a, b in zip(first, again[::-1], strict=True))


def test_what_is_said_of_a_view_does_not_depend_on_the_others(tower):
    runtime = DeviceRuntime("cpu", batch_size=2)
    views = [view(s) for s in range(5)]
    together = semantic_tokens(views, tower, runtime, key="tiny")
    for v, tokens in zip(views, together, strict=True):
        (alone,) = semantic_tokens([v], tower, runtime, key="tiny")
        torch.testing.assert_close(alone, tokens, atol=1e-5, rtol=1e-5)

"""A branch of a shared tower: only the last blocks anew, the class token alone in the very last."""

import copy

import numpy as np
import pytest
import torch

from tellsign.runtime import DeviceRuntime
from tellsign.schemas import Picture
from tellsign.towers import BRANCH, ClipTower, LoraSet, branch, class_tokens, clip_input, run_blocks, semantic_pass
from tellsign.views import semantic_view

DEPTH, WIDTH = 4, 64


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    made = ClipTower(depth=DEPTH, width=WIDTH, heads=2, patch=16, size=64, projection=8).eval()
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(std=0.2)
    return made


@pytest.fixture(scope="module")
def squares():
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


def updates(*blocks, zero=False, size=1.0):
    torch.manual_seed(1)
    lora = LoraSet.for_tower(WIDTH, blocks, rank=2, alpha=2.0)
    if not zero:
        with torch.no_grad():
            for up in lora.up.values():
                up.normal_(std=size)
    return lora


@pytest.mark.parametrize(("first", "last"), [(4, 4), (3, 4), (2, 3), (1, 4), (1, 1)])
def test_it_computes_what_the_whole_tower_with_the_updates_computes(tower, squares, first, last):
    lora = updates(*range(first, last + 1))
    with torch.inference_mode():
        _, kept = run_blocks(tower, squares, (first - 1,))
        whole = tower.tokens(clip_input(torch.from_numpy(squares)), (last,), lora)[last][:, 0]
        torch.testing.assert_close(branch(tower, kept[first - 1], first, last, lora), whole, atol=2e-4, rtol=1e-4)
        plain = class_tokens(tower, squares)[:, last - 1]
        assert (whole - plain).abs().max() > 0.01
        # Updates begin at nothing.
        none = branch(tower, kept[first - 1], first, last, updates(*range(first, last + 1), zero=True))
        torch.testing.assert_close(none, plain, atol=1e-5, rtol=1e-5)


def test_merged_weights_give_the_same(tower, squares):
    lora = updates(3, 4, size=0.05)
    merged = copy.deepcopy(tower)
    with torch.no_grad():
        for b in (3, 4):
            block = merged.transformer.resblocks[b - 1]
            block.attn.in_proj_weight += lora.delta(f"{b}.attn.in_proj")
            block.attn.out_proj.weight += lora.delta(f"{b}.attn.out_proj")
            for name in ("c_fc", "c_proj"):
                block.mlp[name].weight += lora.delta(f"{b}.mlp.{name}")
    with torch.inference_mode():
        _, kept = run_blocks(tower, squares, (2,))
        torch.testing.assert_close(
            branch(tower, kept[2], 3, 4, lora), branch(merged, kept[2], 3, 4), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize(("first", "last"), [(0, 2), (3, 2), (3, 5)])
def test_blocks_that_are_not_there_are_refused(tower, first, last):
    with pytest.raises(ValueError, match="1 <= first <= last <= 4"):
        branch(tower, torch.zeros(1, 17, WIDTH), first, last)


def test_one_pass_serves_all_who_ask_and_keeps_the_branching_tokens(tower, squares):
    runtime = DeviceRuntime("cpu", batch_size=2)
    views = [semantic_view(Picture(pixels=s), key=f"v{i}") for i, s in enumerate(squares)]
    with runtime.scope():
        first = semantic_pass(views, tower, runtime, key="t")
        second = semantic_pass(views[1:], tower, runtime, key="t")
    assert runtime.counters.forwards == {"t/semantic": 3}
    assert second[0] is first[1]
    for one in first:
        assert one.classes.shape == (DEPTH, WIDTH)
        assert one.branching.shape == (17, WIDTH)
    # The branch begins where the pass kept its tokens.
    with torch.inference_mode():
        again = branch(tower, first[0].branching[None], max(0, DEPTH - BRANCH) + 1, DEPTH)
    torch.testing.assert_close(again[0], first[0].classes[-1], atol=1e-4, rtol=1e-4)

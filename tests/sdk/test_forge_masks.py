"""Where forgeries are: the shapes, their sizes, and SAM's proposals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellsign.errors import SettingError, WeightsError
from tellsign.forge.copymove import OVERLAP, shifted
from tellsign.forge.masks import AREA, check_shares, dilated, draw_region, freeform, rectangle

SHARES = {"rectangle": 1.0, "freeform": 1.0}


@given(st.integers(64, 300), st.integers(64, 300), st.floats(0.02, 0.4), st.integers(0, 2**32 - 1))
def test_a_rectangle_covers_what_was_asked(height, width, area, seed):
    mask = rectangle(height, width, area, np.random.default_rng(seed))
    y, x = np.nonzero(mask)
    assert mask.sum() == (np.ptp(y) + 1) * (np.ptp(x) + 1)
    assert mask.mean() == pytest.approx(area, rel=0.2, abs=2 / min(height, width))


@given(st.floats(0.02, 0.4), st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_strokes_cover_what_was_asked(area, seed):
    mask = freeform(200, 260, area, np.random.default_rng(seed))
    assert area <= mask.mean() <= area + 0.12  # the last stroke may go beyond


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_every_region_is_of_a_size_that_copy_move_can_use(seed):
    region = draw_region(160, 200, np.random.default_rng(seed), shares=SHARES)
    assert AREA[0] <= region.mask.mean() <= AREA[1]
    origin = shifted(region.mask, *region.offset)
    assert origin.sum() == region.mask.sum()
    assert (origin & region.mask).sum() < OVERLAP * region.mask.sum()


def test_regions_are_drawn_in_the_stated_shares_and_repeat_with_the_seed():
    disc = np.hypot(*np.mgrid[-80:80, -100:100]) < 30
    drawn = [
        draw_region(160, 200, np.random.default_rng(s), shares=SHARES | {"sam": 2}, propose={"sam": lambda: [disc]})
        for s in range(300)
    ]
    counts = {s: sum(r.shape == s for r in drawn) / 300 for s in ("rectangle", "freeform", "sam")}
    assert counts == pytest.approx({"rectangle": 0.25, "freeform": 0.25, "sam": 0.5}, abs=0.1)
    again = draw_region(160, 200, np.random.default_rng(7), shares=SHARES, propose=None)
    assert np.array_equal(again.mask, draw_region(160, 200, np.random.default_rng(7), shares=SHARES).mask)


def test_objects_of_the_wrong_size_are_passed_over_and_asked_for_once():
    calls = []

    def propose():
        calls.append(1)
        return [np.ones((160, 200), np.bool_), np.zeros((160, 200), np.bool_)]

    region = draw_region(
        160, 200, np.random.default_rng(0), shares={"rectangle": 1e-9, "sam": 1}, propose={"sam": propose}
    )
    assert (region.shape, len(calls)) == ("rectangle", 1)


def test_where_no_shape_is_left_a_rectangle_serves():
    shares = {"sam": 1.0}
    region = draw_region(90, 90, np.random.default_rng(0), shares=shares, propose={"sam": lambda: []})
    assert region.shape == "rectangle"
    assert region.mask.mean() == pytest.approx(1 / 9)
    assert shifted(region.mask, *region.offset).sum() == region.mask.sum()


def test_growing_by_a_radius():
    dot = np.zeros((21, 21), np.bool_)
    dot[10, 10] = True
    assert np.array_equal(dilated(dot, 4), np.hypot(*np.mgrid[-10:11, -10:11]) <= 4)
    assert dilated(dot, 0) is dot


@pytest.mark.parametrize("shares", [{}, {"rectangle": 0}, {"rectangle": -1, "sam": 2}, {"circle": 1}, {"sam": np.nan}])
def test_shares_that_cannot_be_drawn_are_refused(shares):
    with pytest.raises(
        SettingError, match="shares takes shares of at least 0 for rectangle, freeform, sam, annotation"
    ):
        check_shares(shares)


def test_shares_sum_to_one():
    assert check_shares({"sam": 3, "rectangle": 1, "freeform": 0}) == {"rectangle": 0.25, "sam": 0.75}


# -- Segment Anything ---------------------------------------------------------------------------------------------


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    pytest.importorskip("segment_anything")
    from tellsign.towers.sam import load_sam

    with pytest.raises(WeightsError, match="there is no such file"):
        load_sam(tmp_path / "sam.pt")
    (tmp_path / "sam.pt").write_bytes(b"no zip")
    with pytest.raises(WeightsError, match="is no checkpoint that can be read"):
        load_sam(tmp_path / "sam.pt")
    import torch

    torch.save({"weight": torch.zeros(2)}, tmp_path / "sam.pt")
    with pytest.raises(WeightsError, match="is neither MobileSAM's nor segment-anything's checkpoint"):
        load_sam(tmp_path / "sam.pt")


@pytest.mark.slow
def test_mobile_sams_checkpoint_is_read_by_its_own_names(tmp_path):
    pytest.importorskip("segment_anything")
    import torch

    from tellsign.forge.sam import SamMasks
    from tellsign.towers import sam as towers_sam
    from tellsign.towers.sam import load_sam, tiny_vit_encoder

    torch.manual_seed(0)
    encoder = tiny_vit_encoder()
    theirs = {}
    for key, value in encoder.state_dict().items():
        name = key.removeprefix("vit.")
        for old, new in reversed(towers_sam._RENAMED):
            if name.startswith(new):
                name = old + name[len(new) :]
        # Their convolutions with a norm are called c and bn.
        name = name.replace(".conv.weight", ".c.weight")
        theirs[f"image_encoder.{name}"] = value
    assert "image_encoder.layers.2.downsample.conv2.c.weight" in theirs
    assert "image_encoder.layers.3.blocks.1.attn.attention_biases" in theirs
    theirs["image_encoder.norm_head.weight"] = torch.zeros(320)
    from segment_anything import sam_model_registry

    rest = {
        k: v
        for k, v in sam_model_registry["vit_b"]().state_dict().items()
        if not k.startswith(("image_encoder.", "pixel_"))
    }
    torch.save(theirs | rest, tmp_path / "mobile_sam.pt")
    model = load_sam(tmp_path / "mobile_sam.pt")
    for key, value in encoder.state_dict().items():
        assert torch.equal(model.image_encoder.state_dict()[key], value), key
    with torch.inference_mode():
        assert model.image_encoder(torch.zeros(1, 3, 1024, 1024)).shape == (1, 256, 64, 64)
    proposer = SamMasks(tmp_path / "mobile_sam.pt", points=1)
    assert all(m.shape == (64, 80) for m in proposer(np.zeros((64, 80, 3), np.uint8)))
    with pytest.raises(SettingError, match="points takes at least 1, got 0"):
        SamMasks(tmp_path / "mobile_sam.pt", points=0)

"""Marked pictures: X-AIGD's rows, forgeries that stand in for them, and the windows that alignment learns from."""

import csv
import json

import attrs
import numpy as np
import pytest
from PIL import Image

from tellsign.alignment.windows import MarkedWindows, scaled
from tellsign.artifacts import CATEGORIES
from tellsign.artifacts.rows import marked_pictures
from tellsign.errors import SettingError
from tellsign.evaluation.items import DataError
from tellsign.forge.manifest import FIELDS, ForgedRow
from tellsign.schemas import Category

SQUARE = [[0, 0], [7, 0], [7, 7], [0, 7]]


def x_aigd(folder):
    rows = []
    for name, labels in (("a", [{"label": "low-level-color", "points": SQUARE}]), ("b", [])):
        Image.fromarray(np.full((32, 48, 3), 90, np.uint8)).save(folder / f"{name}.png")
        rows.append({"image": f"{name}.png", "generator": "sd3", "uid": name, "labels": labels})
    (folder / "x.json").write_text(json.dumps(rows))
    (folder / "real").mkdir()
    Image.fromarray(np.full((40, 40, 3), 30, np.uint8)).save(folder / "real" / "r.png")
    return folder


def forged(folder, side=64):
    folder.mkdir()
    mask = np.zeros((side, side), np.uint8)
    mask[: side // 4, : side // 2] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    rng = np.random.default_rng(0)
    lines = []
    for name, kind, ai in (("u", "untouched", ""), ("i", "inpaint", "mask.png"), ("g", "generated", "ones")):
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(folder / f"{name}.png")
        row = ForgedRow(
            id=name, path=f"{name}.png", cls=int(bool(ai)), kind=kind, tool="", ai_mask=ai, ma_mask="", ai_loss=1,
            ma_loss=1, base="", donor="", group=name, source="s", seed=0, share=0.0,
        )  # fmt: skip
        lines.append(attrs.asdict(row))
    with (folder / "manifest.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, FIELDS)
        writer.writeheader()
        writer.writerows(lines)
    return folder


def test_rows_as_published_with_reals_beside_them(tmp_path):
    folder = x_aigd(tmp_path)
    pictures = {p.name: p for p in marked_pictures(folder / "x.json", reals=folder / "real")}
    assert [(p.label, p.known, p.local) for p in pictures.values()] == [(1, True, False)] * 2 + [(0, True, False)]
    pixels, masks = pictures["a.png"].load()
    assert pixels.shape == (32, 48, 3)
    assert masks.shape == (7, 32, 48)
    assert masks[CATEGORIES.index(Category.COLOR)].sum() == masks.sum() == 64
    assert not pictures["b.png"].load()[1].any()


def test_forged_regions_stand_for_a_category_and_whole_pictures_for_none(tmp_path):
    pictures = {p.name: p for p in marked_pictures(forged(tmp_path / "f"), standing_for=Category.SYMBOL)}
    assert [(p.label, p.known, p.local) for p in pictures.values()] == [
        (0, True, False),
        (1, True, True),
        (1, False, False),
    ]
    masks = pictures["i"].load()[1]
    assert masks[CATEGORIES.index(Category.SYMBOL)].mean() == 1 / 8
    assert not pictures["u"].load()[1].any()


def test_other_data_is_refused(tmp_path):
    for name in ("real", "fake"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name / "a.png")
    with pytest.raises(DataError, match="X-AIGD's rows or a forged folder"):
        marked_pictures(tmp_path)


@pytest.mark.parametrize(("side", "whole"), [(16, False), (32, True), (96, False)])
def test_windows_hold_the_region_half_of_the_pictures_are_real_and_draws_repeat(tmp_path, side, whole):
    windows = MarkedWindows.read([forged(tmp_path / "f")], side, whole=whole)
    out = windows.draw(8, np.random.default_rng(3))
    assert out.pixels.shape == (8, side, side, 3)
    assert out.masks.shape == (8, side, side)
    assert out.labels.tolist() == [0, 1] * 4  # the picture that is generated as a whole is left out
    assert [bool(m.any()) for m in out.masks] == [False, True] * 4
    if side >= 32:
        assert out.masks[1].mean() == 1 / 8
    again = windows.draw(8, np.random.default_rng(3))
    assert all(np.array_equal(a, b) for a, b in zip(out, again, strict=True))


def test_a_window_beside_the_region_is_real_only_where_the_rest_of_the_picture_is(tmp_path):
    local = marked_pictures(forged(tmp_path / "f"))
    blank = [attrs.evolve(p, read=lambda p=p: (p.load()[0], np.zeros((7, 64, 64), bool))) for p in local]
    assert MarkedWindows(blank, 16).draw(4, np.random.default_rng(0)).labels.tolist() == [0, 0, 0, 0]
    everywhere = [attrs.evolve(p, local=False) for p in blank]
    assert MarkedWindows(everywhere, 16).draw(4, np.random.default_rng(0)).labels.tolist() == [0, 1, 0, 1]


def test_one_class_alone_is_refused(tmp_path):
    pictures = marked_pictures(forged(tmp_path / "f"))
    with pytest.raises(SettingError, match="1 real and 0 marked"):
        MarkedWindows([p for p in pictures if p.name != "i"], 16)


def test_masks_are_scaled_with_their_pictures():
    mask = np.zeros((10, 20), bool)
    mask[:5] = True
    pixels, flags = scaled(np.zeros((10, 20, 3), np.uint8), mask, 8)
    assert pixels.shape == (8, 8, 3)
    assert flags[:4].all()
    assert not flags[4:].any()

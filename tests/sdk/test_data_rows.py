"""Rows and splits: on small manifests made here, and on the project's own pictures where they are."""

import csv
import io
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tellsign.data.duplicates import NEAR, near_pairs, perceptual_hash
from tellsign.data.rows import SPLITS, read_rows
from tellsign.errors import SettingError

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_pictures = pytest.mark.skipif(
    not (SHARED / "manifest.csv").is_file(), reason="the project's pictures are not beside this clone"
)
CROPS = (
    "crop,thumb,label,source,family,content,group,original_format,original_width,original_height,crop_x,crop_y,split"
)
WHOLE = "repo,original,path,label,source,content,split"


def table(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(",".join(map(str, r)) for r in rows)]) + "\n")


def crop_row(label, source, number, group, split):
    path = f"{'fake' if label else 'real'}/{source}/{number}.jpg"
    return (f"crop/{path}", f"thumb/{path}", label, source, "f", "photo", group, "PNG", 512, 512, 0, 0, split)


SPLIT_TABLE = {
    "fit": {"real": ["pets"], "fake": ["dalle"]},
    "fuse": {"real": ["both"], "fake": []},
    "user": {"real": [], "fake": []},
    "test": {"real": [], "fake": ["both"]},
}


@pytest.fixture
def shared(tmp_path):
    folder = tmp_path / "data"
    rows = [
        crop_row(0, "pets", 1, "pets/1", "fit"),
        crop_row(1, "dalle", 1, "prompt/a", "fit"),
        crop_row(0, "both", 1, "both/1", "fuse"),
        crop_row(1, "both", 2, "both/2", "test"),
    ]
    table(folder / "manifest.csv", CROPS, rows)
    (folder / "splits.json").write_text(json.dumps(SPLIT_TABLE))
    return folder


# -- reading ------------------------------------------------------------------------------------------------------


def test_crops_are_read_as_the_manifest_says(shared):
    rows = read_rows(shared)
    assert [(r.label, r.source, r.split, r.group) for r in rows] == [
        (0, "pets", "fit", "pets/1"),
        (1, "dalle", "fit", "prompt/a"),
        (0, "both", "fuse", "both/1"),
        (1, "both", "test", "both/2"),
    ]
    assert rows[0].path == shared / "crop" / "real" / "pets" / "1.jpg"


def test_whole_pictures_take_the_place_of_their_sources_crops(shared, tmp_path):
    full = tmp_path / "full"
    table(full / "manifest.csv", WHOLE, [("a/b", "x/Cat1.png", "p/0.png", 0, "pets", "photo", "fit")])
    rows = read_rows(shared, full)
    assert (rows[0].path, rows[0].label) == (full / "p" / "0.png", 0)
    assert [r.source for r in rows] == ["pets", "dalle", "both", "both"]
    # A source of one name on the other side is another source.
    table(full / "manifest.csv", WHOLE, [("a/b", "x/1.png", "p/0.png", 1, "both", "photo", "test")])
    assert [(r.label, r.source) for r in read_rows(shared, full)] == [
        (1, "both"),
        (0, "pets"),
        (1, "dalle"),
        (0, "both"),
    ]


@pytest.mark.parametrize(
    ("repo", "source", "one", "other", "apart"),
    [
        ("a/b", "food_phone", "d/Rice12S(3).jpg", "d/rice12T(14).jpg", "d/rice13S(3).jpg"),
        ("a/b", "product_studio", "d/AB12-front.jpg", "d/ab12-back.jpg", "d/ab13-front.jpg"),
        ("a/b", "polyu_noisy", "d/Canon5D_bag_Real.JPG", "d/canon5d_bag_mean.jpg", "d/canon5d_cup_mean.jpg"),
        ("dcsan/imagen", "imagen", "art/a-fox/0.png", "art/a-fox/1.png", "art/a-hen/0.png"),
    ],
)
def test_pictures_of_one_thing_share_a_group(tmp_path, repo, source, one, other, apart):
    shared, full = tmp_path / "data", tmp_path / "full"
    table(shared / "manifest.csv", CROPS, [])
    (shared / "splits.json").write_text(json.dumps({"fit": {"real": [source], "fake": []}}))
    names = (one, other, apart)
    rows = [(repo, name, f"{i}.jpg", 0, source, "photo", "fit") for i, name in enumerate(names)]
    table(full / "manifest.csv", WHOLE, rows)
    first, second, third = (r.group for r in read_rows(shared, full))
    assert first == second != third


def test_a_thing_that_cannot_be_told_is_a_group_of_its_own(tmp_path):
    shared, full = tmp_path / "data", tmp_path / "full"
    table(shared / "manifest.csv", CROPS, [])
    (shared / "splits.json").write_text(json.dumps({"fit": {"real": ["food_phone", "pets"], "fake": []}}))
    table(
        full / "manifest.csv",
        WHOLE,
        [
            ("a/b", "d/odd.jpg", "0.jpg", 0, "food_phone", "photo", "fit"),
            ("a/b", "d/Rice12S(3).jpg", "1.jpg", 0, "pets", "photo", "fit"),
        ],
    )
    assert [r.group for r in read_rows(shared, full)] == ["food_phone/d/odd.jpg", "pets/d/Rice12S(3).jpg"]


@pytest.mark.parametrize("name", ["manifest.csv", "splits.json"])
def test_a_folder_without_its_tables_is_refused(shared, name):
    (shared / name).unlink()
    with pytest.raises(SettingError, match=f"shared takes a folder with {name}"):
        read_rows(shared)


def test_whole_pictures_without_a_manifest_are_refused(shared, tmp_path):
    with pytest.raises(SettingError, match="manifest takes a CSV file"):
        read_rows(shared, tmp_path)


def test_a_row_in_another_split_than_its_source_is_refused(shared):
    text = (shared / "manifest.csv").read_text()
    (shared / "manifest.csv").write_text(text.replace("pets/1,PNG,512,512,0,0,fit", "pets/1,PNG,512,512,0,0,test"))
    with pytest.raises(SettingError, match=r"split of source 'pets' takes 'fit' \(splits.json\), got 'test'"):
        read_rows(shared)


def test_a_source_that_no_split_knows_is_refused(shared):
    splits = SPLIT_TABLE | {"fit": {"real": [], "fake": ["dalle"]}}
    (shared / "splits.json").write_text(json.dumps(splits))
    with pytest.raises(SettingError, match="split of source 'pets' takes None"):
        read_rows(shared)


def test_whole_pictures_are_held_to_the_splits_too(shared, tmp_path):
    full = tmp_path / "full"
    table(full / "manifest.csv", WHOLE, [("a/b", "x/1.png", "0.png", 1, "dalle", "generated", "fuse")])
    with pytest.raises(SettingError, match="split of source 'dalle' takes 'fit'"):
        read_rows(shared, full)


# -- pictures that are nearly the same ----------------------------------------------------------------------------


def scene(seed, height=300, width=360):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), float)
    return np.clip(smooth + rng.normal(0, 3, smooth.shape), 0, 255).astype(np.uint8)


def apart(a, b):
    return int(perceptual_hash(a) ^ perceptual_hash(b)).bit_count()


@pytest.mark.parametrize("seed", range(5))
def test_a_resized_and_re_encoded_copy_is_near_and_another_picture_is_not(seed):
    pixels = scene(seed)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((200, 167), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=60)
    copy = np.asarray(Image.open(buffer).convert("RGB"))
    assert apart(pixels, pixels) == 0
    assert apart(pixels, copy) <= NEAR
    assert apart(pixels, scene(seed + 50)) > 12
    assert apart(pixels, pixels[:, ::-1]) > NEAR


def test_a_hash_is_64_bits_of_which_half_are_set():
    value = perceptual_hash(scene(3))
    assert isinstance(value, np.uint64)
    assert int(value).bit_count() == 32


def test_pairs_are_those_within_the_distance():
    hashes = np.array([0, 0b1111, 0b11111, 2**64 - 1, 2**63], np.uint64)
    assert near_pairs(hashes) == [(0, 1), (0, 4), (1, 2)]
    assert near_pairs(hashes, distance=0) == []
    assert near_pairs(hashes, distance=64) == [(i, j) for i in range(5) for j in range(i + 1, 5)]
    assert near_pairs(hashes[:1]) == []


# -- the project's pictures ---------------------------------------------------------------------------------------


@needs_pictures
def test_no_picture_no_group_and_no_source_crosses_a_split():
    rows = read_rows(SHARED)
    assert len(rows) > 1000
    for what in (lambda r: r.path, lambda r: r.group, lambda r: (r.label, r.source)):
        splits = defaultdict(set)
        for row in rows:
            splits[what(row)].add(row.split)
        assert [k for k, s in splits.items() if len(s) > 1] == []
    assert {r.split for r in rows} == set(SPLITS)
    assert all(r.path.is_file() for r in rows)


@needs_pictures
def test_no_picture_nearly_equals_one_of_another_split():
    with (SHARED / "manifest.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    hashes = [perceptual_hash(np.asarray(Image.open(SHARED / r["thumb"]).convert("RGB"))) for r in rows]
    crossing = [
        (rows[i]["thumb"], rows[j]["thumb"])
        for i, j in near_pairs(np.array(hashes, np.uint64))
        if rows[i]["split"] != rows[j]["split"]
    ]
    assert crossing == []

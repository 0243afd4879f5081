"""Pictures that a plugin was trained on: the file, and who is recognised."""

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tellsign.data.duplicates import perceptual_hash
from tellsign.errors import SettingError, WeightsError
from tellsign.host import discover
from tellsign.tuning import known


def photo(seed, size=(320, 240)):
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8))
    return np.asarray(small.resize(size, Image.Resampling.BICUBIC))


def test_what_is_written_is_read_sorted_and_once(tmp_path):
    path = tmp_path / known.FILE
    assert known.write([5, 3, 5, 2**64 - 1], path) == 3
    assert known.read(path).tolist() == [3, 5, 2**64 - 1]
    first = path.read_bytes()
    known.write([2**64 - 1, 5, 3], path)
    assert path.read_bytes() == first


def test_thousands_of_hashes_are_read_in_milliseconds(tmp_path):
    path = tmp_path / known.FILE
    known.write(np.random.default_rng(0).integers(0, 2**63, 20_000).tolist(), path)
    known.read(path)
    begun = time.perf_counter()
    known.read(path)
    assert time.perf_counter() - begun < 0.5  # two milliseconds on a free machine


def test_a_picture_is_recognised_scaled_and_saved_anew_and_no_other_is(tmp_path):
    trained = {"pixel": np.unique(np.array([perceptual_hash(photo(s)) for s in range(50)], np.uint64))}
    again = Image.fromarray(photo(7)).resize((200, 150), Image.Resampling.LANCZOS)
    again.save(tmp_path / "again.jpg", quality=60)
    asked = [
        int(perceptual_hash(np.asarray(Image.open(tmp_path / "again.jpg")))),
        *(int(perceptual_hash(photo(s))) for s in range(100, 140)),
    ]
    assert known.recognise(asked, trained) == (known.Recognised(0, ("pixel",)),)
    assert known.recognise([], trained) == ()


@pytest.mark.parametrize(
    "content",
    [b"", b"not safetensors", b"\xff" * 64],
    ids=["empty", "text", "garbage"],
)
def test_a_broken_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / known.FILE
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=known.FILE):
        known.read(path)


def test_other_tensors_and_unsorted_ones_are_refused(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / known.FILE
    for tensors, kind in (
        ({"other": np.zeros(2, np.uint64)}, known.HASH),
        ({"hashes": np.array([2, 1], np.uint64)}, known.HASH),
        ({"hashes": np.array([1.0, 2.0])}, known.HASH),
        ({"hashes": np.array([1, 2], np.uint64)}, "another"),
    ):
        save_file(tensors, str(path), metadata={"hash": kind})
        with pytest.raises(WeightsError):
            known.read(path)
    with pytest.raises(SettingError, match="hash"):
        known.write([], path)


def test_the_file_beside_a_plugin_is_found(site):
    package = site.install("acme")
    assert known.installed(discover(allow=["acme"])) == {}
    known.write([1, 2, 3], package / known.FILE)
    assert known.installed(discover(allow=["acme"]))["acme"].tolist() == [1, 2, 3]


def test_the_pixel_plugin_brings_its_own():
    records = [r for r in discover() if r.name == "pixel"]
    if not records:
        pytest.skip("the pixel plugin is not installed")
    values = known.installed(records)["pixel"]
    assert len(values) > 1000
    assert values.dtype == np.uint64


def test_the_command_takes_hashes_or_paths(tmp_path):
    Image.fromarray(photo(1)).save(tmp_path / "a.png")
    (tmp_path / "rows.csv").write_text(f"path,split\n{tmp_path / 'a.png'},fit\n{tmp_path / 'missing.png'},test\n")
    out = tmp_path / known.FILE
    done = CliRunner().invoke(
        known.app, ["--csv", str(tmp_path / "rows.csv"), "--split", "fit", "--out", str(out)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    assert known.read(out).tolist() == [int(perceptual_hash(photo(1)))]
    (tmp_path / "hashes.csv").write_text("hash\n12\n11\n")
    done = CliRunner().invoke(known.app, ["--csv", str(tmp_path / "hashes.csv"), "--out", str(out)])
    assert known.read(out).tolist() == [11, 12]
    done = CliRunner().invoke(known.app, ["--csv", str(tmp_path / "hashes.csv"), "--split", "x", "--out", str(out)])
    assert done.exit_code == 2
    assert Path(out).is_file()

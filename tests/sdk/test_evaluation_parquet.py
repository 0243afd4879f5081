"""Data sets that come as parquet: read in place, a few rows at a time."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tellsign.errors import DecodeError
from tellsign.evaluation.dataset import FAKE, REAL, DataError, load
from tellsign.evaluation.layouts import parquet

pyarrow = pytest.importorskip("pyarrow", reason="parquet needs the extra `eval`")


def png(value, size=(8, 6)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (value,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def write(path, rows, row_group_size=4):
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=row_group_size)


def test_opensdi(tmp_path):
    half = Image.new("L", (8, 6), 0)
    half.paste(255, (0, 0, 4, 6))
    buffer = io.BytesIO()
    half.save(buffer, "PNG")
    mask = {"bytes": buffer.getvalue(), "path": None}
    rows = [
        {"key": "real/1.jpg", "image": {"bytes": png(10), "path": "1"}, "mask": None, "label": 0},
        {"key": "partial/1.jpg", "image": {"bytes": png(20), "path": "1"}, "mask": mask, "label": 1},
        {"key": "entire/2.jpg", "image": {"bytes": png(30), "path": "2"}, "mask": None, "label": 1},
    ]
    write(tmp_path / "data" / "sd3-00000-of-00001.parquet", rows)
    write(tmp_path / "data" / "flux-00000-of-00001.parquet", rows)
    dataset = load(tmp_path)
    assert dataset.layout == "opensdi"
    assert dataset.subsets == ("flux", "sd3")
    only = load(tmp_path, split="sd3")
    assert [(i.name, i.label, i.source, i.mask) for i in only.items] == [
        ("sd3-00000-of-00001.parquet#real/1.jpg", REAL, "OpenSDI real", False),
        ("sd3-00000-of-00001.parquet#partial/1.jpg", FAKE, "sd3, edited", True),
        ("sd3-00000-of-00001.parquet#entire/2.jpg", FAKE, "sd3, whole", False),
    ]
    assert only.items[0].group == only.items[1].group != only.items[2].group
    assert only.items[1].file == png(20)
    assert only.items[1].truth.mask(6, 8).sum() == 24
    assert not only.items[0].truth.mask(6, 8).any()
    assert only.items[2].truth is None
    with pytest.raises(DataError, match="has no split sdxl; it has flux, sd3"):
        load(tmp_path, split="sdxl")


def test_community_forensics(tmp_path):
    def row(name, label, model="", real="", architecture="GAN"):
        cells = {"image_name": name, "image_data": png(5), "model_name": model, "real_source": real, "label": label}
        return cells | {"architecture": architecture}

    rows = [
        row("1.png", 1, "acme/diff", architecture="LatDiff"),
        row("2.png", 1, "acme/gan"),
        row("3.png", 0, real="COCO", architecture="real"),
    ]
    write(tmp_path / "CompEval-0.parquet", rows)
    dataset = load(tmp_path)
    assert dataset.layout == "community-forensics"
    assert [(i.label, i.source, i.subsets) for i in dataset.items] == [
        (FAKE, "acme/diff", ("LatDiff",)),
        (FAKE, "acme/gan", ("GAN",)),
        (REAL, "COCO", ("LatDiff", "GAN")),
    ]
    write(tmp_path / "base" / "systematic.parquet", rows[:2])
    assert load(tmp_path / "base").count(REAL) == 0  # the base set holds generated pictures only


def test_x_aigd_and_what_an_unlabelled_split_does_not_say(tmp_path):
    square = [{"label": "low-level-color", "points": [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]}]
    rows = [{"image": {"bytes": png(9)}, "generator": "sd3", "uid": "u1", "labels": square}]
    write(tmp_path / "data" / "labeled_test-0.parquet", rows)
    write(tmp_path / "data" / "unlabeled_test-0.parquet", [rows[0] | {"labels": square[:0] or None}])
    dataset = load(tmp_path)
    assert (dataset.layout, dataset.split, dataset.count(FAKE)) == ("x-aigd", "labeled_test", 1)
    assert dataset.items[0].truth.mask(6, 8).sum() == 4
    assert load(tmp_path, split="unlabeled_test").items[0].truth is None


def test_any_parquet_of_image_and_label(tmp_path):
    rows = [{"image": {"bytes": png(1)}, "label": "real"}, {"image": {"bytes": png(2)}, "label": "fake"}]
    write(tmp_path / "test-0.parquet", rows)
    dataset = load(tmp_path / "test-0.parquet")
    assert dataset.layout == "image-label-parquet"
    assert [i.label for i in dataset.items] == [REAL, FAKE]
    write(tmp_path / "bad.parquet", [rows[0], rows[1] | {"label": "maybe"}])
    with pytest.raises(DataError, match="row 1: label must be 0, 1, real or fake, got 'maybe'"):
        load(tmp_path / "bad.parquet")


def test_rows_are_read_in_place_in_any_order_and_few_at_a_time(tmp_path):
    path = tmp_path / "many.parquet"
    write(path, [{"image": {"bytes": png(n)}, "label": n % 2} for n in range(50)], row_group_size=50)
    cells = [parquet.Cell(path, "image", n) for n in range(50)]
    order = [*range(50), 3, 49, 0]
    assert [cells[n].read() == png(n) for n in order] == [True] * len(order)
    column = parquet._open[path, "image"]
    assert len(column._values) <= parquet.BATCH
    with pytest.raises(DecodeError, match="row 50"):
        parquet.Cell(path, "image", 50).read()


def test_an_empty_cell_is_an_unreadable_picture(tmp_path):
    write(tmp_path / "a.parquet", [{"image": {"bytes": b""}, "label": 0}, {"image": {"bytes": png(1)}, "label": 1}])
    item = load(tmp_path / "a.parquet").items[0]
    with pytest.raises(DecodeError, match="holds no picture"):
        _ = item.file


def test_broken_files_and_missing_pyarrow_are_told(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        load(tmp_path / "x.parquet")
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from tellsign.evaluation.dataset import load\n"
        f"load({str(tmp_path / 'x.parquet')!r})"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'tellsign[eval]'" in out.stderr


def test_masks_of_another_size_are_resized(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.array([[255, 0]], np.uint8)).save(buffer, "PNG")
    rows = [
        {"key": "partial/1", "image": {"bytes": png(2)}, "mask": {"bytes": buffer.getvalue()}, "label": 1},
        {"key": "real/2", "image": {"bytes": png(3)}, "mask": None, "label": 0},
    ]
    write(tmp_path / "sd2-0.parquet", rows)
    mask = load(tmp_path).items[0].truth.mask(6, 8)
    assert mask[:, :4].all()
    assert not mask[:, 4:].any()

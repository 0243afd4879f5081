"""The CSV of one split, on a small folder made here."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tellsign.data.manifest import app
from tellsign.errors import SettingError
from tellsign.evaluation.dataset import load

CROPS = (
    "crop,thumb,label,source,family,content,group,original_format,original_width,original_height,crop_x,crop_y,split"
)
SOURCES = [(0, "pets", "fit"), (0, "phone", "test"), (1, "dalle", "test"), (1, "flux", "fuse")]


@pytest.fixture
def shared(tmp_path):
    """data/ with two crops of each source."""
    data = tmp_path / "shared" / "data"
    lines, splits = [CROPS], {s: {"real": [], "fake": []} for s in ("fit", "fuse", "user", "test")}
    for label, source, split in SOURCES:
        splits[split]["fake" if label else "real"].append(source)
        for i in range(2):
            path = data / "crop" / source / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)).save(path)
            lines.append(f"crop/{source}/{i}.png,t,{label},{source},f,photo,{source}/{i},PNG,8,8,0,0,{split}")
    (data / "manifest.csv").write_text("\n".join(lines) + "\n")
    (data / "splits.json").write_text(json.dumps(splits))
    return tmp_path / "shared"


def write(shared, out, split, *words):
    options = ["--shared", shared, "--split", split, "--out", out, *words]
    return CliRunner().invoke(app, [str(w) for w in options])


def rows(path):
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_the_csv_has_the_rows_of_that_split_alone(shared, tmp_path):
    out = tmp_path / "test.csv"
    result = write(shared, out, "test")
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == f"4 pictures of test in {out}"
    crop = shared / "data" / "crop"
    assert rows(out) == [
        {"path": str(crop / s / f"{i}.png"), "label": y, "source": s, "generator": g, "group": f"{s}/{i}"}
        for y, s, g in (("0", "phone", ""), ("1", "dalle", "dalle"))
        for i in range(2)
    ]


def test_eval_reads_what_was_written(shared, tmp_path):
    out = tmp_path / "elsewhere" / "test.csv"
    out.parent.mkdir()
    assert write(shared, out, "test").exit_code == 0
    items = load(out).items
    assert sorted((i.label, i.source, i.group) for i in items) == [
        (0, "phone", "phone/0"),
        (0, "phone", "phone/1"),
        (1, "dalle", "dalle/0"),
        (1, "dalle", "dalle/1"),
    ]
    assert all(i.path.is_file() for i in items)


def test_paths_hold_wherever_the_csv_is_read(shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write("shared", "fuse.csv", "fuse").exit_code == 0
    assert [r["path"] for r in rows(tmp_path / "fuse.csv")] == [
        str(shared / "data" / "crop" / "flux" / f"{i}.png") for i in range(2)
    ]


def test_whole_pictures_take_the_place_of_their_sources_crops(shared, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    text = "repo,original,path,label,source,content,split\na/b,x/1.png,p/0.png,1,dalle,photo,test\n"
    (full / "manifest.csv").write_text(text)
    assert write(shared, tmp_path / "test.csv", "test", "--full", full).exit_code == 0
    found = rows(tmp_path / "test.csv")
    assert [(r["source"], r["generator"]) for r in found] == [("dalle", "dalle"), ("phone", ""), ("phone", "")]
    assert found[0]["path"] == str(full / "p" / "0.png")


def test_an_empty_split_is_a_table_without_rows(shared, tmp_path):
    result = write(shared, tmp_path / "user.csv", "user")
    assert "0 pictures of user" in result.stdout
    assert (tmp_path / "user.csv").read_text().split() == ["path,label,source,generator,group"]


def test_a_split_that_is_none_is_refused_and_nothing_written(shared, tmp_path):
    result = write(shared, tmp_path / "out.csv", "train")
    assert result.exit_code == 2
    assert "fit, fuse, user, test" in " ".join(result.stderr.replace("│", " ").split())
    assert not (tmp_path / "out.csv").exists()


def test_a_folder_without_tables_is_refused(tmp_path):
    result = write(tmp_path, tmp_path / "out.csv", "test")
    assert isinstance(result.exception, SettingError)
    assert not (tmp_path / "out.csv").exists()

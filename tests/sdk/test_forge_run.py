"""A whole run: the plan, the files, the manifest, going on after a stop, bad input."""

import errno
import hashlib
import io
import json
import os

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tellsign.cli.app import app
from tellsign.data.trivial import blockiness
from tellsign.errors import SettingError
from tellsign.forge import ForgeError, Photo, Tools, forge, load, read_manifest, read_provenance
from tellsign.forge import run as forge_run
from tellsign.forge.labels import KINDS, TRUTH
from tellsign.forge.photos import erased_window, largest_side
from tellsign.forge.run import plan

ALL = tuple(KINDS)
FREE = ("untouched", "copymove", "splice", "classical")


def scenery(seed, height=260, width=300):
    """Soft shapes with grain: something to recognise, and noise everywhere."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8))
    soft = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), float)
    return np.clip(soft + rng.normal(0, 5, soft.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    made = []
    for i in range(6):
        fake = i >= 4
        source = ("cam", "phone")[i % 2] if not fake else "gan"
        path = folder / source / f"{i}.{'png' if fake else 'jpg'}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(scenery(i)).save(path, **({} if fake else {"quality": 80}))
        made.append(Photo(path=path, name=f"{source}/{path.name}", source=source, group=f"g{i}", fake=fake))
    return made


def fill(pixels, region, rng):
    out = pixels.copy()
    out[region] = rng.integers(0, 256, 3)
    return out


def everything(pixels, region, rng):
    return np.clip(fill(pixels, region, rng).astype(int) + 2, 0, 254).astype(np.uint8)


def twice(pixels):
    return np.repeat(np.repeat(pixels, 2, axis=0), 2, axis=1)


TOOLS = Tools(
    plain={"all": everything},
    blend={"flat": fill},
    roundtrip={"ae": lambda pixels, rng: 255 - pixels},
    upscale={"x2": twice},
)


def files(folder):
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def forged(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("forged")
    report = forge(photos, out, ALL, tools=TOOLS, scenes=4, seed=3)
    assert report.left_out == []
    assert report.made == 4 * len(ALL)
    return out


def test_every_kind_has_the_truth_of_the_table(forged):
    rows = read_manifest(forged)
    assert {r.kind for r in rows} == set(ALL)
    regions = {}
    for row in rows:
        pixels, ai, ma = load(forged, row)
        truth = TRUTH[row.kind]
        assert (row.cls, row.ai_loss, row.ma_loss) == (truth.cls, int(truth.ai_loss), int(truth.ma_loss))
        for extent, mask in ((truth.ai, ai), (truth.ma, ma)):
            assert mask.shape == pixels.shape[:2]
            if extent == "region":
                # All kinds of one scene share their region, so that no kind is told by its place.
                assert np.array_equal(regions.setdefault(row.id[:5], mask), mask)
                assert mask.mean() == pytest.approx(row.share, abs=1e-6)
            else:
                assert mask.all() if extent == "ones" else not mask.any()
    assert [r.share for r in rows if r.kind == "untouched"] == [0.0] * 4
    assert [r.share for r in rows if r.kind == "generated"] == [1.0] * 4


def test_outside_the_region_a_forgery_is_the_untouched_picture_bit_for_bit(forged):
    rows = {r.id: r for r in read_manifest(forged)}
    for row in rows.values():
        if row.kind in ("untouched", "generated", "inpaint", "enhanced"):
            continue
        pixels, _, region = load(forged, row)
        original = load(forged, rows[f"{row.id[:5]}-untouched"])[0]
        assert np.array_equal(pixels[~region], original[~region]), row.id
        assert (pixels != original).any(axis=2)[region].mean() > 0.5, row.id


def test_donors_are_of_another_group_and_bases_are_photographs(forged, photos):
    group = {p.name: p.group for p in photos}
    fake = {p.name: p.fake for p in photos}
    for row in read_manifest(forged):
        assert fake[row.base] == (row.kind == "generated")
        assert row.group == group[row.base]
        assert bool(row.donor) == (row.kind in ("splice", "aisplice"))
        if row.donor:
            assert group[row.donor] != row.group
            assert fake[row.donor] == (row.kind == "aisplice")


def test_the_provenance_tells_where_the_pixels_come_from(forged):
    told = read_provenance(forged)
    assert set(told) == {r.id for r in read_manifest(forged)}
    for name, record in told.items():
        top, left, side = record["base"]["window (top, left, side)"]
        assert 0 <= top <= 260 - side
        assert 0 <= left <= 300 - side
        assert ("region" in record) == (TRUTH[name[6:]].ma == "region")


def test_the_same_seed_gives_the_same_files_and_another_one_others(photos, forged, tmp_path):
    forge(photos, tmp_path / "a", ALL, tools=TOOLS, scenes=4, seed=3)
    assert files(tmp_path / "a") == files(forged)
    forge(photos, tmp_path / "b", ALL, tools=TOOLS, scenes=4, seed=4)
    same = set(files(tmp_path / "b").values()) & set(files(forged).values())
    assert len(same) <= 1


def test_a_stopped_run_goes_on_where_it_was(photos, forged, tmp_path):
    def stop(what, done, total):
        if what == "forging" and done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forge(photos, tmp_path, ALL, tools=TOOLS, scenes=4, seed=3, progress=stop)
    assert len(read_manifest(tmp_path)) == 7
    # A stop in the middle of a line, and of a file.
    for name in ("manifest.csv", "provenance.jsonl"):
        with (tmp_path / name).open("a") as handle:
            handle.write("00001-bl")
    report = forge(photos, tmp_path, ALL, tools=TOOLS, scenes=4, seed=3)
    assert report.made == 4 * len(ALL) - 7
    assert files(tmp_path) == files(forged)
    assert forge(photos, tmp_path, ALL, tools=TOOLS, scenes=4, seed=3).made == 0


def test_a_run_can_be_extended(photos, tmp_path):
    forge(photos, tmp_path, {"copymove": 2}, scenes=4)
    before = files(tmp_path / "pictures")
    report = forge(photos, tmp_path, {"copymove": 3, "untouched": None}, scenes=4)
    assert report.counts == {"copymove": 3, "untouched": 4}
    assert before.items() <= files(tmp_path / "pictures").items()


def test_other_settings_want_another_folder(photos, tmp_path):
    forge(photos, tmp_path, ["copymove"], scenes=1)
    before = files(tmp_path)
    with pytest.raises(ForgeError, match=r"made with other settings .seed was 0, now 1.: take another folder"):
        forge(photos, tmp_path, ["copymove"], scenes=1, seed=1)
    assert files(tmp_path) == before


def test_the_plan_gives_each_kind_its_count_and_grows_with_it():
    few, many = (plan({"blend": n, "splice": 3}, 50, 0) for n in (5, 20))
    assert sum("blend" in k for k in few.values()) == 5
    assert {i for i, k in few.items() if "blend" in k} < {i for i, k in many.items() if "blend" in k}
    assert list(many) == sorted(many)
    assert plan({"blend": None}, 4, 0).keys() == {0, 1, 2, 3}


def test_all_kinds_of_a_set_have_one_container_and_no_block_grid(forged, photos):
    assert {r.path[-4:] for r in read_manifest(forged)} == {".png"}
    # The photographs came as JPEG 80.
    before = np.mean([blockiness(np.asarray(Image.open(p.path))) for p in photos if not p.fake])
    after = np.mean([blockiness(load(forged, r)[0]) for r in read_manifest(forged) if r.kind == "untouched"])
    assert before > 1.15
    assert after < 1.1


def test_jpeg_windows_are_quality_96_whatever_the_kind(photos, tmp_path):
    forge(photos, tmp_path, ["untouched", "copymove", "generated"], scenes=1, container="jpeg")
    for row in read_manifest(tmp_path):
        with Image.open(tmp_path / row.path) as image:
            assert (image.format, sum(image.quantization[0]), sum(image.quantization[1])) == ("JPEG", 292, 443)


def test_whole_pictures_keep_their_bytes_and_forgeries_become_jpeg_96(photos, tmp_path):
    forge(photos, tmp_path, ["untouched", "copymove", "splice", "generated"], scenes=3, history="keep")
    bytes_of = {p.name: p.path.read_bytes() for p in photos}
    for row in read_manifest(tmp_path):
        data = (tmp_path / row.path).read_bytes()
        if row.kind == "untouched":
            assert data == bytes_of[row.base]
        else:
            assert sum(Image.open(io.BytesIO(data)).quantization[0]) == 292


def test_a_window_is_smaller_than_what_it_was_cut_from():
    pixels = scenery(0, 400, 500)
    for seed in range(20):
        out, (top, left, side) = erased_window(pixels, 240, np.random.default_rng(seed))
        assert out.shape == (240, 240, 3)
        assert 240 / 0.95 <= side <= 400
        assert top + side <= 400
        assert left + side <= 500
    assert largest_side(238) == 224
    assert largest_side(237) == 0
    assert largest_side(5000) == 384


def test_annotations_are_cut_like_their_picture(photos, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    for photo in photos[:4]:
        mask = np.zeros((260, 300), np.uint8)
        mask[80:180, 100:200] = 2  # above 1 is inside, as in TampCOCO
        Image.fromarray(mask).save(masks / f"{photo.path.stem}_thing.png")
    tools = Tools(annotations=masks)
    forge(photos, tmp_path / "out", ["classical"], tools=tools, scenes=3, shares={"annotation": 1})
    told = read_provenance(tmp_path / "out")
    for row in read_manifest(tmp_path / "out"):
        record = told[row.id]
        assert record["region"]["shape"] == "annotation"
        top, left, side = record["base"]["window (top, left, side)"]
        size, grown = record["base"]["size"][0], record["region"]["dilation"]
        y, x = np.nonzero(load(tmp_path / "out", row)[2])
        want = (np.array([80 - top, 180 - top, 100 - left, 200 - left]) * size / side).clip(0, size)
        have = np.array([y.min() + grown, y.max() + 1 - grown, x.min() + grown, x.max() + 1 - grown])
        inside = (want > grown + 1) & (want < size - grown - 1)
        assert np.abs(want - have)[inside].max(initial=0) <= 2


def test_an_annotation_of_another_size_is_told(photos, tmp_path):
    for photo in photos[:4]:
        Image.new("L", (10, 10), 255).save(tmp_path / f"{photo.path.stem}.png")
    report = forge(
        photos,
        tmp_path / "out",
        ["copymove"],
        tools=Tools(annotations=tmp_path),
        scenes=1,
        shares={"annotation": 1},
        history="keep",
    )
    assert report.made == 0
    assert "is 10 x 10 px, and its picture is 300 x 260" in report.left_out[0][1]


# -- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kinds": ["deepfake"]}, "kinds takes some of untouched, .*, got 'deepfake'"),
        ({"kinds": []}, "kinds takes some of"),
        ({"kinds": {"copymove": 0}}, "the count of copymove takes an integer of at least 1, got 0"),
        ({"history": "none"}, "history takes erase or keep, got 'none'"),
        ({"container": "webp"}, "container takes png or jpeg, got 'webp'"),
        ({"seed": -1}, "seed takes an integer of at least 0, got -1"),
        ({"scenes": 0}, "scenes takes an integer of at least 1, got 0"),
        ({"shares": {"rectangle": 0}}, "shares takes shares"),
    ],
)
def test_settings_that_are_not_allowed_are_named_before_anything_is_written(photos, tmp_path, change, message):
    options = {"kinds": ["copymove"]} | change
    with pytest.raises(SettingError, match=message):
        forge(photos, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("blend", "an inpainter .--migan"),
        ("inpaint", "an inpainter that writes the whole picture"),
        ("roundtrip", "an autoencoder"),
        ("upscale", "a network that doubles"),
    ],
)
def test_a_kind_without_its_tool_says_what_it_needs(photos, tmp_path, kind, what):
    with pytest.raises(ForgeError, match=f"the kind {kind} needs {what}"):
        forge(photos, tmp_path / "out", [kind])
    with pytest.raises(ForgeError, match="the kind generated needs generated pictures"):
        forge(photos[:4], tmp_path / "out", ["generated"])


def test_files_that_are_no_pictures_or_too_small_are_left_out_and_named(photos, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    Image.fromarray(scenery(0, 100, 900)).save(tmp_path / "flat.png")
    data = photos[0].path.read_bytes()
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])  # its header is whole
    bad = [
        Photo(path=tmp_path / n, name=n, source="bad", group=n)
        for n in ("text.jpg", "flat.png", "half.jpg", "none.jpg")
    ]
    report = forge([*photos, *bad], tmp_path / "out", ["untouched"], scenes=12)
    left = dict(report.left_out)
    assert left["text.jpg"] == "it is no picture that can be read"
    assert left["flat.png"] == "its short side is 100 px, and 238 are needed"
    assert left["none.jpg"] == "there is no such file"
    assert "ends too early" in left["half.jpg"]
    assert report.made == 12  # another base took the broken one's place
    with pytest.raises(
        ForgeError, match=r"no real picture left to forge: of text.jpg, it is no picture that can be read"
    ):
        forge(bad[:2], tmp_path / "out2", ["untouched"])
    with pytest.raises(ForgeError, match="there is no real picture to forge"):
        forge([], tmp_path / "out2", ["untouched"])


def test_a_full_disk_is_one_error_and_leaves_what_was_made(photos, tmp_path, monkeypatch):
    real = forge_run._write
    written = []

    def full(file, data):
        if len(written) == 4:  # the settings and three pictures
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(file)
        real(file, data)

    monkeypatch.setattr(forge_run, "_write", full)
    with pytest.raises(ForgeError, match=r"the disk of .* is full; what was made is there, and the same command"):
        forge(photos, tmp_path, FREE, scenes=4)
    assert len(read_manifest(tmp_path)) == 3
    monkeypatch.setattr(forge_run, "_write", real)
    assert forge(photos, tmp_path, FREE, scenes=4).made == 4 * len(FREE) - 3


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_one_error(photos, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ForgeError, match="cannot be written: Permission denied"):
        forge(photos, tmp_path / "out", ["copymove"], scenes=1)


def test_an_output_that_is_a_file_is_one_error(photos, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ForgeError, match="out cannot be written: "):
        forge(photos, tmp_path / "out", ["copymove"], scenes=1)


def test_a_manifest_of_something_else_is_refused(tmp_path):
    with pytest.raises(ForgeError, match=r"has no manifest.csv"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.csv").write_text("path,label\n")
    with pytest.raises(ForgeError, match="has other columns than id, path, cls"):
        read_manifest(tmp_path)


def test_a_mask_that_does_not_fit_is_refused(forged, tmp_path):
    import attrs

    row = next(r for r in read_manifest(forged) if r.kind == "blend")
    Image.new("L", (8, 8)).save(tmp_path / "small.png")
    with pytest.raises(ForgeError, match="and its picture is"):
        load(forged, attrs.evolve(row, ai_mask=str(tmp_path / "small.png")))
    with pytest.raises(ForgeError, match="cannot be read"):
        load(forged, attrs.evolve(row, ai_mask="masks/none.png"))


# -- the command --------------------------------------------------------------------------------------------------


def run(*args):
    return CliRunner().invoke(app, ["forge", *map(str, args)], env={"COLUMNS": "100", "TERMINAL_WIDTH": "100"})


def test_the_command_forges_a_folder(photos, tmp_path):
    folder = photos[0].path.parents[1]
    done = run(folder, "--out", tmp_path / "out", "--kinds", "copymove=2,splice", "--count", 1, "--scenes", 3)
    assert done.exit_code == 0, done.output
    assert "3 made now" in done.output
    rows = read_manifest(tmp_path / "out")
    assert sorted(r.kind for r in rows) == ["copymove", "copymove", "splice"]
    assert {r.source for r in rows} <= {"cam", "phone", "gan"}  # the folder's collections


def test_forgeries_inside_the_folder_are_not_photographs(photos, tmp_path):
    for photo in photos[:3]:
        (tmp_path / photo.path.name).write_bytes(photo.path.read_bytes())
    for made in (3, 0):
        done = run(tmp_path, "--out", tmp_path / "out", "--kinds", "untouched")
        assert done.exit_code == 0, done.output
        assert f"{made} made now" in done.output


def test_the_command_reads_a_table_and_its_split(photos, tmp_path):
    table = tmp_path / "rows.csv"
    lines = [f"{p.path},{int(p.fake)},{p.source},{p.group},{'test' if i == 0 else 'fit'}" for i, p in enumerate(photos)]
    table.write_text("\n".join(["path,label,source,group,split", *lines, ""]))
    done = run(table, "--out", tmp_path / "out", "--kinds", "generated,untouched", "--scenes", 8, "--split", "fit")
    assert done.exit_code == 0, done.output
    rows = read_manifest(tmp_path / "out")
    assert {r.source for r in rows if r.kind == "generated"} == {"gan"}
    assert str(photos[0].path) not in {r.base for r in rows}


def test_generated_pictures_may_lie_in_a_folder_of_their_own(photos, tmp_path):
    real, fake = photos[0].path.parent, photos[-1].path.parent
    done = run(real, "--generated", fake, "--out", tmp_path / "out", "--kinds", "aisplice", "--scenes", 2)
    assert done.exit_code == 0, done.output
    assert {r.donor for r in read_manifest(tmp_path / "out")} <= {"4.png", "5.png"}


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["nowhere", "--out", "o"], 2, "DATA must be a folder of photographs or a CSV file"),
        (["{real}", "--out", "o", "--kinds", "blend"], 1, "the kind blend needs an inpainter"),
        (["{real}", "--out", "o", "--kinds", "blend=x"], 2, "takes KIND or KIND=COUNT"),
        (["{real}", "--out", "o", "--kinds", "blink"], 2, "kinds takes some of"),
        (["{real}", "--out", "o", "--shares", "sam"], 2, "takes SHAPE=SHARE"),
        (["{real}", "--out", "o", "--split", "fit"], 2, "--split fit needs a CSV"),
        (["{real}", "--out", "o", "--generated", "nowhere"], 2, "nowhere is no folder"),
        (["{empty}", "--out", "o"], 1, "holds no pictures"),
        (["{real}", "--out", "o", "--upscaler", "none.onnx"], 1, "none.onnx: there is no such file"),
    ],
)
def test_wrong_usage_is_one_line(photos, tmp_path, monkeypatch, args, code, message):
    if "--upscaler" in args:
        pytest.importorskip("onnxruntime", reason="the extra `forge` is not installed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    done = run(*(a.format(real=photos[0].path.parent, empty=tmp_path / "empty") for a in args))
    assert done.exit_code == code, done.output
    assert message in " ".join(done.output.replace("│", " ").split())
    assert "Traceback" not in done.output


def test_pictures_left_out_are_named_and_counted(photos, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(12):
        (folder / f"{i:02d}.jpg").write_bytes(b"\xff\xd8\xffno")
    (folder / "good.jpg").write_bytes(photos[0].path.read_bytes())
    (folder / "also.jpg").write_bytes(photos[1].path.read_bytes())
    done = run(folder, "--out", tmp_path / "out", "--kinds", "untouched", "--count", 2)
    assert done.exit_code == 1
    assert "left out: 00.jpg: it is no picture that can be read" in done.output
    assert "left out: 2 more, mostly: it is no picture that can be read" in done.output
    assert len(read_manifest(tmp_path / "out")) == 2


def test_the_settings_are_kept_beside_the_forgeries(forged):
    kept = json.loads((forged / "forge.json").read_text())
    assert (kept["seed"], kept["scenes"], kept["history"]) == (3, 4, "erase")
    assert kept["tools"]["blend"] == ["flat"]

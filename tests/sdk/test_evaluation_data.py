import numpy as np
import pytest
from PIL import Image

from tellsign.errors import SettingError
from tellsign.evaluation import conditions
from tellsign.evaluation.dataset import DataError, load

GOOD = "path,label\na.png,0\nb.png,1\n"


def csv(folder, text, name="data.csv", encoding="utf-8"):
    path = folder / name
    path.write_text(text, encoding=encoding)
    return path


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("picture,label\na.png,0\n", "needs a column path (or crop), and its columns are: picture, label."),
        ("path,truth\na.png,0\n", "needs a column label, and its columns are: path, truth."),
        ("path;label\na.png;0\n", "needs a column path (or crop), and its columns are: path;label."),
        ("", "needs a column path (or crop), and its columns are: none."),
        ("path,label\n", "has a header and no rows."),
        ("path,label\na.png,0\nb.png,fake\n", "line 3: label must be 0 (real) or 1 (AI), got 'fake'."),
        ("path,label\na.png,2\n", "line 2: label must be 0 (real) or 1 (AI), got '2'."),
        ("path,label\na.png\n", "line 2: label must be 0 (real) or 1 (AI), got ''."),
        ("path,label\n,1\n", "line 2: the column path is empty."),
        ("path,label\na.png,0\nb.png,0\n", "holds no AI (label 1) picture."),
        ("path,label\na.png,1\n", "holds no real (label 0) picture."),
        ("path,label\na.png,1\nb.png,0\na.png,0\n", "gives a.png label 1 in line 2 and label 0 in line 4."),
    ],
)
def test_a_csv_that_cannot_be_used_says_why_in_one_sentence(tmp_path, text, words):
    with pytest.raises(DataError) as caught:
        load(csv(tmp_path, text))
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert message.count(". ") == 0


def test_a_csv_in_another_encoding_says_so(tmp_path):
    path = csv(tmp_path, "path,label\nä.png,0\n", encoding="latin-1")
    with pytest.raises(DataError, match="cannot be read as a CSV in UTF-8"):
        load(path)


def test_data_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="is neither"):
        load(tmp_path / "nothing.csv")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "it has no sub-folder"),
        (["real/a.png"], "it has real/"),
        (["photos/a.png", "ai/b.png"], "it has ai/, photos/"),
        (["real/a.png", "fake/.hidden.png"], "holds no AI (label 1) picture"),
    ],
)
def test_a_folder_that_cannot_be_used_says_why(tmp_path, files, words):
    touch(*(tmp_path / f for f in files))
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert words in str(caught.value)


def test_an_empty_class_folder_is_named(tmp_path):
    touch(tmp_path / "fake" / "x.png")
    (tmp_path / "real").mkdir()
    with pytest.raises(DataError, match=r"holds no real \(label 0\) picture"):
        load(tmp_path)


def test_csv_with_every_column(tmp_path):
    path = csv(
        tmp_path,
        "\ufeffpath, label ,generator,group,mask,source\n"
        "r.png,0,,scene1,,phone\nf.png,1,sd15,scene1,,set_a\ng.png,1.0,,,m.png,flux\nh.png,1,,,,\ni.png,0.0,,,,\n",
    )
    items = load(path).items
    assert [(i.name, i.label, i.source, i.group, i.mask) for i in items] == [
        ("r.png", 0, "phone", "scene1", False),
        ("f.png", 1, "sd15", "scene1", False),
        ("g.png", 1, "flux", "g.png", True),
        ("h.png", 1, "fake", "h.png", False),
        ("i.png", 0, "real", "i.png", False),
    ]
    assert items[0].path == tmp_path / "r.png"


def test_root_moves_relative_paths_and_leaves_absolute_ones(tmp_path):
    path = csv(tmp_path, f"path,label\na.png,0\n{tmp_path}/b.png,1\n")
    items = load(path, root=tmp_path / "far").items
    assert [i.path for i in items] == [tmp_path / "far" / "a.png", tmp_path / "b.png"]


def test_manifest_with_crops_and_splits(tmp_path):
    text = (
        "crop,thumb,label,source,group,split\nc/1,t/1,0,kodak,g1,fit\nc/2,t/2,1,sd,g2,test\nc/3,t/3,0,raise,g3,test\n"
    )
    path = csv(tmp_path, text)
    dataset = load(path, split="test")
    assert [i.name for i in dataset.items] == ["c/2", "c/3"]
    assert dataset.split == "test"
    assert dataset.notes == ()
    assert "all of its splits" in load(path).notes[0]
    with pytest.raises(DataError, match=r"has no split tset, and its splits are: fit, test\."):
        load(path, split="tset")
    with pytest.raises(DataError, match=r"split fit of .* holds no AI"):
        load(path, split="fit")


def test_split_and_root_where_they_mean_nothing(tmp_path):
    with pytest.raises(DataError, match="needs a column split"):
        load(csv(tmp_path, GOOD), split="test")
    touch(tmp_path / "real" / "a.png", tmp_path / "fake" / "b.png")
    with pytest.raises(DataError, match="--split test needs a CSV"):
        load(tmp_path, split="test")
    with pytest.raises(DataError, match="--root"):
        load(tmp_path, root=tmp_path)


def test_repeated_rows_count_once_and_are_told(tmp_path):
    dataset = load(csv(tmp_path, GOOD + "a.png,0\n"))
    assert len(dataset.items) == 2
    assert dataset.notes == ("1 rows repeat a picture that an earlier row names; each picture is counted once.",)


def test_folder_layout_gives_sources_and_generators(tmp_path):
    touch(
        *(tmp_path / "Real" / f for f in ("plain.jpg", "phone/x.jpg", "phone/deep/y.jpg", ".git/z.jpg", "notes.txt")),
        *(tmp_path / "fake" / f for f in ("sd/1.png", "loose.webp")),
        tmp_path / "other" / "ignored.png",
    )
    got = {(i.name, i.label, i.source) for i in load(tmp_path).items}
    assert got == {
        ("Real/plain.jpg", 0, "Real"),
        ("Real/phone/x.jpg", 0, "phone"),
        ("Real/phone/deep/y.jpg", 0, "phone"),
        ("Real/notes.txt", 0, "Real"),
        ("fake/sd/1.png", 1, "sd"),
        ("fake/loose.webp", 1, "fake"),
    }


def test_limit_halves_the_classes_and_spreads_over_the_sources(tmp_path):
    rows = "".join(f"big{i},1,big\n" for i in range(50)) + "small,1,small\n"
    rows += "".join(f"real{i},0,phone\n" for i in range(30))
    path = csv(tmp_path, "path,label,source\n" + rows)
    dataset = load(path, limit=10, seed=1)
    assert (dataset.count(0), dataset.count(1)) == (5, 5)
    assert "small" in {i.source for i in dataset.items}
    assert dataset == load(path, limit=10, seed=1)
    assert dataset != load(path, limit=10, seed=2)
    assert len(load(path, limit=1000).items) == 81
    uneven = load(path, limit=70)
    assert (uneven.count(0), uneven.count(1)) == (30, 40)
    with pytest.raises(DataError, match="at least 2"):
        load(path, limit=1)


def test_conditions_by_name():
    every = "native,jpeg90,jpeg70,jpeg40,webp,half,blur,screenshot"
    assert [c.name for c in conditions.parse(every)] == every.split(",")
    assert [c.name for c in conditions.parse(" half , native")] == ["half", "native"]


@pytest.mark.parametrize("names", ["", "native,native", "jpeg91", "native,"])
def test_conditions_that_are_not_there(names):
    with pytest.raises(SettingError, match="conditions takes some of native, jpeg90"):
        conditions.parse(names)


def test_what_each_condition_does():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)

    def out(name):
        return conditions.CONDITIONS[name].apply(pixels)

    from io import BytesIO

    for name, kind, size in (
        ("jpeg90", "JPEG", (90, 60)),
        ("jpeg70", "JPEG", (90, 60)),
        ("jpeg40", "JPEG", (90, 60)),
        ("webp", "WEBP", (90, 60)),
        ("screenshot", "PNG", (72, 48)),
    ):
        image = Image.open(BytesIO(out(name)))
        assert (image.format, image.size, image.mode) == (kind, size, "RGB"), name
    sums = [sum(Image.open(BytesIO(out(f"jpeg{q}"))).quantization[0]) for q in (90, 70, 40)]
    assert sums[0] == 736  # libjpeg's luma table at quality 90
    assert sums == sorted(sums)
    assert np.array_equal(out("native"), pixels)
    assert out("half").shape == (30, 45, 3)
    blurred = out("blur")
    assert blurred.shape == pixels.shape
    assert blurred.std() < 0.6 * pixels.std()


def test_conditions_keep_a_tiny_picture_alive():
    pixels = np.full((1, 1, 3), 200, np.uint8)
    for condition in conditions.CONDITIONS.values():
        assert condition.apply(pixels) is not None

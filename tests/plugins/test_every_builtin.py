"""What every plugin of this distribution must keep to, with the weights that ship and nothing else on the machine."""

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tellsign import decode
from tellsign.fusion.features import feature_row
from tellsign.host import Host, discover
from tellsign.plugin import DetectorPlugin
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import (
    HEADS,
    Evidence,
    FindingEvidence,
    MapEvidence,
    NotApplicable,
    ScoreEvidence,
)
from tellsign.schemas.codec import dumps, loads
from tellsign.views import build_view

RECORDS = {r.name: r for r in discover(environ={}) if r.distribution == "tellsign"}
every_builtin = pytest.mark.parametrize("name", sorted(RECORDS))


def folder_of(record):
    return Path(find_spec(record.module).origin).parent


def missing_weights(record):
    """Why the plugin cannot speak yet, or an empty string."""
    if record.name != "pixel":
        return ""
    file = folder_of(record) / "weights" / "pixel-bundled.safetensors"
    return "" if file.is_file() else f"{file.name} is not in the package"


def scene(mode, width, height):
    rng = np.random.default_rng(width * 7 + height)
    y, x = np.mgrid[0:height, 0:width]
    out = 120 + 60 * np.sin(x / 9 + y / 23)[..., None] * np.array([1, 0.7, -0.5]) + rng.normal(0, 6, (height, width, 3))
    image = Image.fromarray(np.clip(out, 0, 255).astype(np.uint8))
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.convert(mode)


PICTURES = (
    ("RGB", 1, 1),
    ("RGB", 64, 64),
    ("L", 128, 128),
    ("RGB", 200, 500),
    ("RGBA", 130, 140),
    ("P", 150, 128),
    ("1", 160, 128),
    ("I;16", 128, 130),
    ("CMYK", 140, 128),
    ("RGB", 2000, 128),
    ("RGB", 3, 4000),
    ("RGB", 1200, 900),
)


class Answers:
    """One plugin as a fresh installation has it, and what it says of `PICTURES` one by one."""

    def __init__(self, name, home):
        record = RECORDS[name]
        self.home = home
        self.runtime = DeviceRuntime("cpu")
        self.plugin = self.make(record)
        pictures = [decode(scene(*p)) for p in PICTURES]
        self.views = [build_view(record.declaration.task, p, f"picture {i}") for i, p in enumerate(pictures)]
        self.alone = [self.plugin.detect([v], self.runtime)[0] for v in self.views]

    def make(self, record):
        """An instance that was set up where no larger weights lie."""
        plugin = Host().load([record])[record.name]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TELLSIGN_HOME", str(self.home))
            patch.setenv("HF_HUB_OFFLINE", "1")
            plugin.setup(self.runtime)
        return plugin


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    made = cache(lambda name: Answers(name, tmp_path_factory.mktemp("home")))

    def get(name):
        reason = missing_weights(RECORDS[name])
        if reason:
            pytest.skip(reason)
        return made(name)

    return get


def flat(answer):
    """Numbers of an answer with what they belong to."""
    out = {}
    for e in answer:
        if isinstance(e, ScoreEvidence):
            out["score", e.name] = np.array([e.score, e.logit if e.logit is not None else 0.0])
        elif isinstance(e, MapEvidence):
            out["map", e.name] = e.map
        elif isinstance(e, FindingEvidence):
            out["finding", e.category, e.region] = np.array([e.strength])
        else:
            out[e.kind, repr(e)] = np.zeros(1)
    return out


def agree(one, other, atol):
    one, other = flat(one), flat(other)
    assert one.keys() == other.keys()
    for key, value in one.items():
        np.testing.assert_allclose(value, other[key], atol=atol, rtol=atol, err_msg=str(key))


# -- before any of its code runs ----------------------------------------------------------------------------------


def test_the_builtins_are_found():
    assert "pixel" in RECORDS


@every_builtin
def test_the_manifest_is_valid(name):
    record = RECORDS[name]
    assert (record.state, record.reason) == ("ok", "")
    text = (folder_of(record) / "tellsign.json").read_text(encoding="utf-8")
    assert loads(dumps(record.declaration), type(record.declaration)) == record.declaration
    assert record.declaration.columns
    assert record.declaration.detector.split(":")[0].startswith(record.module)
    assert text.isascii()


@every_builtin
def test_the_class_loads(name):
    host = Host()
    plugin = host.load([RECORDS[name]])[name]
    assert isinstance(plugin, DetectorPlugin)
    assert [r.state for r in host.records] == ["ok"]
    assert plugin.declaration == RECORDS[name].declaration


@every_builtin
def test_declared_weights_files_are_those_that_ship(name):
    folder = folder_of(RECORDS[name])
    for declared in RECORDS[name].declaration.weights:
        content = (folder / declared.file).read_bytes()
        assert len(content) == declared.size, declared.file
        assert hashlib.sha256(content).hexdigest() == declared.sha256, declared.file


def test_the_pixel_plugins_weights_are_all_there():
    weights = folder_of(RECORDS["pixel"]) / "weights"
    if not weights.is_dir():
        pytest.skip("the pixel plugin's weights are still being trained")
    from tellsign.plugins.pixel.weights_files import BUNDLED, TOWER, load_adapter, load_bundled, version_of

    assert BUNDLED.parent == TOWER.parent == weights
    for file, load in ((BUNDLED, load_bundled), (TOWER, load_adapter)):
        assert file.is_file(), f"{file.name} does not ship"
        assert all(p.isfinite().all() for p in load(file).parameters())
        assert "?" not in version_of(file)
    assert load_bundled().tower.width == 768
    # Together they must leave room in a wheel of at most 100 MB.
    assert sum(f.stat().st_size for f in weights.iterdir()) < 60e6


# -- what it says -------------------------------------------------------------------------------------------------


@every_builtin
def test_every_picture_gets_valid_evidence(name, answers):
    plugin = answers(name)
    declaration = RECORDS[name].declaration
    for answer, about in zip(plugin.alone, PICTURES, strict=True):
        assert answer, about
        for e in answer:
            assert isinstance(e, Evidence), about
            assert (e.plugin, e.task) == (name, declaration.task)
            assert e.kind not in ("failed", "unavailable"), about
            if isinstance(e, ScoreEvidence):
                assert np.isfinite(e.score)
                assert 0 <= e.score <= 1
                assert e.logit is None or np.isfinite(e.logit)
            if isinstance(e, MapEvidence):
                assert e.map.dtype == np.float32
                assert np.isfinite(e.map).all()
                assert 0 <= e.map.min() <= e.map.max() <= 1
                assert e.box.right <= about[1]
                assert e.box.bottom <= about[2]
            assert type(loads(dumps(e), Evidence)) is type(e)
        # Either it has something to say or it does not apply: never both.
        assert {isinstance(e, NotApplicable) for e in answer} in ({True}, {False}), about


@every_builtin
def test_an_ordinary_picture_is_spoken_of(name, answers):
    if RECORDS[name].declaration.task == "provenance":
        pytest.skip("a picture without a file claims nothing")
    assert not any(isinstance(e, NotApplicable) for e in answers(name).alone[-1])


@every_builtin
def test_names_of_the_evidence_are_declared_and_reach_the_fusion(name, answers):
    declaration = RECORDS[name].declaration
    declared = {c.evidence for c in declaration.columns}
    for answer in answers(name).alone:
        scores = [e for e in answer if isinstance(e, ScoreEvidence)]
        assert {e.name for e in scores} <= declared
        assert len({e.name for e in scores}) == len(scores)
        rows = [feature_row(answer, {name: declaration}, head) for head in HEADS]
        given = {k for row in rows for k, v in row.items() if np.isfinite(v)}
        named = {f"{name}.{c.name}" for c in declaration.columns for e in scores if e.name == c.evidence}
        assert named <= given


@every_builtin
def test_a_batch_gives_what_each_picture_gives_alone(name, answers):
    plugin = answers(name)
    together = plugin.plugin.detect(plugin.views, plugin.runtime)
    assert len(together) == len(plugin.views)
    for one, other in zip(plugin.alone, together, strict=True):
        agree(one, other, 1e-5)


@every_builtin
def test_two_calls_and_two_instances_agree(name, answers):
    plugin = answers(name)
    some = [i for i, (_, w, h) in enumerate(PICTURES) if w * h < 30_000]
    again = [plugin.plugin.detect([plugin.views[i]], plugin.runtime)[0] for i in some]
    other = plugin.make(RECORDS[name])
    fresh = [other.detect([plugin.views[i]], plugin.runtime)[0] for i in some]
    for i, a, b in zip(some, again, fresh, strict=True):
        assert list(a) == list(plugin.alone[i]), PICTURES[i]
        assert list(b) == list(plugin.alone[i]), PICTURES[i]


@every_builtin
def test_eight_threads_get_what_one_gets(name, answers):
    plugin = answers(name)
    some = [i for i, (_, w, h) in enumerate(PICTURES) if w * h < 30_000]
    with ThreadPoolExecutor(8) as pool:
        jobs = (some * 2)[: max(8, len(some))]
        got = list(pool.map(lambda i: plugin.plugin.detect([plugin.views[i]], plugin.runtime)[0], jobs))
    for i, answer in zip(jobs, got, strict=True):
        agree(answer, plugin.alone[i], 1e-5)


@every_builtin
def test_what_a_grey_picture_is_stored_as_does_not_matter(name, answers):
    if RECORDS[name].declaration.task == "provenance":
        pytest.skip("provenance reads the file, not the pixels")
    plugin = answers(name)
    grey = scene("L", 128, 128)
    stored = io.BytesIO()
    grey.convert("RGB").save(stored, "PNG")
    view = build_view(RECORDS[name].declaration.task, decode(stored.getvalue()), "grey")
    agree(plugin.plugin.detect([view], plugin.runtime)[0], plugin.alone[2], 1e-6)

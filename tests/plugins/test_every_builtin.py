"""What every plugin of this distribution must keep to, with the weights that ship and nothing else on the machine.

A plugin that is added to pyproject.toml is checked here without another line.
"""

import pytest

from tellsign.host import discover
from tellsign.schemas import Declaration
from tellsign.schemas.codec import dumps, loads

pytest_plugins = ["tellsign.devkit.pytest_plugin"]

RECORDS = {r.name: r for r in discover(environ={}) if r.distribution == "tellsign"}
every_builtin = pytest.mark.parametrize("name", sorted(RECORDS))


@pytest.fixture(scope="module", autouse=True)
def fresh_installation(tmp_path_factory):
    """No larger weights, and no hub."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TELLSIGN_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


def test_the_builtins_are_found():
    assert "pixel" in RECORDS
    assert {r.state for r in RECORDS.values()} == {"ok"}, [r.reason for r in RECORDS.values()]


FINDINGS_ALONE = "it makes findings alone, where it has any: no column takes part in the fusion (docs/artifacts.md)"
EXPECTED = {"artifacts": dict.fromkeys(("declaration", "every_picture", "columns"), FINDINGS_ALONE)}


@every_builtin
def test_it_passes_every_conformance_check(name, conformance):
    """`tellsign plugins check`, one test for each check. Where a plugin cannot speak here, the skip says why."""
    conformance(name, expected=EXPECTED.get(name))


@every_builtin
def test_the_manifest_is_ascii_and_comes_back_from_json(name):
    record = RECORDS[name]
    assert (record.folder / "tellsign.json").read_text(encoding="utf-8").isascii()
    assert loads(dumps(record.declaration), Declaration) == record.declaration
    assert record.declaration.detector.split(":")[0].startswith(record.module)


def test_the_pixel_plugins_weights_are_all_there():
    weights = RECORDS["pixel"].folder / "weights"
    if not weights.is_dir():
        pytest.skip("the pixel plugin's weights are still being trained")
    from tellsign.plugins.pixel.weights_files import BUNDLED, TOWER, load_adapter, load_bundled
    from tellsign.weights.files import version_of

    assert BUNDLED.parent == TOWER.parent == weights
    for file, load in ((BUNDLED, load_bundled), (TOWER, load_adapter)):
        assert file.is_file(), f"{file.name} does not ship"
        assert all(p.isfinite().all() for p in load(file).parameters())
        assert "?" not in version_of(file)
    assert load_bundled().tower.width == 768
    # Together they must leave room in a wheel of at most 100 MB.
    assert sum(f.stat().st_size for f in weights.iterdir()) < 60e6

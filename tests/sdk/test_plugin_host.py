import sys

import attrs
import pytest

from tellsign.errors import SettingError
from tellsign.host import Host, discover
from tellsign.schemas import Box, Category, InvalidValueError, MapEvidence, ScoreEvidence, Task


def record_of(name, **options):
    return next(r for r in discover(**options) if r.name == name)


def load(**options):
    host = Host(**options)
    made = host.load(discover())
    return made, {r.name: r for r in host.records}


# -- discovery ----------------------------------------------------------------------------------------------------


def test_discovery_reads_the_declaration_and_imports_nothing(site):
    site.install("smudge", init="raise RuntimeError('imported')", task="semantic")
    record = record_of("smudge")
    assert (record.state, record.reason) == ("ok", "")
    assert (record.distribution, record.version, record.module) == ("acme-smudge", "3.1", "acme_smudge")
    assert record.declaration.task is Task.SEMANTIC
    assert "acme_smudge" not in sys.modules


@pytest.mark.parametrize("order", [("alpha", "beta", "gamma"), ("gamma", "alpha", "beta")])
def test_records_are_sorted_whatever_the_order_of_installation(site, order):
    for name in order:
        site.install(name)
    names = [r.name for r in discover()]
    assert names == sorted(names)
    assert [n for n in names if n in order] == ["alpha", "beta", "gamma"]


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda package: (package / "tellsign.json").unlink(), "no tellsign.json beside the module 'acme_smudge'"),
        (lambda package: (package / "tellsign.json").write_text("{"), "JSONDecodeError"),
        (lambda package: (package / "tellsign.json").write_text("[]"), "CodecError"),
        (lambda package: (package / "tellsign.json").write_bytes(b"\xff\xfe\xff"), "UnicodeDecodeError"),
    ],
)
def test_a_broken_manifest_is_a_record_with_the_reason(site, break_it, reason):
    break_it(site.install("smudge"))
    record = record_of("smudge")
    assert record.state == "failed"
    assert reason in record.reason
    assert record.declaration is None


def test_a_manifest_with_a_bad_field_names_the_field(site):
    site.install("smudge", commercial_use="perhaps")
    assert "commercial_use" in record_of("smudge").reason


def test_a_manifest_of_another_name_is_refused(site):
    site.install("smudge", entry="smear")
    assert record_of("smear").reason == "the entry point is called 'smear', but tellsign.json says 'smudge'"


def test_a_module_that_is_not_there_is_a_record(site):
    site.write_metadata("acme-ghost", ["ghost = acme_ghost"])
    site.allow("ghost")
    assert "'acme_ghost', which is not there" in record_of("ghost").reason


def test_a_parent_package_runs_when_the_plugin_is_loaded_and_not_before(site):
    site.install("child", module="broken_parent.child")
    (site.folder / "broken_parent" / "__init__.py").write_text("raise RuntimeError('parent is broken')")
    assert record_of("child").state == "ok"
    assert record_of("child", deny=["child"]).state == "disabled"
    made, records = load()
    assert made == {}
    assert (records["child"].state, records["child"].reason) == ("failed", "RuntimeError: parent is broken")


def test_a_module_below_a_module_that_is_no_package_is_not_there(site):
    site.install("child", module="acme_child")
    site.write_metadata("acme-child", ["child = acme_child.detector.deeper"])
    assert "'acme_child.detector.deeper', which is not there" in record_of("child").reason


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (2, "written for version 2 of the plugin API, this tellsign speaks version 1: upgrade tellsign"),
        (0, "written for version 0 of the plugin API, this tellsign speaks version 1: upgrade acme-smudge"),
    ],
)
def test_another_api_version_is_incompatible_even_with_fields_that_are_not_known(site, version, reason):
    site.install("smudge", api_version=version, a_field_of_the_future=1)
    record = record_of("smudge")
    assert (record.state, record.reason) == ("incompatible", reason)


@pytest.mark.parametrize(
    ("newest", "older", "taken"), [(1, [], 1), (2, [1], 1), (3, [0, 1, 2], 1), (1, [0], 1), (1, [2], 1)]
)
def test_of_several_api_versions_the_highest_that_both_speak_is_taken(site, newest, older, taken):
    site.install("smudge", api_version=newest, older_api_versions=older)
    record = record_of("smudge")
    assert (record.state, record.reason) == ("ok", "")
    assert record.declaration.api_version == taken
    assert load()[0]["smudge"].declaration.api_version == taken


@pytest.mark.parametrize(
    ("newest", "older", "reason"),
    [
        (
            4,
            [3, 2],
            "written for versions 2, 3 and 4 of the plugin API, this tellsign speaks version 1: upgrade tellsign",
        ),
        (2, [0], "written for versions 0 and 2 of the plugin API, this tellsign speaks version 1: upgrade acme-smudge"),
    ],
)
def test_several_api_versions_and_none_that_fits(site, newest, older, reason):
    site.install("smudge", api_version=newest, older_api_versions=older)
    assert (record_of("smudge").state, record_of("smudge").reason) == ("incompatible", reason)


@pytest.mark.parametrize("older", ["1", [1.0], [True], 1])
def test_older_api_versions_that_are_none_are_told_as_such(site, older):
    site.install("smudge", older_api_versions=older)
    assert "older_api_versions" in record_of("smudge").reason


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"commercial_only": True}, ["free"]),
        ({"environ": {"TELLSIGN_COMMERCIAL_ONLY": "yes"}}, ["free"]),
        ({"environ": {"TELLSIGN_COMMERCIAL_ONLY": "0"}}, ["free", "research"]),
        ({}, ["free", "research"]),
    ],
)
def test_the_licence_filter(site, options, left):
    site.install("free")
    site.install("research", commercial_use=False, weights_licence="CC-BY-NC-4.0")
    ours = {r.name: r for r in discover(**options) if r.name in ("free", "research")}
    assert [n for n, r in ours.items() if r.state == "ok"] == left
    if "research" not in left:
        assert ours["research"].state == "disabled"
        assert ours["research"].reason == (
            "its licences (code Apache-2.0, weights CC-BY-NC-4.0) allow no commercial use"
        )


def test_the_licence_filter_sees_the_weights_that_a_plugin_shares(site, monkeypatch):
    from tellsign.weights import SPECS

    spec = SPECS["clip-vit-b16"]
    site.install("free")
    site.install("sharing", shared_weights=["clip-vit-l14-336", "clip-vit-b16"])
    assert {r.state for r in discover(commercial_only=True) if r.name in ("free", "sharing")} == {"ok"}
    monkeypatch.setitem(SPECS, spec.name, attrs.evolve(spec, licence="CC-BY-NC-4.0", commercial_use=False))
    ours = {r.name: r for r in discover(commercial_only=True) if r.name in ("free", "sharing")}
    assert (ours["free"].state, ours["sharing"].state) == ("ok", "disabled")
    assert ours["sharing"].reason == "it uses weights that allow no commercial use: clip-vit-b16 (CC-BY-NC-4.0)"
    assert {r.state for r in discover() if r.name == "sharing"} == {"ok"}


def test_shared_weights_that_nobody_knows_are_refused(site, tmp_path):
    site.install("sharing", shared_weights=["clip-vit-b17"])
    words = "it shares the weights clip-vit-b17, and this tellsign knows clip-vit-b16, clip-vit-l14-336"
    assert (record_of("sharing").state, record_of("sharing").reason) == ("failed", words)
    file = tmp_path / "alone.py"
    file.write_text(
        "from tellsign.plugin import DetectorPlugin\nDECLARATION = {'task': 'pixel', 'shared_weights': ['x']}\n"
        "class Alone(DetectorPlugin):\n    def detect(self, views, runtime): return [[] for _ in views]\n"
    )
    site.allow("alone")
    (record,) = [r for r in discover(files=[file]) if r.file == file]
    assert "it shares the weights x," in record.reason


def test_a_switch_that_is_neither_on_nor_off_is_refused(site):
    with pytest.raises(SettingError, match="TELLSIGN_COMMERCIAL_ONLY takes 1 or 0, got 'perhaps'"):
        discover(environ={"TELLSIGN_COMMERCIAL_ONLY": "perhaps"})


def test_duplicates_name_both_distributions_and_neither_is_taken(site):
    site.install("smudge", distribution="acme-one")
    site.install("smudge", distribution="acme-two", module="acme_two")
    records = [r for r in discover() if r.name == "smudge"]
    assert [r.state for r in records] == ["duplicate", "duplicate"]
    for record in records:
        assert "acme-one 3.1" in record.reason
        assert "acme-two 3.1" in record.reason
    assert load()[0] == {}


def test_a_duplicate_does_not_take_the_rest_of_its_distribution_with_it(site):
    site.install("smudge", distribution="acme-one")
    site.install("other", distribution="acme-one")
    site.install("smudge", distribution="acme-two", module="acme_two")
    assert list(load()[0]) == ["other"]


def test_metadata_that_cannot_be_read_hides_nobody(site):
    site.install("smudge")
    broken = site.write_metadata("acme-broken", ["x = y"])
    (broken / "entry_points.txt").write_bytes(b"\xff\xfe[\x00")
    nameless = site.write_metadata("acme-nameless", ["nameless = acme_nameless"])
    site.allow("x", "nameless")
    (nameless / "METADATA").write_text("")
    assert record_of("smudge").state == "ok"
    assert "nameless" not in {r.name for r in discover()}


@pytest.mark.parametrize(
    ("options", "enabled"),
    [
        ({}, {"alpha", "beta"}),
        ({"allow": ["alpha"]}, {"alpha"}),
        ({"allow": []}, set()),
        ({"deny": ["alpha"]}, {"beta"}),
        ({"environ": {}}, {"alpha", "beta"}),
        ({"environ": {"TELLSIGN_PLUGINS": " beta , "}}, {"beta"}),
        ({"environ": {"TELLSIGN_PLUGINS": ""}}, set()),
        ({"environ": {"TELLSIGN_DISABLED_PLUGINS": "beta"}}, {"alpha"}),
        ({"allow": ["alpha"], "environ": {"TELLSIGN_PLUGINS": "beta"}}, set()),
    ],
)
def test_allow_and_deny_by_setting_and_environment(site, options, enabled):
    site.install("alpha")
    site.install("beta")
    ours = [r for r in discover(**options) if r.name in ("alpha", "beta")]
    assert {r.name for r in ours if r.state == "ok"} == enabled
    assert all(r.reason and r.declaration for r in ours if r.state == "disabled")


def test_the_shipped_plugins_are_found_under_their_own_distribution(site):
    shipped = [r for r in discover(environ={}) if r.distribution == "tellsign"]
    assert "pixel" in {r.name for r in shipped}


# -- loading ------------------------------------------------------------------------------------------------------


def test_loading_makes_instances_with_declaration_and_settings(site):
    site.install("beta")
    site.install("alpha")
    made, records = load(settings={"alpha": {"depth": 3}})
    assert list(made) == ["alpha", "beta"]
    assert made["alpha"].declaration == records["alpha"].declaration
    assert made["alpha"].settings == {"depth": 3}
    assert made["beta"].settings == {}


CHOOSY = (
    "from tellsign.errors import SettingError\n"
    "from tellsign.plugin import DetectorPlugin\n"
    "class Plugin(DetectorPlugin):\n"
    "    def __init__(self, declaration, settings):\n"
    "        super().__init__(declaration, settings)\n"
    "        for name in settings:\n"
    "            if name != 'depth': raise SettingError('settings of choosy', 'depth', name)\n"
    "        if settings.get('depth', 0) != 3: raise SettingError('depth', '3', settings.get('depth'))\n"
    "    def detect(self, views, runtime): return []\n"
)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"depth": 4}, r"^choosy\.depth takes 3, got 4$"),
        ({"width": 4}, "^settings of choosy takes depth, got 'width'$"),
    ],
)
def test_settings_that_a_plugin_refuses_are_an_error_of_who_gave_them(site, settings, told):
    site.install("choosy", detector=CHOOSY)
    with pytest.raises(SettingError, match=told):
        load(settings={"choosy": settings})


def test_a_plugin_that_refuses_its_own_defaults_is_a_failure_of_the_plugin(site):
    site.install("choosy", detector=CHOOSY)
    made, records = load()
    assert made == {}
    assert records["choosy"].reason == "SettingError: depth takes 3, got None"


IMPORTS = "from tellsign.plugin import DetectorPlugin, hookimpl\n"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"init": "raise OSError('no such device')"}, "OSError: no such device"),
        ({"init": "import nowhere_to_be_found"}, "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ({"init": "import sys; sys.exit(3)"}, "SystemExit: 3"),
        ({"init": ""}, "the module 'acme_smudge' must implement the hook tellsign_detector, once"),
        ({"init": IMPORTS + "@hookimpl\ndef tellsign_detector(): return None"}, "must implement the hook"),
        ({"init": IMPORTS + "@hookimpl\ndef tellsign_detector(): return int"}, "must return a subclass of Detector"),
        ({"init": IMPORTS + "@hookimpl\ndef tellsign_detector(): return 7"}, "must return a subclass of Detector"),
        ({"init": IMPORTS + "@hookimpl\ndef tellsign_detectr(): return 7"}, "did you mean 'tellsign_detector'?"),
        ({"init": IMPORTS + "@hookimpl\ndef tellsign_detector(more): return 7"}, "PluginValidationError"),
        (
            {"detector": IMPORTS + "class Plugin(DetectorPlugin): pass"},
            "the class 'acme_smudge.detector:Plugin' does not implement detect",
        ),
        (
            {"detector": IMPORTS + "class Plugin(DetectorPlugin):\n    def detect(self, views): return []"},
            "acme_smudge.detector:Plugin.detect must take (views, runtime)",
        ),
        (
            {
                "detector": IMPORTS + "class Plugin(DetectorPlugin):\n"
                "    def __init__(self, declaration, settings): raise ValueError('no')\n"
                "    def detect(self, views, runtime): return []"
            },
            "ValueError: no",
        ),
    ],
)
def test_what_cannot_be_loaded_is_a_record_with_the_reason(site, options, reason):
    site.install("smudge", **options)
    site.install("well")
    made, records = load()
    assert list(made) == ["well"]
    assert records["smudge"].state == "failed"
    assert reason in records["smudge"].reason


def test_the_class_must_be_the_declared_one(site):
    site.install("smudge")
    package = site.install("liar")
    text = (package / "tellsign.json").read_text()
    (package / "tellsign.json").write_text(text.replace("acme_liar.detector:Plugin", "acme_liar.other:Thing"))
    made, records = load()
    assert list(made) == ["smudge"]
    assert records["liar"].reason == (
        "tellsign.json declares the detector 'acme_liar.other:Thing', the hook returned 'acme_liar.detector:Plugin'"
    )


def test_an_import_that_hangs_is_given_up(site):
    site.install("sleeper", init="import time; time.sleep(60)")
    site.install("well")
    made, records = load(load_limit=0.4)
    assert list(made) == ["well"]
    assert records["sleeper"].reason == "it did not load within 0.4 s"


def test_a_distribution_is_loaded_whole_or_not_at_all(site):
    site.install("first", distribution="acme-pair")
    site.install("second", distribution="acme-pair", init="raise RuntimeError('half')")
    site.install("alone")
    host = Host()
    made = host.load(discover())
    records = {r.name: r for r in host.records}
    assert list(made) == ["alone"]
    assert records["second"].reason == "RuntimeError: half"
    assert records["first"].reason == "'second' of the same distribution 'acme-pair' cannot be used"
    assert [name for name, _ in host.manager.list_name_plugin()] == ["alone"]


def test_a_distribution_with_a_bad_manifest_is_not_even_imported(site):
    site.install("first", distribution="acme-pair", init="raise RuntimeError('imported')")
    site.install("second", distribution="acme-pair", api_version=9)
    assert {r.name: r.state for r in discover() if r.distribution == "acme-pair"} == {
        "first": "failed",
        "second": "incompatible",
    }


def test_every_host_has_a_manager_of_its_own(site):
    site.install("smudge")
    one, two = Host(), Host()
    first, second = one.load(discover()), two.load(discover())
    assert one.manager is not two.manager
    assert first["smudge"] is not second["smudge"]


def test_disabled_plugins_are_not_imported(site):
    site.install("smudge", init="raise RuntimeError('imported')")
    host = Host()
    assert host.load(discover(deny=["smudge"])) == {}
    assert next(r for r in host.records if r.name == "smudge").state == "disabled"


# -- the class that plugins subclass -------------------------------------------------------------------------------


def test_helpers_fill_in_who_speaks(site):
    site.install("smudge", task="semantic")
    plugin = load()[0]["smudge"]
    score = plugin.score("s", 0.25, logit=-1)
    assert score == ScoreEvidence(
        plugin="smudge", task=Task.SEMANTIC, model="smudge 1.2.3", name="s", score=0.25, logit=-1.0
    )
    box = Box(0, 0, 4, 2)
    grid = [[0, 0.5], [1, 0]]
    answered = plugin.map("where", grid, box=box, model="other 2")
    assert isinstance(answered, MapEvidence)
    assert answered.map.tolist() == grid
    assert answered.model == "other 2"
    assert plugin.finding(Category.TEXTURE, 0.5, region=box).region == box
    assert plugin.statement("six fingers", 0.7, origin="generated").support == 0.7
    assert plugin.provenance("made by X", claimant="X", verification="unverified").claim == "made by X"
    assert plugin.not_applicable("no face").reason == "no face"
    for evidence in (answered, score, plugin.not_applicable("no face")):
        assert attrs.asdict(evidence)["plugin"] == "smudge"


def test_helpers_refuse_what_is_no_evidence(site):
    site.install("smudge")
    plugin = load()[0]["smudge"]
    with pytest.raises(InvalidValueError, match=r"ScoreEvidence\.score takes a number in \[0, 1\]"):
        plugin.score("s", float("nan"))
    with pytest.raises(InvalidValueError, match=r"MapEvidence\.map"):
        plugin.map("m", [[2.0]], box=Box(0, 0, 1, 1))

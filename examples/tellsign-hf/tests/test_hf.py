"""A tiny classifier that nobody trained, as folder and as name, and what is refused."""

import numpy as np
import pytest
import torch
from tellsign_hf.labels import log_odds, split
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from tellsign import Detector, SettingError
from tellsign.schemas import ScoreEvidence, Unavailable

pytest_plugins = ["tellsign.devkit.pytest_plugin"]


def make(folder, labels=("artificial", "human"), *, safe=True):
    """A ViT with random weights, saved as `from_pretrained` wants it."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=16,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        num_labels=len(labels),
    )
    model = ViTForImageClassification(config)
    with torch.no_grad():
        model.classifier.weight.normal_(0, 2)
    if safe:
        model.save_pretrained(folder)
    else:
        config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return make(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    return np.clip(rng.normal(120, 30, (300, 400, 3)), 0, 255).astype(np.uint8)


def ask(picture, plugin="hf", **settings):
    with Detector(plugins=[plugin], settings={plugin: settings}, device="cpu") as detector:
        (evidence,) = detector.collect(picture)
    return evidence


@pytest.mark.parametrize("plugin", ["hf", "hf-crops"])
def test_conformance(conformance, tiny, plugin):
    conformance(plugin, settings={"model": str(tiny)})


def test_the_score_is_what_transformers_computes(tiny, picture):
    from tellsign import decode
    from tellsign.schemas import Task
    from tellsign.views import build_view

    view = build_view(Task.SEMANTIC, decode(picture), "0")
    model = ViTForImageClassification.from_pretrained(tiny).eval()
    pixels = ViTImageProcessor.from_pretrained(tiny)(images=view.image, return_tensors="pt")
    with torch.no_grad():
        wanted = model(**pixels).logits.softmax(1)[0, 0].item()
    found = ask(picture, model=tiny)
    assert found.score == pytest.approx(wanted, abs=1e-5)
    assert (found.name, found.model) == ("ai", "tiny")
    assert found.score == pytest.approx(1 / (1 + np.exp(-found.logit)))


def test_crops_are_averaged_in_log_odds(tiny, picture):
    found = ask(picture, "hf-crops", model=tiny)
    assert isinstance(found, ScoreEvidence)
    assert found.task == "pixel"


def test_the_other_order_of_labels_is_understood_and_can_be_overridden(tmp_path, tiny, picture):
    turned = make(tmp_path / "turned", ("Real", "Fake"))
    assert ask(picture, model=turned).logit == pytest.approx(-ask(picture, model=tiny).logit, abs=1e-5)
    assert ask(picture, model=turned, suspicious="Real").logit == pytest.approx(
        ask(picture, model=tiny).logit, abs=1e-5
    )


@pytest.mark.parametrize(
    ("labels", "ai"),
    [
        (("fake", "real"), [0]),
        (("Real", "Fake"), [1]),
        (("human", "AI"), [1]),
        (("hum", "sd-diffusion", "AI_generated"), [1, 2]),
        (("Realism real photo", "Deepfake"), [1]),
        (("AiGenerated", "nature"), [0]),
    ],
)
def test_labels_are_read_by_their_words(labels, ai):
    assert split(dict(enumerate(labels)))[0] == ai


@pytest.mark.parametrize(
    ("labels", "suspicious", "words"),
    [
        (("LABEL_0", "LABEL_1"), None, "'LABEL_0' does not say on which side it is"),
        (("ai human", "real"), None, "'ai human' does not say"),
        (("not real", "real"), None, "'not real' does not say"),
        (("cat", "fake"), None, "'cat' does not say"),
        (("fake", "ai"), None, "all labels are on one side"),
        (("a", "b"), ["c"], "the model has no label 'c'; it has 'a', 'b'"),
        (("a", "b"), ["a", "b"], "all labels are on one side"),
    ],
)
def test_labels_that_say_nothing_are_not_guessed(labels, suspicious, words):
    with pytest.raises(ValueError, match=words):
        split(dict(enumerate(labels)), suspicious)


def test_log_odds():
    assert log_odds([2.0, 0.5], [0], [1]) == pytest.approx(1.5)
    assert log_odds([0.0, 0.0, 0.0], [0, 1], [2]) == pytest.approx(np.log(2))
    assert log_odds([0.7], [0], []) == pytest.approx(0.7)


def test_without_a_model_it_is_unavailable(picture):
    found = ask(picture)
    assert isinstance(found, Unavailable)
    assert "--set hf.model=" in found.reason


def test_a_name_that_is_not_in_the_cache_is_unavailable_and_nothing_is_fetched(picture, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    found = ask(picture, model="acme/no-such-detector")
    assert isinstance(found, Unavailable)
    assert "--set hf.download=true" in found.reason


def test_pickled_weights_are_refused(tmp_path, picture):
    found = ask(picture, model=make(tmp_path / "pickled", safe=False))
    assert isinstance(found, Unavailable)
    assert "only safetensors are read, never pickles" in found.reason


def test_labels_that_say_nothing_are_unavailable_until_set(tmp_path, picture):
    folder = make(tmp_path / "mute", ("LABEL_0", "LABEL_1"))
    assert "set `suspicious`" in ask(picture, model=folder).reason
    assert isinstance(ask(picture, model=folder, suspicious=["LABEL_1"]), ScoreEvidence)


@pytest.mark.parametrize(
    "settings", [{"modell": "x"}, {"model": 3}, {"download": "yes"}, {"suspicious": []}, {"revision": 1}]
)
def test_settings_that_are_not_allowed(settings):
    from tellsign import PluginLoadError

    with pytest.raises((SettingError, PluginLoadError)):
        Detector(plugins=["hf"], settings={"hf": settings}, strict=True)


def test_two_detectors_of_one_model_share_it(tiny, picture):
    settings = {name: {"model": str(tiny)} for name in ("hf", "hf-crops")}
    with Detector(plugins=["hf", "hf-crops"], settings=settings, device="cpu") as detector:
        assert len(detector.collect(picture)) == 2
        assert sum(detector.runtime.counters.builds.values()) == 1

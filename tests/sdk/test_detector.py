import gc
import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from tellsign import DecodeError, Detector, Label, Limits, Picture, SettingError, TellsignError, Unreadable, Verdict
from tellsign.schemas import Failed

TINY = """
    import torch
    from tellsign.plugin import DetectorPlugin

    def build():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.GELU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
            torch.nn.Linear(8, 1),
        )

    class Plugin(DetectorPlugin):
        def detect(self, views, runtime):
            crops = [torch.from_numpy(c.copy()).permute(2, 0, 1).float() / 255 for v in views for c in v.crops]
            logits = []
            with runtime.use("tiny", build) as model, torch.inference_mode():
                for start in range(0, len(crops), runtime.batch_size):
                    batch = torch.stack(crops[start:start + runtime.batch_size]).to(runtime.device)
                    logits += model(batch)[:, 0].tolist()
            answers = []
            for view in views:
                mine, logits = logits[:len(view.crops)], logits[len(view.crops):]
                logit = sum(mine) / len(mine)
                answers.append([self.score("s", 1 / (1 + 2.718281828 ** -logit), logit=logit)])
            return answers
"""


@pytest.fixture
def pictures():
    """Twenty pictures of different sizes and content."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(230, 420, (20, 2))
    return [rng.integers(0, 40 + 10 * n, (h, w, 3)).astype(np.uint8) for n, (h, w) in enumerate(sizes)]


@pytest.fixture
def tiny(site, fusion):
    site.install("tiny", detector=TINY)
    with Detector(fusion=fusion, device="cpu") as detector:
        yield detector


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


# -- one picture --------------------------------------------------------------------------------------------------


def test_every_kind_of_source_gives_the_same_answer(site, fusion, picture, tmp_path):
    site.install("a", "return [self.score('s', view.crops[0].mean() / 255)]")
    data = png(picture)
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with Detector(fusion=fusion) as detector:
        verdicts = [
            detector.detect(source)
            for source in (
                path,
                str(path),
                data,
                io.BytesIO(data),
                Image.open(path),
                picture,
                Picture(pixels=picture),
            )
        ]
    assert len({v.p_ai for v in verdicts}) == 1
    assert {(v.width, v.height) for v in verdicts} == {(320, 256)}
    assert verdicts[0].source == str(path)
    assert verdicts[2].source is None


def test_what_cannot_be_read_is_a_decode_error(tiny, tmp_path):
    with pytest.raises(DecodeError) as caught:
        tiny.detect(tmp_path / "nothing.jpg")
    assert caught.value.code == "not_found"
    with pytest.raises(DecodeError):
        tiny.detect(b"no picture")


def test_limits_are_the_decoders(site, fusion, picture):
    with Detector(fusion=fusion, limits=Limits(max_pixels=1000)) as detector, pytest.raises(DecodeError) as caught:
        detector.detect(png(picture))
    assert caught.value.code == "too_many_pixels"


def test_the_prior_is_the_detectors_unless_given(site, fusion, picture):
    site.install("a")
    with Detector(fusion=fusion, prior=0.2) as detector:
        assert detector.detect(picture).prior == 0.2
        assert detector.detect(picture, prior=0.7).prior == 0.7
        assert next(detector.detect_many([picture], prior=0.6)).prior == 0.6


def test_the_error_rate_reaches_the_fusion(site, fusion, picture):
    site.install("a")
    with Detector(fusion=fusion, error_rate=0.25) as detector:
        assert detector.detect(picture).prediction_set.error_rate == 0.25


def test_settings_reach_their_plugin(site, fusion, picture):
    site.install("a", "return [self.score('s', self.settings['level'])]")
    with Detector(fusion=fusion, settings={"a": {"level": 0.75}}) as detector:
        assert detector.detect(picture).p_ai == 0.75


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"plugins": ["smuge"]}, r"plugins takes names of installed plugins.*did you mean 'smudge'"),
        ({"plugins": "smudge"}, "plugins takes a list of names"),
        ({"settings": {"other": {}}}, "settings takes names of installed plugins"),
        ({"device": "gpu"}, "device takes"),
        ({"device": "cuda:99"}, "device takes a device that torch finds on this machine"),
        ({"time_limit": 0}, "time_limit takes seconds above 0"),
        ({"time_limit": float("nan")}, "time_limit takes seconds above 0"),
        ({"prior": 0}, "prior takes"),
        ({"prior": True}, "prior takes"),
        ({"error_rate": 1}, "error_rate takes"),
        ({"fusion": 7}, "fusion takes"),
        ({"memory_budget": -1}, "memory_budget takes"),
    ],
)
def test_settings_that_are_not_allowed_are_named(site, options, words):
    site.install("smudge")
    with pytest.raises(SettingError, match=words):
        Detector(**options)


def test_a_bad_prior_for_one_picture_is_named(tiny, picture):
    with pytest.raises(SettingError, match=r"prior takes a number between 1e-06 and 1 - 1e-06, got 1"):
        tiny.detect(picture, prior=1)


def test_a_closed_detector_says_so(site, fusion, picture):
    site.install("a")
    detector = Detector(fusion=fusion)
    detector.detect(picture)
    detector.close()
    detector.close()
    for use in (detector.detect, detector.collect, lambda p: detector.detect_many([p])):
        with pytest.raises(TellsignError, match="closed"):
            use(picture)


def test_a_detector_that_is_let_go_ends_its_threads(site, fusion, picture):
    site.install("lone")
    Detector(fusion=fusion).detect(picture)
    gc.collect()
    deadline = time.monotonic() + 10
    while any(t.name == "tellsign-lone" for t in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_plugins_can_be_chosen(site, fusion):
    site.install("a")
    site.install("b")
    with Detector(fusion=fusion, plugins=["b"]) as detector:
        assert list(detector.declarations) == ["b"]
        assert {r.name: r.state for r in detector.records if r.name in "ab"} == {"a": "disabled", "b": "ok"}


# -- many pictures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 1, 3, 64])
def test_batch_and_single_agree_and_order_is_kept(tiny, pictures, batch_size):
    many = list(tiny.detect_many(pictures, batch_size=batch_size))
    single = [tiny.detect(p) for p in pictures]
    assert [(v.width, v.height) for v in many] == [p.shape[1::-1] for p in pictures]
    np.testing.assert_allclose([v.p_ai for v in many], [v.p_ai for v in single], rtol=0, atol=1e-5)
    assert [v.label for v in many] == [v.label for v in single]
    assert len({v.p_ai for v in single}) == len(pictures)


def test_sources_are_read_one_batch_ahead_and_no_further(tiny, picture):
    drawn = 0

    def sources():
        nonlocal drawn
        for _ in range(40):
            drawn += 1
            yield picture

    ahead = []
    for done, _ in enumerate(tiny.detect_many(sources(), batch_size=4), 1):
        ahead.append(drawn - done)
    assert drawn == 40
    assert max(ahead) == 7  # the rest of this batch and the whole next one


def test_nothing_is_read_before_the_first_answer_is_asked_for(tiny):
    assert tiny.detect_many(iter(lambda: pytest.fail("read"), None)) is not None


def test_decoding_overlaps_with_the_plugins(site, fusion, picture, monkeypatch):
    """While a batch is with the plugin, the next one is decoded."""
    site.install("a", "import time; time.sleep(0.1); return [self.score('s', 0.9)]")
    import tellsign.decoding

    real, decoded, began = tellsign.decoding.decode, [], time.perf_counter()

    def decode(source, **options):
        decoded.append(time.perf_counter() - began)
        return real(source, **options)

    monkeypatch.setattr(tellsign.decoding, "decode", decode)
    with Detector(fusion=fusion, stability_probe=False) as detector:
        found = detector.detect_many([picture] * 8, batch_size=4)
        next(found)
        first_batch = time.perf_counter() - began
        assert len(decoded) == 8
        assert max(decoded) < first_batch - 0.1
        assert len(list(found)) == 7


def test_a_picture_that_cannot_be_read_is_raised_in_its_turn(tiny, picture):
    found = tiny.detect_many([picture, picture, b"no picture", picture])
    assert isinstance(next(found), Verdict)
    assert isinstance(next(found), Verdict)
    with pytest.raises(DecodeError):
        next(found)
    with pytest.raises(StopIteration):
        next(found)


def test_a_picture_that_cannot_be_read_can_be_returned_in_its_place(tiny, picture, tmp_path):
    missing = tmp_path / "missing.png"
    found = list(tiny.detect_many([b"", picture, missing, str(missing), picture], on_error="return", batch_size=2))
    assert [type(f) for f in found] == [Unreadable, Verdict, Unreadable, Unreadable, Verdict]
    assert [f.source for f in found if isinstance(f, Unreadable)] == [None, str(missing), str(missing)]
    assert [f.error.code for f in found if isinstance(f, Unreadable)] == ["empty", "not_found", "not_found"]
    collected = list(tiny.collect_many([b"", picture], on_error="return"))
    assert isinstance(collected[0], Unreadable)
    assert collected[1] == found[1].evidence


def test_progress_is_told_to_a_callable_or_shown(tiny, picture, capsys):
    told = []
    list(tiny.detect_many([picture] * 3, progress=lambda done, total: told.append((done, total))))
    list(tiny.detect_many(iter([picture]), progress=lambda done, total: told.append((done, total))))
    assert told == [(1, 3), (2, 3), (3, 3), (1, None)]
    list(tiny.detect_many([picture] * 3, progress=True))
    assert "3/3" in capsys.readouterr().err


def test_no_pictures_give_no_answers(tiny):
    assert list(tiny.detect_many([])) == []


@pytest.mark.parametrize(
    ("sources", "options", "words"),
    [
        ("a.png", {}, "sources takes an iterable of pictures"),
        (7, {}, "sources takes an iterable of pictures"),
        ([], {"on_error": "ignore"}, "on_error takes 'raise' or 'return'"),
        ([], {"batch_size": 0}, "batch_size takes an integer of at least 1"),
        ([], {"prior": 2}, "prior takes"),
    ],
)
def test_what_detect_many_does_not_take_is_named_at_once(tiny, sources, options, words):
    with pytest.raises(SettingError, match=words):
        tiny.detect_many(sources, **options)


def test_stopping_early_is_allowed(tiny, picture):
    found = tiny.detect_many([picture] * 50, batch_size=2)
    next(found)
    found.close()
    assert tiny.detect(picture).evidence


# -- threads ------------------------------------------------------------------------------------------------------


def test_eight_threads_get_the_answers_of_one(tiny, pictures):
    expected = [tiny.detect(p).p_ai for p in pictures]
    found, errors = {}, []

    def work(start):
        try:
            for n in range(start, len(pictures), 8):
                found[n] = tiny.detect(pictures[n]).p_ai
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    np.testing.assert_allclose([found[n] for n in range(len(pictures))], expected, rtol=0, atol=1e-5)
    assert tiny.runtime.counters.builds == {"tiny": 1}


def test_a_plugin_is_never_called_from_two_threads_at_once(site, fusion, picture):
    site.install(
        "a",
        "import time\nPlugin.inside = getattr(Plugin, 'inside', 0) + 1; seen = Plugin.inside\n"
        "time.sleep(0.01); Plugin.inside -= 1\nif seen > 1: raise RuntimeError('together')\n"
        "return [self.score('s', 0.9)]",
    )
    failed = []
    with Detector(fusion=fusion) as detector:

        def work():
            failed.extend(e for e in detector.detect(picture).evidence if isinstance(e, Failed))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []


# -- without an object --------------------------------------------------------------------------------------------


def test_module_level_detect_keeps_one_detector(site, fusion, picture, monkeypatch):
    import tellsign.default

    site.install("a")
    made = []

    def make(**options):
        made.append(options)
        return Detector(fusion=fusion, **options)

    monkeypatch.setattr(tellsign.default, "Detector", make)
    monkeypatch.setattr(tellsign.default, "_default", None)
    assert tellsign.detect(picture).label is Label.AI_GENERATED
    assert tellsign.detect(picture, prior=0.3).prior == 0.3
    assert [v.label for v in tellsign.detect_many([picture] * 2)] == [Label.AI_GENERATED] * 2
    assert made == [{}]
    tellsign.default._default.close()

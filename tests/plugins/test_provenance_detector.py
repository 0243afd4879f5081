"""The provenance plugin as a whole: cameras, watermarks, hostile files, and what may change a verdict."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image
from provenance_files import (
    CAPTURED,
    EDITED,
    GENERATED,
    GRAPH,
    INFOTEXT,
    MAKE,
    MAKER_NOTE,
    MODEL,
    SOFTWARE,
    USER_COMMENT,
    Authority,
    exif,
    png,
    saved,
    scene,
    source_type,
    user_comment,
    with_xmp,
)

from tellsign import Detector, Label
from tellsign.errors import SettingError
from tellsign.host import discover

CANON = {MAKE: "Canon", MODEL: "Canon EOS R5"}


def detail(evidence):
    (taken,) = [e for e in evidence if e.meaning == "captured"]
    assert taken.verification == "unverified"
    return taken.detail


# -- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"colour": 1}, {"watermarks": "yes"}, {"trustmark": "Z"}, {"trustmark": True}])
def test_settings_that_are_not_allowed_are_refused(make_provenance, settings):
    with pytest.raises(SettingError):
        make_provenance(**settings)


def test_a_picture_without_a_file_has_nothing_to_say(make_provenance):
    from tellsign import decode
    from tellsign.schemas import Task
    from tellsign.views import build_view

    view = build_view(Task.PROVENANCE, decode(scene()), "a")
    ((evidence,),) = make_provenance().detect([view], None)
    assert evidence.kind == "not_applicable"


def test_a_file_that_says_nothing_is_told_to_say_nothing(look):
    (evidence,) = look(saved("JPEG"))
    assert evidence.kind == "not_applicable"
    assert "says nothing either way" in evidence.reason


# -- cameras ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "note", "words"),
    [
        ("NIKON CORPORATION", b"Nikon\x00\x02\x10", "make's own form"),
        ("Canon", b"Nikon\x00\x02\x10", "another make's form (nikon)"),
        ("Canon", b"\x01\x02\x03\x04", "no form that is known"),
        ("Canon", None, "no maker note"),
    ],
)
def test_maker_notes_are_held_against_the_make(look, make, note, words):
    sub = {MAKER_NOTE: note} if note else {}
    assert words in detail(look(saved("JPEG", exif=exif({MAKE: make, MODEL: "X"}, sub))))


def test_the_size_that_exif_says_is_held_against_the_pictures(look):
    same = exif(CANON, {0xA002: 320, 0xA003: 320})
    assert "the size is the one" in detail(look(saved("JPEG", exif=same)))
    cropped = exif(CANON, {0xA002: 6000, 0xA003: 4000})
    assert "resized or cropped since" in detail(look(saved("JPEG", exif=cropped)))


def with_thumbnail(pixels, small, form="JPEG"):
    made = Image.Exif()
    for tag, value in CANON.items():
        made[tag] = value
    thumbnail = saved("JPEG", small)
    block = made.tobytes()
    # Pillow writes no thumbnails: the second directory is put behind what it wrote, by hand.
    tiff = bytearray(block.removeprefix(b"Exif\x00\x00"))
    order = "little" if tiff[:2] == b"II" else "big"
    first = int.from_bytes(tiff[4:8], order)
    entries = int.from_bytes(tiff[first : first + 2], order)
    link = first + 2 + 12 * entries
    second = len(tiff)
    tiff[link : link + 4] = second.to_bytes(4, order)
    start = second + 2 + 24 + 4
    directory = (2).to_bytes(2, order)
    for tag, value in ((0x0201, start), (0x0202, len(thumbnail))):
        directory += tag.to_bytes(2, order) + (4).to_bytes(2, order) + (1).to_bytes(4, order) + value.to_bytes(4, order)
    return saved(form, pixels, exif=b"Exif\x00\x00" + bytes(tiff) + directory + bytes(4) + thumbnail)


@pytest.mark.parametrize("turn", range(4))
def test_a_thumbnail_of_the_picture_is_known_also_when_it_was_turned(look, turn):
    pixels = scene(480, 320, seed=1)
    small = np.asarray(Image.fromarray(np.rot90(pixels, turn)).resize((160, 120) if turn % 2 == 0 else (120, 160)))
    assert "thumbnail shows the same picture" in detail(look(with_thumbnail(pixels, small)))


def test_a_thumbnail_of_another_picture_is_told(look):
    rng = np.random.default_rng(5)
    other = np.asarray(Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8)).resize((160, 120)))
    assert "shows another picture" in detail(look(with_thumbnail(scene(480, 320), other)))


@pytest.mark.parametrize("quality", [50, 75, 90])
def test_libjpegs_tables_are_known_and_held_against_the_software(look, quality):
    said = detail(look(saved("JPEG", exif=exif(CANON | {SOFTWARE: "Adobe Photoshop CC"}), quality=quality)))
    assert f"libjpeg's at quality {quality}: saved again since" in said
    own = [[min(255, 3 + i) for i in range(64)]] * 2
    assert "tables are not libjpeg's" in detail(look(saved("JPEG", exif=exif(CANON), qtables=own)))
    said = detail(look(saved("JPEG", exif=exif(CANON | {SOFTWARE: "ImageMagick 7.1"}), qtables=own)))
    assert "saved again since by another program, imagemagick writes libjpeg's" in said


def test_tables_are_held_against_what_the_claimed_camera_writes(look):
    own = [[min(255, 3 + i) for i in range(64)]] * 2
    apple = {MAKE: "Apple", MODEL: "iPhone 6"}
    assert "libjpeg's at quality 90, which is unusual: 0 of 26 unchanged files of this make had such" in detail(
        look(saved("JPEG", exif=exif(apple), quality=90))
    )
    assert "are not libjpeg's: 26 of 26 unchanged files" in detail(look(saved("JPEG", exif=exif(apple), qtables=own)))
    dji = exif({MAKE: "DJI", MODEL: "FC220"})
    assert "not libjpeg's, which is unusual: 0 of 18" in detail(look(saved("JPEG", exif=dji, qtables=own)))
    nobody = exif({MAKE: "Nobody", MODEL: "1"})
    assert detail(look(saved("JPEG", exif=nobody, quality=90))).endswith("libjpeg's at quality 90")


def test_a_file_that_somebody_saved_again_is_not_as_it_was_taken():
    from tellsign import decode
    from tellsign.plugins.provenance import camera, container

    def looks(main, sub):
        data = saved("JPEG", exif=exif(CANON | main, {0xA002: 320, 0xA003: 320, MAKER_NOTE: b"x"} | sub))
        facts = decode(data).facts
        return camera.as_it_was_taken(container.read(data, facts), facts)

    assert looks({}, {})
    assert looks({SOFTWARE: "Firmware Version 1.0.2"}, {})
    assert not looks({SOFTWARE: "Adobe Photoshop CC"}, {})
    assert not looks({SOFTWARE: "GIMP 2.10"}, {})
    assert not looks({}, {0xA002: 640})
    assert not looks({}, {MAKER_NOTE: b""})


# -- watermarks ---------------------------------------------------------------------------------------------------


def programs():
    from tellsign.plugins.provenance.watermarks.messages import MESSAGES

    return MESSAGES


def marked(message, pixels):
    imwatermark = pytest.importorskip("imwatermark", reason="marking needs the extra watermark")
    encoder = imwatermark.WatermarkEncoder()
    encoder.set_watermark("bits", list(message.bits))
    return np.ascontiguousarray(encoder.encode(np.ascontiguousarray(pixels[..., ::-1]), "dwtDct")[..., ::-1])


@pytest.mark.parametrize("message", programs(), ids=lambda m: m.program)
def test_what_the_real_library_hides_is_found_and_named(look, message):
    pixels = marked(message, scene(512, 384, seed=2))
    (claim,) = look(saved("PNG", pixels))
    assert (claim.carrier, claim.generator, claim.verification) == ("watermark", message.program, "unverified")
    (nothing,) = look(saved("PNG", pixels), watermarks=False)
    assert nothing.kind == "not_applicable"


def test_votes_are_those_of_the_real_library(look):
    imwatermark = pytest.importorskip("imwatermark", reason="the comparison needs the extra watermark")
    from tellsign.plugins.provenance.watermarks import dwtdct

    message = programs()[0]
    pixels = marked(message, scene(512, 384, seed=3))
    theirs = imwatermark.WatermarkDecoder("bits", len(message.bits)).decode(pixels[..., ::-1], "dwtDct")
    ours = dwtdct.shares(dwtdct.votes(pixels), len(message.bits)) * 255 > 127
    assert np.mean(ours == theirs) > 0.9  # OpenCV's YUV is rounded a little otherwise


@pytest.mark.parametrize("shape", [(255, 256), (256, 255), (1, 70_000), (9, 8000)])
def test_small_and_odd_pictures_are_not_looked_at_or_give_no_mark(shape):
    from tellsign.plugins.provenance.watermarks import dwtdct

    assert not any(m.found for m in dwtdct.matches(scene(shape[1], shape[0])))


@pytest.mark.parametrize("pixels", [np.zeros((512, 512, 3), np.uint8), np.full((512, 512, 3), 255, np.uint8)])
def test_flat_pictures_have_no_mark(pixels):
    from tellsign.plugins.provenance.watermarks import dwtdct

    assert [m.correlation for m in dwtdct.matches(pixels)] == [0.0] * len(programs())


def test_drawn_pictures_have_no_mark():
    from tellsign.plugins.provenance.watermarks import dwtdct

    for seed in range(20):
        assert not any(m.found for m in dwtdct.matches(scene(320, 320, seed=seed)))


def test_trustmark_says_what_is_missing(look):
    evidence = look(saved("PNG"), trustmark="Q")
    assert [e.kind for e in evidence] == ["unavailable"]
    assert "TrustMark" in evidence[0].reason


def test_a_trustmark_is_shown_and_claims_nothing(look, monkeypatch):
    from tellsign.plugins.provenance.watermarks.trustmark import TrustMarks

    monkeypatch.setattr(TrustMarks, "missing", lambda self: "")
    monkeypatch.setattr(TrustMarks, "read", lambda self, pixels: ("1011", True, 1))
    (claim,) = look(saved("PNG"), trustmark="Q")
    assert (claim.meaning, claim.carrier) == ("other", "watermark")
    assert "1011" in claim.detail
    assert "0.0019 of random answers pass this schema's check" in claim.detail


def test_chance_is_what_the_real_code_lets_through():
    layers = pytest.importorskip("trustmark.datalayer", reason="the comparison needs the extra trustmark")
    from tellsign.plugins.provenance.watermarks.trustmark import BITS, by_chance

    layer, rng = layers.DataLayer(BITS, verbose=False, encoding_mode=1), np.random.default_rng(0)
    tried, passed = [0] * 4, [0] * 4
    for _ in range(4000):
        _, there, schema = layer.decode_bitstream(rng.integers(0, 2, (1, BITS)), "binary")[0]
        tried[schema] += 1
        passed[schema] += there
    for schema in range(4):
        expected = by_chance(schema) * tried[schema]
        assert abs(passed[schema] - expected) <= 3 * np.sqrt(expected) + 2


def test_chance_by_hand():
    from tellsign.plugins.provenance.watermarks.trustmark import by_chance

    assert by_chance(3) == (1 + 96 + 96 * 95 / 2 + 96 * 95 * 94 / 6) / 2**21
    assert by_chance(0) < 1e-5 < by_chance(1) < by_chance(2) < by_chance(3) < 0.08
    assert (by_chance(7), by_chance(None)) == (1.0, 1.0)


class Made:
    """Stands in for the package where its weights cannot be had: hides bits in the first pixels' lowest bit."""

    def __init__(self, **_):
        pass

    def encode(self, image, payload, MODE):  # noqa: N803 - the package's name
        pixels = np.asarray(image).copy()
        bits = [1] * 8 + [int(b) for b in payload]
        pixels.reshape(-1)[: len(bits)] = pixels.reshape(-1)[: len(bits)] & 254 | np.array(bits, np.uint8)
        return Image.fromarray(pixels)

    def decode(self, image, MODE):  # noqa: N803
        bits = np.asarray(image).reshape(-1)[:69] & 1
        return "".join(map(str, bits[8:])), bool(bits[:8].all()), 1


def test_trustmark_is_measured_where_it_is(monkeypatch, tmp_path):
    import types

    from typer.testing import CliRunner

    from tellsign.plugins.provenance.measure import app
    from tellsign.plugins.provenance.watermarks.trustmark import TrustMarks

    rows = ["path,label,split"]
    for n in range(4):
        (tmp_path / f"{n}.png").write_bytes(saved("PNG", scene(seed=n)))
        rows.append(f"{n}.png,{n // 3},{('test', 'fit')[n // 2]}")
    (tmp_path / "all.csv").write_text("\n".join(rows))
    run = lambda *more: CliRunner().invoke(app, ["trustmark", str(tmp_path / "all.csv"), *more])  # noqa: E731
    monkeypatch.setattr(TrustMarks, "missing", lambda self: "the weights are not here")
    gone = run()
    assert (gone.exit_code, "the weights are not here" in gone.output) == (1, True)
    assert "schema 1: 0.0019 of random answers" in gone.output
    monkeypatch.setattr(TrustMarks, "missing", lambda self: "")
    monkeypatch.setitem(sys.modules, "trustmark", types.SimpleNamespace(TrustMark=Made))
    done = run("--marked", "2")
    assert done.exit_code == 0, done.output
    assert "real pictures, test: 2; false positives: 0" in done.output
    assert "real pictures, all splits but test: 1; false positives: 0" in done.output
    lines = {line.split("  ")[1]: line.split()[-1] for line in done.output.splitlines() if line.startswith("  ")}
    assert lines["as it is"] == "1.000"
    assert lines["half size"] == "0.000"
    assert run("--variant", "Z").exit_code == 2


# -- hostile files ------------------------------------------------------------------------------------------------

BOMB = (
    "<!DOCTYPE x [<!ENTITY a '0123456789'>"
    + "".join(f"<!ENTITY {chr(98 + i)} '{f'&{chr(97 + i)};' * 10}'>" for i in range(9))
    + "]><x><DigitalSourceType>&j;</DigitalSourceType></x>"
)
TOLD = f"<DigitalSourceType>{GENERATED}</DigitalSourceType>"
EXTERNAL = "<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><x><DigitalSourceType>&a;</DigitalSourceType></x>"


def hostile():
    """name -> file; all of them claim generation somewhere inside what cannot be read."""
    yield "entity bomb", with_xmp(BOMB)
    yield "external entity", with_xmp(EXTERNAL)
    yield (
        "deep XMP",
        with_xmp("<a>" * 100_000 + TOLD + "</a>" * 100_000),
    )
    yield "wide XMP", with_xmp("<x>" + "<a/>" * 200_000 + TOLD + "</x>")
    yield (
        "XMP of megabytes",
        with_xmp("<x>" + TOLD + " " * 3_000_000 + "</x>"),
    )
    yield "cut XMP", with_xmp(source_type(GENERATED)[:-40])
    yield "one long value", with_xmp("<x><DigitalSourceType>" + "a" * 900_000 + "</DigitalSourceType></x>")
    jumbf = b"jumb" + b"c2pa" * 2000
    yield "broken JUMBF in PNG", chunk(b"caBX", (len(jumbf) + 4).to_bytes(4, "big") + jumbf)
    nested = b"".join((8 * (50_000 - i) + 8).to_bytes(4, "big") + b"jumb" for i in range(50_000)) + b"c2pa"
    yield "deep JUMBF in PNG", chunk(b"caBX", nested)
    yield "huge JUMBF box", chunk(b"caBX", b"\x7f\xff\xff\xffjumbc2pa")


def chunk(kind, body):
    import zlib

    plain = saved("PNG")
    made = len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
    return plain[:33] + made + plain[33:]


def texts():
    """name -> file whose texts are endless or malformed and claim nothing."""
    yield "megabytes of text", png({f"key{i}": "a b, " * 190_000 for i in range(8)})
    yield "megabytes of pairs", png({"parameters": "Steps: x, " * 95_000})
    yield "a graph of megabytes", png({"prompt": '{"1": {"class_type": "A", "inputs": {' + '"a": 1, ' * 100_000})
    yield "deep JSON", png({"prompt": '{"a":' * 190_000})
    yield "quotes", png({"parameters": 'Steps: 1, A: "' + "\\" * 900_000})
    yield "spaces", png({"Dream": '"' + "a" * 900_000, "Description": "Job ID: " * 100_000})


def measured(data, tmp_path):
    """(seconds, MiB above the start, evidence kinds) of the plugin on a file, in a process of its own."""
    file = tmp_path / "file"
    file.write_bytes(data)
    code = """
        import importlib.util, json, resource, sys, time
        from pathlib import Path
        from tellsign import decode
        from tellsign.plugins.provenance.detector import ProvenanceDetector
        from tellsign.schemas import Declaration, Task
        from tellsign.schemas.codec import loads
        from tellsign.views import build_view
        folder = Path(importlib.util.find_spec("tellsign.plugins.provenance").origin).parent
        plugin = ProvenanceDetector(loads((folder / "tellsign.json").read_text(), Declaration), {})
        view = build_view(Task.PROVENANCE, decode(sys.argv[1]), "a")
        memory = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        before, began = memory(), time.process_time()
        (evidence,) = plugin.detect([view], None)
        print(json.dumps([time.process_time() - began, memory() - before,
            [[e.kind, getattr(e, "meaning", ""), getattr(e, "verification", "")] for e in evidence]]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("name", "data"), [pytest.param(n, d, id=n) for n, d in hostile()])
def test_hostile_metadata_is_unknown_within_a_second_and_200_mb(tmp_path, name, data):
    if "JUMBF" in name:
        pytest.importorskip("c2pa", reason="Content Credentials need the extra provenance")
    seconds, memory, said = measured(data, tmp_path)
    assert seconds < 1
    assert memory < 200
    if name == "one long value":
        assert [v for _, m, v in said] == ["unverified"]
    else:
        assert ["provenance", "other", "unknown"] in said
    assert {m for _, m, _ in said} <= {"other", ""}


@pytest.mark.parametrize(("name", "data"), [pytest.param(n, d, id=n) for n, d in texts()])
def test_endless_texts_claim_nothing_within_a_second_and_200_mb(tmp_path, name, data):
    seconds, memory, said = measured(data, tmp_path)
    assert seconds < 1
    assert memory < 200
    assert {m for _, m, _ in said} <= {"other", ""}


def test_what_breaks_a_reader_is_unknown_and_takes_no_other_with_it(look, monkeypatch):
    from tellsign.plugins.provenance import generators

    def broken(texts):
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(generators, "READERS", (broken,))
    evidence = look(saved("JPEG", exif=exif(CANON)))
    assert [(e.verification, e.meaning) for e in evidence] == [("unknown", "other"), ("unverified", "captured")]


# -- what may change a verdict ------------------------------------------------------------------------------------

PIXELS = scene(240, 240, seed=7)
NEUTRAL = {
    "stripped": lambda: png(pixels=PIXELS),
    "as WebP": lambda: saved("WEBP", PIXELS, lossless=True),
    "as TIFF": lambda: saved("TIFF", PIXELS),
    "a camera": lambda: saved("PNG", PIXELS, exif=exif(CANON, {MAKER_NOTE: b"Canon"})),
    "a false camera": lambda: saved("PNG", PIXELS, exif=exif(CANON, {MAKER_NOTE: b"Nikon\x00"})),
    "Photoshop": lambda: saved("PNG", PIXELS, exif=exif({SOFTWARE: "Adobe Photoshop CC"})),
    "texts": lambda: png({"Comment": "hello", "Author": "me"}, PIXELS),
    "captured": lambda: with_xmp(source_type(CAPTURED), pixels=PIXELS),
    "human edits": lambda: with_xmp(source_type("humanEdits"), pixels=PIXELS),
    "hostile": lambda: with_xmp(BOMB, pixels=PIXELS),
}
PARAMETERS = exif(sub={USER_COMMENT: user_comment(INFOTEXT.format(""))})
EXPLICIT = {
    "parameters": (lambda: png({"parameters": INFOTEXT.format("")}, PIXELS), Label.AI_GENERATED),
    "EXIF parameters": (
        lambda: saved("WEBP", PIXELS, lossless=True, exif=PARAMETERS),
        Label.AI_GENERATED,
    ),
    "a graph": (lambda: png({"prompt": json.dumps(GRAPH)}, PIXELS), Label.AI_GENERATED),
    "XMP": (lambda: with_xmp(source_type(GENERATED), pixels=PIXELS), Label.AI_GENERATED),
    "XMP, edited": (lambda: with_xmp(source_type(EDITED), pixels=PIXELS), Label.AI_EDITED),
}


SETTINGS = {"pixel": {"strength": "bundled"}}


def installed():
    """The names that a Detector may ask for; an editable installation knows new plugins after another install."""
    return {r.name for r in discover(environ={}) if r.state == "ok"}


needs_install = pytest.mark.skipif("provenance" not in installed(), reason="installed before the plugin was there")


@pytest.fixture(scope="module")
def detectors():
    with Detector(plugins=["pixel", "provenance"], settings=SETTINGS, stability_probe=False, time_limit=300) as both:
        yield both


@pytest.fixture(scope="module")
def bare(detectors):
    return detectors.detect(PIXELS)


def about_pixels(verdict):
    """All of a verdict that may not depend on the file."""
    rows = [(c.head, c.plugin, c.log_odds) for c in verdict.contributions]
    return verdict.label, verdict.reason, verdict.p_ai, verdict.p_tampered, verdict.prediction_set, rows


@needs_install
@pytest.mark.parametrize("name", NEUTRAL)
def test_at_equal_pixels_no_other_metadata_changes_the_verdict(detectors, bare, name):
    assert about_pixels(detectors.detect(NEUTRAL[name]())) == about_pixels(bare)


@needs_install
@pytest.mark.parametrize("name", EXPLICIT)
def test_at_equal_pixels_an_explicit_claim_raises_p_ai_and_says_so(detectors, bare, name):
    if name.startswith("XMP"):
        pytest.importorskip("defusedxml", reason="XMP needs the extra provenance")
    make, label = EXPLICIT[name]
    verdict = detectors.detect(make())
    from tellsign.fusion.claims import CLAIM_RAISE

    rows = {c.plugin: c.log_odds for c in verdict.contributions if c.head == "p_ai"}
    assert rows["provenance"] == CLAIM_RAISE
    assert sum(rows.values()) == pytest.approx(np.log(verdict.p_ai / (1 - verdict.p_ai)), abs=1e-5)
    assert verdict.p_ai > bare.p_ai
    assert "file_claim" in {n.code for n in verdict.warnings}
    assert label in verdict.prediction_set.labels


@needs_install
@pytest.mark.parametrize(("source", "label"), [(GENERATED, Label.AI_GENERATED), (EDITED, Label.AI_EDITED)])
def test_a_verified_claim_is_the_label(tmp_path, source, label):
    pytest.importorskip("c2pa", reason="Content Credentials need the extra provenance")
    authority = Authority()
    (tmp_path / "a.pem").write_bytes(authority.pem)
    signed = authority.sign(saved("PNG", PIXELS), "PNG", source=source)
    settings = {"provenance": {"trust_anchors": str(tmp_path / "a.pem")}, **SETTINGS}
    with Detector(plugins=["pixel", "provenance"], settings=settings, time_limit=300) as detector:
        verdict = detector.detect(signed)
    assert (verdict.label, verdict.prediction_set.assessed) == (label, (label,))
    assert verdict.p_ai > 0.99

    from tellsign.report import words

    assert "signed" in words.explanation(verdict)
    (claim,) = [e for e in verdict.evidence if e.kind == "provenance"]
    told = dict(words.claim_in_words(claim))
    assert told["Signed by"] == "Acme Inc / Acme"
    assert told["Worth"].startswith("verified")

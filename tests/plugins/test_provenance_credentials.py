"""Content Credentials, signed here with certificates made here, by the real library."""

import io
import json

import pytest
from provenance_files import CAPTURED, EDITED, GENERATED, Authority, saved, with_xmp, xmp

from tellsign.errors import SettingError

c2pa = pytest.importorskip("c2pa", reason="Content Credentials need the extra provenance")
pytest.importorskip("cryptography", reason="certificates are made with cryptography")

FORMS = ("JPEG", "PNG", "WEBP")


@pytest.fixture(scope="session")
def authority():
    return Authority()


@pytest.fixture(scope="session")
def anchors(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("trust") / "anchors.pem"
    path.write_bytes(authority.pem)
    return str(path)


def credentials(evidence):
    (claim,) = [e for e in evidence if getattr(e, "carrier", "") == "content_credentials"]
    return claim


@pytest.mark.parametrize("form", FORMS)
def test_signed_unchanged_and_by_a_trusted_signer_is_verified(look, authority, anchors, form):
    claim = credentials(look(authority.sign(saved(form), form), trust_anchors=anchors))
    assert (claim.verification, claim.integrity, claim.trust) == ("verified", "intact", "trusted")
    assert (claim.meaning, claim.generator, claim.claimant) == ("generated", "Acme Diffusion", "Acme Paint 2.1")
    assert claim.signer == "Acme Inc / Acme"
    assert "actions: created" in claim.detail


@pytest.mark.parametrize("form", FORMS)
def test_integrity_and_trust_are_told_apart(look, authority, form, tmp_path):
    signed = authority.sign(saved(form), form)
    nobody = credentials(look(signed))
    assert (nobody.verification, nobody.integrity, nobody.trust) == ("unverified", "intact", "unknown")
    other = tmp_path / "other.pem"
    other.write_bytes(Authority("Other").pem)
    wrong = credentials(look(signed, trust_anchors=str(other)))
    assert (wrong.verification, wrong.integrity, wrong.trust) == ("unverified", "intact", "untrusted")


def test_tampering_after_signing_is_broken_whoever_signed(look, authority, anchors):
    signed = bytearray(authority.sign(saved("JPEG")))
    signed[-300] ^= 1
    claim = credentials(look(bytes(signed), trust_anchors=anchors))
    assert (claim.verification, claim.integrity, claim.trust) == ("broken", "broken", "trusted")
    assert "dataHash" in claim.detail


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_metadata_added_after_signing_is_tampering_too(look, authority, anchors, form):
    signed = authority.sign(saved(form), form)
    end = signed.rindex(b"IEND") - 4 if form == "PNG" else len(signed)
    import struct
    import zlib

    if form == "PNG":
        body = b"tEXtComment\x00hello"
        extra = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    else:
        extra = b"ABCD\x04\x00\x00\x00beef"
    changed = signed[:end] + extra + signed[end:]
    if form == "WEBP":
        changed = changed[:4] + struct.pack("<I", len(changed) - 8) + changed[8:]
    assert credentials(look(changed, trust_anchors=anchors)).verification == "broken"


def test_a_certificate_that_has_expired_since_is_not_trusted(look, authority, anchors, monkeypatch):
    """Nobody stamped the time, so nobody knows that the signature is older than the certificate's end."""
    signed = authority.sign(saved("JPEG"), ends=1 / 24 / 3600 * 3)
    import time

    time.sleep(4)
    claim = credentials(look(signed, trust_anchors=anchors))
    assert claim.verification != "verified"
    assert claim.trust != "trusted"


@pytest.mark.parametrize(("source", "meaning"), [(GENERATED, "generated"), (EDITED, "edited"), (CAPTURED, "captured")])
def test_what_the_action_says(look, authority, anchors, source, meaning):
    data = authority.sign(saved("JPEG"), source=source)
    assert credentials(look(data, trust_anchors=anchors)).meaning == meaning


def test_a_generated_picture_that_was_edited_by_hand_stays_generated(look, authority, anchors):
    above = authority.sign(saved("JPEG"), action=None, parent=authority.sign(saved("JPEG")))
    claim = credentials(look(above, trust_anchors=anchors))
    assert (claim.verification, claim.meaning) == ("verified", "generated")


def acted(*actions):
    """A manifest with these (action, source type)."""
    made = [{"action": f"c2pa.{name}"} | ({"digitalSourceType": source} if source else {}) for name, source in actions]
    return {"assertions": [{"label": "c2pa.actions.v2", "data": {"actions": made}}]}


NOTED = {"assertions": [{"label": "c2pa.metadata", "data": {"Iptc4xmpExt:DigitalSourceType": GENERATED}}]}
MADE, TAKEN, SILENT = acted(("created", GENERATED)), acted(("created", CAPTURED)), acted(("opened", None))


@pytest.mark.parametrize(
    ("manifest", "below", "meaning"),
    [
        (acted(("created", GENERATED), ("edited", GENERATED)), (), "generated"),
        (acted(("created", CAPTURED), ("edited", GENERATED)), (), "edited"),
        (acted(("opened", None), ("edited", GENERATED)), (), "edited"),
        (acted(("opened", None), ("edited", EDITED)), (("parentOf", TAKEN),), "edited"),
        (acted(("created", None)), (), "other"),
        (SILENT, (("parentOf", MADE),), "generated"),
        (SILENT, (("parentOf", TAKEN),), "captured"),
        (SILENT, (("parentOf", MADE), ("componentOf", TAKEN)), "generated"),
        (SILENT, (("componentOf", MADE),), "generated"),
        (SILENT, (("componentOf", MADE), ("componentOf", TAKEN)), "edited"),
        (SILENT, (("componentOf", TAKEN), ("componentOf", SILENT)), "other"),
        (NOTED, (), "generated"),
    ],
)
def test_what_actions_and_ingredients_say_together(manifest, below, meaning):
    from tellsign.plugins.provenance.manifest import claim_of

    ingredients = [{"relationship": r, "active_manifest": str(i)} for i, (r, _) in enumerate(below)]
    manifests = {"a": manifest | {"ingredients": ingredients}} | {str(i): m for i, (_, m) in enumerate(below)}
    assert claim_of({"active_manifest": "a", "manifests": manifests}, asked=False).meaning == meaning


def test_a_picture_without_a_manifest_says_nothing_and_the_library_is_not_asked(look, monkeypatch):
    monkeypatch.setattr(c2pa.Reader, "try_create", lambda *a, **k: pytest.fail("asked"))
    assert look(saved("JPEG"))[0].kind == "not_applicable"


@pytest.mark.parametrize("error", [c2pa.C2paError.Verify("odd"), RuntimeError("odd"), ValueError(), KeyError("x")])
def test_whatever_the_library_raises_is_unknown(look, authority, monkeypatch, error):
    signed = authority.sign(saved("JPEG"))

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(c2pa.Reader, "try_create", fail)
    claim = credentials(look(signed))
    assert (claim.verification, claim.meaning) == ("unknown", "other")


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{", '{"manifests": {}}', '{"active_manifest": "a", "manifests": {"a": 3}}']
)
def test_whatever_json_the_library_gives_is_unknown(look, authority, monkeypatch, text):
    signed = authority.sign(saved("JPEG"))
    monkeypatch.setattr(c2pa.Reader, "json", lambda self: text)
    assert credentials(look(signed)).verification == "unknown"


@pytest.mark.parametrize("at", [40, 200, 700, 1500, 2500, 3500])
def test_a_broken_store_is_broken_or_unknown_and_never_verified(look, authority, anchors, at):
    signed = bytearray(authority.sign(saved("JPEG")))
    start = signed.index(b"jumb") + at
    signed[start : start + 60] = b"\xff" * 60
    claim = credentials(look(bytes(signed), trust_anchors=anchors))
    assert claim.verification in ("broken", "unknown")


def test_the_library_is_told_to_stay_offline(look, authority, monkeypatch):
    told = []
    real = c2pa.Context.from_dict
    monkeypatch.setattr(c2pa.Context, "from_dict", lambda settings: told.append(settings) or real(settings))
    look(authority.sign(saved("JPEG")))
    assert told[0]["verify"] == {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True}


def test_a_manifest_that_is_kept_elsewhere_is_not_fetched(look):
    text = xmp(attributes='xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="https://example.org/m.c2pa"')
    claim = credentials(look(with_xmp(text)))
    assert (claim.verification, claim.meaning) == ("unknown", "other")
    assert "not fetched" in claim.detail


def test_without_the_library_the_credentials_are_there_and_unknown(look, authority, monkeypatch):
    from tellsign.plugins.provenance import credentials as reader

    monkeypatch.setattr(reader, "find_spec", lambda name: None)
    evidence = look(authority.sign(saved("JPEG")))
    assert credentials(evidence).verification == "unknown"
    assert any(e.kind == "unavailable" and "tellsign[provenance]" in e.reason for e in evidence)


@pytest.mark.parametrize("given", ["/nowhere/at/all.pem", 7, True])
def test_a_trust_list_that_cannot_be_read_is_refused(make_provenance, given):
    with pytest.raises(SettingError, match="trust_anchors"):
        make_provenance(trust_anchors=given)


def test_a_trust_list_without_certificates_is_refused(make_provenance, tmp_path):
    (tmp_path / "a.pem").write_text("hello")
    with pytest.raises(SettingError, match="certificates"):
        make_provenance(trust_anchors=str(tmp_path / "a.pem"))


def store(**results):
    manifest = {"assertions": [], "signature_info": {"issuer": "Acme"}}
    return {"active_manifest": "a", "manifests": {"a": manifest}, "validation_results": {"activeManifest": results}}


SIGNED, BOUND, TRUSTED = "claimSignature.validated", "assertion.dataHash.match", "signingCredential.trusted"
ALL = [SIGNED, BOUND, TRUSTED]


@pytest.mark.parametrize(
    ("success", "failure", "state", "integrity", "trust", "verification"),
    [
        (ALL, [], "Trusted", "intact", "trusted", "verified"),
        (ALL, [], "Valid", "intact", "trusted", "unverified"),
        (ALL[:2], ["signingCredential.untrusted"], "Valid", "intact", "untrusted", "unverified"),
        (ALL, ["signingCredential.expired"], "Invalid", "intact", "untrusted", "unverified"),
        (ALL, ["claimSignature.outsideValidity"], "Invalid", "intact", "untrusted", "unverified"),
        (ALL, ["assertion.dataHash.mismatch"], "Invalid", "broken", "trusted", "broken"),
        (ALL, ["assertion.missing"], "Invalid", "broken", "trusted", "broken"),
        (ALL, ["assertion.action.malformed"], "Invalid", "intact", "trusted", "unverified"),
        ([], ["claimSignature.mismatch"], "Invalid", "broken", "untrusted", "broken"),
        ([SIGNED], [], "Valid", "unknown", "untrusted", "unknown"),
        ([BOUND, TRUSTED], [], "Trusted", "unknown", "trusted", "unknown"),
    ],
)
def test_what_the_codes_mean(success, failure, state, integrity, trust, verification):
    from tellsign.plugins.provenance.manifest import claim_of

    codes = {k: [{"code": c} for c in v] for k, v in (("success", success), ("failure", failure))}
    claim = claim_of(store(**codes) | {"validation_state": state}, asked=True)
    assert (claim.integrity, claim.trust, claim.verification) == (integrity, trust, verification)
    assert claim_of(store(**codes) | {"validation_state": state}, asked=False).verification != "verified"


def test_ingredients_that_name_each_other_end():
    from tellsign.plugins.provenance.manifest import claim_of

    loop = {"ingredients": [{"relationship": "parentOf", "active_manifest": "a"}] * 2}
    assert claim_of({"active_manifest": "a", "manifests": {"a": loop}}, asked=False).meaning == "other"


def test_json_is_what_the_library_gives(authority):
    """The shape that `claim_of` reads is the library's own."""
    with c2pa.Reader("image/jpeg", io.BytesIO(authority.sign(saved("JPEG")))) as reader:
        found = json.loads(reader.json())
    assert {"active_manifest", "manifests", "validation_results", "validation_state"} <= set(found)

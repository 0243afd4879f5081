"""What a manifest store says, read from the library's JSON: no library is needed here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .claim import Claim
from .source_types import IN_WORDS, meaning_of

DEEPEST = 8
"""Ingredients of ingredients that are followed."""

# Failures of the bytes: a hash or a signature that does not fit, or something signed that is gone. What else can fail
# (an action that the standard wants written otherwise) keeps a claim from being verified, and does not break it.
_BROKEN = (".mismatch", ".missing", ".inaccessible", ".multiple", ".outsideManifest")
_BOUND = ("assertion.dataHash.match", "assertion.bmffHash.match", "assertion.boxesHash.match")
# Failures that speak about the signer.
_ABOUT_TRUST = ("signingCredential.", "timeStamp.", "timestamp.", "timeOfSigning.", "cawg.")
_OUTSIDE = "claimSignature.outsideValidity"

_EXPIRED = ("signingCredential.expired", _OUTSIDE)

Json = Mapping[str, Any]


def claim_of(store: Json, *, asked: bool) -> Claim:
    """The claim of the active manifest.

    Parameters
    ----------
    store : mapping
        What the library's `Reader.json` says.
    asked : bool
        Whether the user gave a trust list; without one nobody is trusted.
    """
    label = str(store.get("active_manifest"))
    manifests = _mapping(store.get("manifests"))
    active = _mapping(manifests.get(label))
    if not active:
        raise ValueError("there is no active manifest")
    integrity, trust, notes = _validity(store, asked)
    meaning, agent = _origin(active, manifests, 0)
    signature = _mapping(active.get("signature_info"))
    signer = " / ".join(
        dict.fromkeys(str(signature[k]) for k in ("issuer", "common_name") if isinstance(signature.get(k), str))
    )
    program = _program(active)
    actions = [str(a.get("action", "")).removeprefix("c2pa.") for a in _actions(active)]
    if isinstance(signature.get("time"), str):
        notes.append(f"signed at {signature['time']}")
    if actions:
        notes.append("actions: " + ", ".join(actions[:12]))
    verified = (integrity, trust, store.get("validation_state")) == ("intact", "trusted", "Trusted")
    # Bytes of which nobody knows whether they are those that were signed are worth no more than others'.
    worth = {"intact": "verified" if verified else "unverified"}.get(integrity, integrity)
    return Claim(
        claim="Content Credentials: " + IN_WORDS.get(meaning, "nothing said of how the picture was made"),
        claimant=program or signer or "an unnamed program",
        carrier="content_credentials",
        meaning=meaning,
        verification=worth,
        signer=signer,
        integrity=integrity,
        trust=trust,
        generator=agent or program,
        detail="; ".join(notes),
    )


def _validity(store: Json, asked: bool) -> tuple[str, str, list[str]]:
    """Integrity, trust, and what to say about them."""
    results = _mapping(store.get("validation_results"))
    active = _mapping(results.get("activeManifest"))
    if not active:
        return "unknown", "unknown", ["the library did not say whether the signature holds"]
    failures = [*_codes(active.get("failure"))]
    for delta in _sequence(results.get("ingredientDeltas")):
        failures += _codes(_mapping(_mapping(delta).get("validationDeltas")).get("failure"))
    about_signer = [c for c in failures if c.startswith(_ABOUT_TRUST) or c == _OUTSIDE]
    broken = [c for c in failures if c not in about_signer and c.endswith(_BROKEN)]
    odd = [c for c in failures if c not in about_signer and c not in broken]
    success = set(_codes(active.get("success")))
    signed = "claimSignature.validated" in success and not success.isdisjoint(_BOUND)
    integrity = "broken" if broken else "intact" if signed else "unknown"
    notes = [f"not what was signed: {', '.join(dict.fromkeys(broken))}"] if broken else []
    notes += [f"not as the standard has it: {', '.join(dict.fromkeys(odd))}"] if odd else []
    if any(c in _EXPIRED for c in about_signer):
        notes.append("the certificate had expired")
    if any(c.endswith(".revoked") for c in about_signer):
        notes.append("the certificate was revoked")
    trusted = "signingCredential.trusted" in success and not about_signer
    if not asked:
        return integrity, "unknown", [*notes, "no trust list was given, so the signer's name proves nothing"]
    if trusted:
        return integrity, "trusted", notes
    return integrity, "untrusted", [*notes, "the signer is not on the given trust list"]


def _codes(items: object) -> list[str]:
    return [str(_mapping(item).get("code", "")) for item in _sequence(items)]


def _origin(manifest: Json, manifests: Json, depth: int) -> tuple[str, str]:
    """What a manifest says that the picture is, and by which program; it asks the ingredients where it says nothing."""
    own, agent = _own_origin(manifest)
    if own in ("generated", "edited") or depth >= DEEPEST:
        return own, agent
    ingredients = [_mapping(i) for i in _sequence(manifest.get("ingredients"))][:100]
    behind = []
    for ingredient in ingredients:
        below = _mapping(manifests.get(str(ingredient.get("active_manifest"))))
        if below:
            behind.append((ingredient.get("relationship"), *_origin(below, manifests, depth + 1)))
    parents = [b for b in behind if b[0] == "parentOf"] or (behind if len(ingredients) == 1 else [])
    if parents:
        return parents[0][1] if parents[0][1] != "other" else own, parents[0][2] or agent
    synthetic = [b for b in behind if b[1] in ("generated", "edited")]
    return ("edited", synthetic[0][2]) if synthetic else (own, agent)


def _own_origin(manifest: Json) -> tuple[str, str]:
    actions = list(_actions(manifest))
    found = [(meaning_of(a.get("digitalSourceType", "")), a) for a in actions]
    for meaning, action in found:
        if action.get("action") == "c2pa.created" and meaning != "other":
            more = any(m in ("generated", "edited") for m, _ in found)
            # A camera's picture that was edited with a trained model later, in the same manifest.
            return ("edited" if meaning == "captured" and more else meaning), _agent(action)
    for meaning, action in found:
        if meaning in ("generated", "edited"):
            return "edited", _agent(action)
    for assertion in _assertions(manifest):
        data = _mapping(assertion.get("data"))
        for key, value in data.items():
            if key.rpartition(":")[2] == "DigitalSourceType" and meaning_of(value) != "other":
                return meaning_of(value), ""
    return "other", ""


def _assertions(manifest: Json) -> Iterator[Json]:
    return (_mapping(a) for a in _sequence(manifest.get("assertions"))[:500])


def _actions(manifest: Json) -> Iterator[Json]:
    for assertion in _assertions(manifest):
        if str(assertion.get("label", "")).startswith("c2pa.actions"):
            for action in _sequence(_mapping(assertion.get("data")).get("actions"))[:500]:
                yield _mapping(action)


def _agent(action: Json) -> str:
    agent = action.get("softwareAgent")
    named = agent if isinstance(agent, str) else _mapping(agent).get("name", "")
    return named if isinstance(named, str) else ""


def _program(manifest: Json) -> str:
    for info in _sequence(manifest.get("claim_generator_info")):
        name, version = (_mapping(info).get(k) for k in ("name", "version"))
        if isinstance(name, str) and name:
            return f"{name} {version}" if isinstance(version, str) else name
    plain = manifest.get("claim_generator")
    return plain if isinstance(plain, str) else ""


def _mapping(value: object) -> Json:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else []


__all__ = ["claim_of"]

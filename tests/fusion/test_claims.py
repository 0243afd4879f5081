"""The rule for explicit claims: what it raises, what it leaves, and that it never lowers."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellsign.fusion.claims import CLAIM_RAISE, VERIFIED_FLOOR, raised, settle, strongest_claim
from tellsign.schemas import DEFINITE_LABELS, Label, PredictionSet, ProvenanceEvidence, Task, UncertainReason
from tellsign.schemas.evidence import CARRIERS, MEANINGS

VERIFICATIONS = ("verified", "unverified", "broken", "unknown")


def claim(meaning="generated", verification="unverified", task=Task.PROVENANCE, **more):
    return ProvenanceEvidence(
        plugin="provenance",
        task=task,
        model="m",
        claim="c",
        claimant="w",
        meaning=meaning,
        verification=verification,
        **more,
    )


claims = st.builds(claim, st.sampled_from(MEANINGS), st.sampled_from(VERIFICATIONS), carrier=st.sampled_from(CARRIERS))


@given(st.lists(claims, max_size=6), st.floats(-30, 30))
def test_the_rule_never_lowers_and_claims_do_not_add_up(found, base):
    one = strongest_claim(found)
    explicit = [c for c in found if c.meaning in ("generated", "edited") and c.verification in VERIFICATIONS[:2]]
    assert (one is None) is (not explicit)
    assert raised(base, one) >= base
    if one is None:
        assert raised(base, one) == base
    else:
        assert raised(base, one) == max(raised(base, c) for c in explicit)


@given(
    st.permutations([claim("generated"), claim("edited"), claim("edited", "verified"), claim("captured", "verified")])
)
def test_the_order_of_the_evidence_does_not_matter(found):
    assert strongest_claim(found) == claim("edited", "verified")


@pytest.mark.parametrize("task", [t for t in Task if t is not Task.PROVENANCE])
def test_only_provenance_makes_claims(task):
    assert strongest_claim([claim(task=task)]) is None


def test_a_verified_claim_is_a_floor_and_an_unsigned_one_a_step():
    assert raised(-20.0, claim(verification="verified")) == VERIFIED_FLOOR
    assert raised(20.0, claim(verification="verified")) == 20 + CLAIM_RAISE
    assert raised(-2.0, claim()) == -2 + CLAIM_RAISE


sets = st.builds(
    lambda inside, unknown: PredictionSet(
        labels=tuple(x for x in DEFINITE_LABELS if x in inside | unknown),
        not_assessed=tuple(x for x in DEFINITE_LABELS if x in unknown),
        error_rate=0.1,
    ),
    st.sets(st.sampled_from(DEFINITE_LABELS)),
    st.sets(st.sampled_from(DEFINITE_LABELS)),
)


@given(st.none() | claims, sets, st.floats(0, 1), st.data())
def test_whatever_comes_the_label_is_in_its_set(one, chosen, p_ai, data):
    label = data.draw(st.sampled_from([*chosen.assessed, Label.UNCERTAIN]))
    reason = UncertainReason.SEVERAL_LABELS if label is Label.UNCERTAIN else None
    one = strongest_claim([one] if one else [])
    after, why, found = settle(one, p_ai, label, reason, chosen)
    assert (after is Label.UNCERTAIN) is (why is not None)
    assert after is Label.UNCERTAIN or after in found.assessed
    assert found.error_rate == chosen.error_rate
    if one is not None and one.verification == "verified" and p_ai >= 0.5:
        assert after is (Label.AI_EDITED if one.meaning == "edited" else Label.AI_GENERATED)
        assert found.assessed == (after,)
    if one is None:
        assert (after, why, found) == (label, reason, chosen)


def logit(p):
    return math.log(p / (1 - p))


@pytest.mark.parametrize(("meaning", "verification"), itertools.product(MEANINGS, VERIFICATIONS))
def test_in_a_bundle_only_an_explicit_claim_moves_anything(bundle, toys, meaning, verification):
    plugins = toys.four_plugins()
    said = toys.evidence_of(row_of(toys, -0.5))
    declared = plugins | {"provenance": toys.declare("provenance", Task.PROVENANCE)}
    before = bundle.fuse(said, plugins)
    after = bundle.fuse([*said, claim(meaning, verification)], declared)
    explicit = meaning in ("generated", "edited") and verification in ("verified", "unverified")
    if not explicit:
        assert after == before
        return
    assert after.p_ai > before.p_ai
    rows = {c.plugin: c.log_odds for c in after.contributions if c.head == "p_ai"}
    assert rows["provenance"] > 0
    assert sum(rows.values()) == pytest.approx(logit(after.p_ai), abs=1e-5)
    assert after.p_tampered == before.p_tampered
    (notice,) = [n for n in after.notices if n.code == "file_claim"]
    assert notice.plugin == "provenance"
    if verification == "verified":
        assert after.label is (Label.AI_EDITED if meaning == "edited" else Label.AI_GENERATED)
        assert after.prediction_set.assessed == (after.label,)


@pytest.mark.parametrize("prior", [0.01, 0.5, 0.9])
def test_the_prior_still_speaks(bundle, toys, prior):
    said = [*toys.evidence_of(row_of(toys, -0.5)), claim()]
    declared = toys.four_plugins() | {"provenance": toys.declare("provenance", Task.PROVENANCE)}
    even, asked = (bundle.fuse(said, declared, prior=p) for p in (0.5, prior))
    assert logit(asked.p_ai) == pytest.approx(logit(even.p_ai) + logit(prior), abs=1e-6)


@pytest.mark.parametrize(("verification", "label"), [("verified", Label.AI_GENERATED), ("unverified", Label.UNCERTAIN)])
def test_a_claim_without_any_other_evidence(bundle, toys, verification, label):
    declared = {"provenance": toys.declare("provenance", Task.PROVENANCE)}
    fused = bundle.fuse([claim(verification=verification)], declared)
    assert fused.label is label
    assert sum(c.log_odds for c in fused.contributions) == pytest.approx(logit(fused.p_ai), abs=1e-5)
    assert {"no_evidence", "file_claim"} == {n.code for n in fused.notices}


def row_of(toys, value):
    return {f"{name}.{column}": value for name in toys.four_plugins() for column in "ab"}

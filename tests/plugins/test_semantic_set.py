"""Topics, matching and balance: under the weights, a topic says nothing of the label."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellsign.plugins.semantic.training import measure
from tellsign.plugins.semantic.training.semantic_set import Topics, balance, make, match, source_weight


def unit(values):
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def world(seed=0, n=600, topics=6, faces=0.9):
    """Embeddings in clusters; most pictures of topic 0 are generated, which is all that label and topic share."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(topics, 16)) * 4
    topic = rng.integers(topics, size=n)
    label = (rng.random(n) < np.where(topic == 0, faces, 0.3)).astype(np.int64)
    source = np.array([f"{'fake' if y else 'real'}{rng.integers(5)}" for y in label])
    return unit(centres[topic] + rng.normal(size=(n, 16))), label, source, topic


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(20, 200), st.integers(1, 8), st.integers(1, 5))
def test_both_classes_have_one_mass_in_every_topic(seed, n, topics, sources):
    rng = np.random.default_rng(seed)
    label, topic = rng.integers(2, size=n), rng.integers(topics, size=n)
    source = np.array([f"{y}{s}" for y, s in zip(label, rng.integers(sources, size=n), strict=True)])
    both = [t for t in range(topics) if len(set(label[topic == t].tolist())) == 2]
    if not both:
        return
    weight = balance(label, source, topic)
    assert (weight >= 0).all()
    assert weight.mean() == pytest.approx(1)
    for t in range(topics):
        masses = [weight[(topic == t) & (label == y)].sum() for y in (0, 1)]
        assert masses[0] == pytest.approx(masses[1])
        assert (masses[0] > 0) == (t in both)


def test_a_large_source_counts_less_than_its_size():
    label = np.repeat([0, 1], 110)
    source = np.array((["large"] * 100 + ["small"] * 10) + (["a"] * 55 + ["b"] * 55))
    weight = balance(label, source, np.zeros(220, np.int64))
    share = weight[source == "large"].sum() / weight[source == "small"].sum()
    assert share == pytest.approx(10**0.5, rel=0.02)


def test_partners_are_the_nearest_real_pictures_of_the_same_topic():
    embedding = unit(np.array([[1, 0], [1, 0.1], [1, 0.5], [0, 1], [0.1, 1], [-1, 0]], float))
    label = np.array([1, 0, 0, 1, 0, 1])
    topic = np.array([0, 0, 0, 1, 1, 2])
    assert match(embedding, label, topic, partners=1).tolist() == [True, True, False, True, True, False]
    assert match(embedding, label, topic, partners=2).tolist() == [True, True, True, True, True, False]


def test_topics_find_the_clusters_without_labels():
    embedding, label, source, topic = world()
    found = Topics(embedding, source_weight(label, source), count=6).of(embedding)
    # Every cluster found is one of the true ones, up to its number.
    assert np.mean([np.bincount(topic[found == t]).max() / (found == t).sum() for t in range(6)]) > 0.95


def test_the_semantic_set_takes_the_topics_word_away():
    embedding, label, source, topic = world()
    naive = source_weight(label, source)
    chosen = make(embedding, label, source, topics=6)

    def face_share(rows, weight):
        return [weight[(label[rows] == y) & (topic[rows] == 0)].sum() / weight[label[rows] == y].sum() for y in (0, 1)]

    real, fake = face_share(np.arange(len(label)), naive)
    assert fake - real > 0.2
    real, fake = face_share(chosen.rows, chosen.weight)
    assert abs(fake - real) < 0.05


# -- measures -------------------------------------------------------------------------------------------------------


def test_a_topic_only_score_ranks_overall_and_not_within_topics():
    _, label, source, topic = world(n=2000)
    score = measure.topic_only(topic, label, source, topic)
    assert measure.auc(label, score) > 0.6
    assert measure.within_topic(label, score, topic) == pytest.approx(0.5)


def test_within_topic_counts_topics_by_their_smaller_class():
    label = np.array([0] * 3 + [1] * 3 + [0] * 9 + [1] * 9 + [0, 1])
    topic = np.array([0] * 6 + [1] * 18 + [2] * 2)
    score = np.r_[[0, 0, 0, 1, 1, 1], [1] * 9, [0] * 9, [0, 1]].astype(float)
    assert measure.within_topic(label, score, topic) == pytest.approx(3 / 12)
    assert np.isnan(measure.within_topic(label[-2:], score[-2:], topic[-2:]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=40), min_size=1, max_size=5), st.floats(0, 0.5))
def test_the_threshold_accuses_no_source_above_the_share(scores, share):
    sources = {str(i): np.array(s) for i, s in enumerate(scores)}
    cut = measure.least_threshold(sources, share)
    assert all((s > cut).mean() <= share for s in sources.values())
    # And no smaller one does.
    below = np.nextafter(cut, -np.inf)
    assert any((s > below).mean() > share for s in sources.values())


def test_accusations_are_counted_by_real_source():
    told = measure.accused(
        np.array([0, 0, 0, 1]), np.array([1.0, -1.0, 2.0, 3.0]), np.array(["a", "a", "b", "c"]), threshold=0.0
    )
    assert told == {"a": (1, 2), "b": (1, 1)}


def test_by_source_counts_pairs_of_sources_alike():
    label = np.array([0] * 100 + [0] + [1])
    source = np.array(["large"] * 100 + ["small"] + ["fake"])
    score = np.r_[np.zeros(100), 2.0, 1.0]
    assert measure.by_source(label, score, source) == pytest.approx(0.5)
    assert measure.auc(label, score) == pytest.approx(100 / 101)

"""The semantic set: which pictures train a head and how much each counts, so that topic and source say nothing.

Sources differ in what they show (most faces in the data are generated, most street scenes are photographs), and a model
of meaning learns that first. So pictures are grouped into topics by what the tower's embedding says they show, every
generated picture is matched with the real ones nearest to it within its topic, pictures without a partner are left
out, and weights give both classes the same mass within each topic.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
import torch
from numpy.typing import NDArray

from tellsign.towers import ClipTower

TOPICS = 24
"""Topics that `balance` works with."""
FINE = 150
"""Topics of the baseline that knows nothing but topics."""
FOLDS = 4
"""In which `folds` parts the sources."""


@attrs.frozen(kw_only=True)
class SemanticSet:
    """Pictures with their weights."""

    rows: NDArray[np.int64]
    """Indices of the pictures that take part."""
    weight: NDArray[np.float64]
    """One for each of `rows`; mean 1."""


@torch.inference_mode()
def embeddings(tower: ClipTower, tokens: NDArray[np.float16]) -> NDArray[np.float32]:
    """What CLIP aligns with text, on the unit sphere.

    Parameters
    ----------
    tower : ClipTower
    tokens : float16 array of (n, depth, width)
        `extract`'s.

    Returns
    -------
    float32 array of (n, projection)
    """
    last = torch.from_numpy(np.asarray(tokens[:, -1], np.float32))
    out = torch.nn.functional.normalize(tower.ln_post(last) @ tower.proj, dim=1)
    return np.asarray(out.numpy(), np.float32)


class Topics:
    """k-means on embeddings; knows nothing of labels.

    Parameters
    ----------
    embedding : float32 array of (n, d)
        On the unit sphere.
    weight : float array of (n,)
        Usually 1 over the size of a picture's source, so that a large source does not own the topics.
    count : int
        Topics; fewer where there would be less than four pictures for each.
    seed : int
    """

    def __init__(
        self, embedding: NDArray[np.float32], weight: NDArray[np.float64], *, count: int = TOPICS, seed: int = 0
    ) -> None:
        from sklearn.cluster import KMeans

        count = max(1, min(count, len(embedding) // 4))
        self.model = KMeans(count, n_init=3, random_state=seed).fit(embedding, sample_weight=weight)

    def of(self, embedding: NDArray[np.float32]) -> NDArray[np.int64]:
        """The topic of each picture, int64 (n,)."""
        return np.asarray(self.model.predict(np.asarray(embedding, np.float32)), np.int64)


def match(
    embedding: NDArray[np.float32], label: NDArray[np.int64], topic: NDArray[np.int64], *, partners: int = 3
) -> NDArray[np.bool_]:
    """Which pictures take part: every generated one whose topic has real ones, and its nearest real ones there.

    Parameters
    ----------
    embedding : float32 array of (n, d)
        On the unit sphere.
    label, topic : int64 arrays of (n,)
    partners : int, default 3
        Real pictures that each generated one brings along, from its own topic.

    Returns
    -------
    bool array of (n,)
    """
    keep = np.zeros(len(label), bool)
    for t in np.unique(topic):
        fake, real = (np.flatnonzero((topic == t) & (label == y)) for y in (1, 0))
        if not len(fake) or not len(real):
            continue
        near = np.argsort(-(embedding[fake] @ embedding[real].T), axis=1)[:, :partners]
        keep[fake] = True
        keep[real[np.unique(near)]] = True
    return keep


def balance(
    label: NDArray[np.int64], source: NDArray[np.str_], topic: NDArray[np.int64], *, rounds: int = 200
) -> NDArray[np.float64]:
    """Weights under which topic says nothing of the label.

    Within a topic both classes have one mass, which is the square root of the smaller class's size; within a class a
    source's mass is drawn towards the square root of its size. Both at once by raking (iterative proportional fitting,
    Deming and Stephan, 1940), topics last, so that theirs hold exactly.

    Parameters
    ----------
    label, topic : int64 arrays of (n,)
    source : str array of (n,)
    rounds : int

    Returns
    -------
    float64 array of (n,)
        Mean 1; 0 in topics that have one class only.
    """
    weight = np.ones(len(label))
    cells = []
    for t in np.unique(topic):
        sides = [np.flatnonzero((topic == t) & (label == y)) for y in (0, 1)]
        mass = float(min(map(len, sides))) ** 0.5
        for side in sides:
            cells.append((side, mass))
            if not mass:
                weight[side] = 0
    total = sum(mass for _, mass in cells) / 2
    sources = []
    for y in (0, 1):
        names, counts = np.unique(source[(label == y) & (weight > 0)], return_counts=True)
        share = counts**0.5 / (counts**0.5).sum()
        sources += [((label == y) & (source == n), total * s) for n, s in zip(names, share, strict=True)]
    for _ in range(rounds):
        for mine, mass in sources:
            now = weight[mine].sum()
            if now > 0:
                # Half a step, and never far from 1: a source that is alone in its topic must not fight the topic.
                weight[mine] *= min(2.0, max(0.5, (mass / now) ** 0.5))
        for mine, mass in cells:
            if mass:
                weight[mine] *= mass / weight[mine].sum()
    out: NDArray[np.float64] = weight * len(weight) / weight.sum()
    return out


def make(
    embedding: NDArray[np.float32],
    label: NDArray[np.int64],
    source: NDArray[np.str_],
    *,
    topics: int = TOPICS,
    seed: int = 0,
) -> SemanticSet:
    """Topics, matching and balancing in one.

    Parameters
    ----------
    embedding : float32 array of (n, d)
    label : int64 array of (n,)
    source : str array of (n,)
    topics : int
    seed : int

    Returns
    -------
    SemanticSet
        `rows` are indices into the arrays given.

    Raises
    ------
    ValueError
        No topic has pictures of both classes.
    """
    found = Topics(embedding, source_weight(label, source), count=topics, seed=seed).of(embedding)
    rows = np.flatnonzero(match(embedding, label, found))
    if not len(rows):
        raise ValueError(f"embedding takes pictures of which some topic has both classes, got none among {topics}")
    weight = balance(label[rows], source[rows], found[rows])
    return SemanticSet(rows=rows[weight > 0], weight=weight[weight > 0])


def source_weight(label: NDArray[np.int64], source: NDArray[np.str_]) -> NDArray[np.float64]:
    """Weights that give both classes one total and a source the square root of its size; their mean is 1."""
    keys: Sequence[tuple[int, str]] = list(zip(label.tolist(), source.tolist(), strict=True))
    count: dict[tuple[int, str], int] = {}
    for key in keys:
        count[key] = count.get(key, 0) + 1
    weight = np.array([count[k] ** -0.5 for k in keys])
    for y in (0, 1):
        weight[label == y] /= max(weight[label == y].sum(), 1e-12)
    out: NDArray[np.float64] = weight * len(weight) / 2
    return out


def folds(label: NDArray[np.int64], source: NDArray[np.str_], *, seed: int) -> NDArray[np.int64]:
    """Number of the fold that holds each row out; whole sources go together, both classes' spread over `FOLDS`."""
    rng = np.random.default_rng(seed)
    out = np.zeros(len(label), np.int64)
    for y in (0, 1):
        names = np.unique(source[label == y])
        if len(names) < FOLDS:
            raise ValueError(f"source takes at least {FOLDS} of each class, got {len(names)} of class {y}")
        for place, k in enumerate(rng.permutation(len(names))):
            out[(label == y) & (source == names[k])] = place % FOLDS
    return out

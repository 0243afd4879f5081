"""ReAlign's three properties of reasoning texts, as numbers.

The paper shows them in pictures: texts of real and of fake pictures lie apart, texts of different generators lie
together, and texts move when they name an error. Here: an AUC, a probe's accuracy with a distance, and a share.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tellsign.data.ranking import auc
from tellsign.schemas import Category

from .facts import PLACES, Facts
from .statements import FAKE_SENTENCE, REAL_SENTENCE, reasoning
from .text import TextEncoder


def class_axes(texts: Tensor, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """X = s_real - s_fake and y = s_real + s_fake of texts (n, d), by their similarity to the class prompts (d,)."""
    s_real, s_fake = texts @ real, texts @ fake
    return s_real - s_fake, s_real + s_fake


def separation(texts: Tensor, label: NDArray[np.int64], encoder: TextEncoder) -> float:
    """First property: AUC of -x against the label; .5 where texts say nothing of it."""
    prompts = encoder.encode([(REAL_SENTENCE, ""), (FAKE_SENTENCE, "")])
    x, _ = class_axes(texts, prompts[0], prompts[1])
    return auc(label, -x.double().numpy())


def domain_accuracy(vectors: Tensor, source: NDArray[np.str_], *, most: int = 8, seed: int = 0) -> tuple[float, float]:
    """Second property: how well a linear probe tells the sources of vectors apart, and what guessing gives.

    Parameters
    ----------
    vectors : float tensor of (n, d)
    source : str array of (n,)
    most : int
        The largest so many sources take part.
    seed : int
        Of the two folds.

    Returns
    -------
    accuracy, chance : float
        Chance is the largest source's share; NaN for both where fewer than two sources have four pictures.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    names, counts = np.unique(source, return_counts=True)
    chosen = [n for n, c in sorted(zip(names, counts, strict=True), key=lambda p: -p[1])[:most] if c >= 4]
    mine = np.isin(source, chosen)
    if len(chosen) < 2:
        return float("nan"), float("nan")
    x, y = vectors.numpy()[mine], source[mine]
    folds = StratifiedKFold(2, shuffle=True, random_state=seed)
    scores = cross_val_score(LogisticRegression(C=10.0, max_iter=200), x, y, cv=folds)
    return float(scores.mean()), float(np.unique(y, return_counts=True)[1].max() / len(y))


def coral(a: Tensor, b: Tensor) -> float:
    """Distance of two sets of vectors (n, d), (m, d): squared Frobenius norm of their covariances' difference / 4d^2.

    Sun and Saenko, arXiv 1607.01719.
    """
    d = a.shape[1]
    return float((torch.cov(a.T) - torch.cov(b.T)).square().sum() / (4 * d * d))


def error_sensitivity(encoder: TextEncoder, *, count: int = 60, seed: int = 0) -> dict[str, float]:
    """Third property: share of texts that move towards "fake" when an error of a category is added to them.

    Parameters
    ----------
    encoder : TextEncoder
    count : int
        Texts per category.
    seed : int

    Returns
    -------
    dict from category to share
    """
    rng = np.random.default_rng(seed)
    prompts = encoder.encode([(REAL_SENTENCE, ""), (FAKE_SENTENCE, "")])
    out: dict[str, float] = {}
    for category in Category:
        state = rng.integers(1 << 31, size=count)
        plain, wrong = [], []
        for s in state:
            place = PLACES[int(s) % len(PLACES)]
            bare = Facts(fake=False, content="photo")
            plain.append(("", reasoning(bare, np.random.default_rng(s))))
            named = attrs.evolve(bare, artifacts=((category, place),))
            wrong.append(("", reasoning(named, np.random.default_rng(s))))
        moved = [class_axes(encoder.encode(t), prompts[0], prompts[1])[0] for t in (plain, wrong)]
        out[category.value] = float((moved[1] < moved[0]).float().mean())
    return out


def report(texts: Tensor, label: NDArray[np.int64], source: NDArray[np.str_], encoder: TextEncoder) -> dict[str, float]:
    """The first two properties of one kind of text.

    Parameters
    ----------
    texts : float tensor of (n, d)
        Zeros where there is no text; these are left out.
    label, source : arrays of (n,)
    encoder : TextEncoder
    """
    told = (texts.abs().sum(dim=1) > 0).numpy()
    texts, label, source = texts[torch.from_numpy(told)], label[told], source[told]
    fake = label == 1
    accuracy, chance = domain_accuracy(texts[torch.from_numpy(fake)], source[fake])
    names, counts = np.unique(source[fake], return_counts=True)
    largest: Sequence[str] = [str(n) for n in names[np.argsort(-counts)][:2]]
    pair = [texts[torch.from_numpy(source == n)] for n in largest]
    return {
        "separation": separation(texts, label, encoder),
        "domain accuracy": accuracy,
        "chance": chance,
        "coral": coral(*pair) if len(pair) == 2 and min(map(len, pair)) > 1 else float("nan"),
    }

"""From finished training to what ships: thresholds, the bank, and what was measured on the way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from tellsign.data.balance import source_weight
from tellsign.plugins.reasoning.model import StudentModel, TowerModel
from tellsign.towers import CLIP_VIT_B16, branch, semantic_square
from tellsign.towers.lite import SIDE, LiteTrunk

from . import small
from .ablation import Bench, ranked
from .export import export_student, export_tower, own_threshold, tower_model
from .precision import Measured, make_bank
from .statements import STATEMENTS
from .tokens import TokenStore
from .train import Recipe, apply, facts_of, lesson, train


def tower(bench: Bench, recipe: Recipe, folder: Path, out: Path, *, version: str) -> tuple[Path, dict[str, Any]]:
    """Train on all of `fit`, put zero at the model's own threshold on `fuse`, measure the bank, and write the file.

    Parameters
    ----------
    bench : Bench
    recipe : Recipe
    folder : Path
        With `forged`, if there are forgeries of `fuse`.
    out : Path
    version : str

    Returns
    -------
    file : Path
    report : dict
        Ranking on `fuse`, false accusations by source, and every statement with what was measured.
    """
    rows = np.arange(len(bench.fit))
    inputs = bench.inputs(bench.fit, recipe)
    made, _ = train(
        bench.tower,
        bench.fit,
        rows,
        bench.lesson(recipe),
        recipe,
        weight=bench.weight(rows),
        joint=bench.encoder.joint,
        inputs=inputs,
    )
    fuse = np.arange(len(bench.fuse))
    v, raw = apply(made, bench.inputs(bench.fuse, recipe), fuse)
    threshold = own_threshold(raw, bench.fuse.label, bench.fuse.source)
    # Slope from families that the model did not see.
    slope = label_slope(raw, bench.fuse.label, bench.fuse.source)
    images, facts, source = [v], facts_of(bench.fuse), [bench.fuse.source]
    if (folder / "forged").is_dir():
        forged = TokenStore.read(folder / "forged")
        images.append(apply(made, bench.inputs(forged, recipe), np.arange(len(forged)))[0])
        facts += facts_of(forged)
        source.append(forged.source)
    with torch.no_grad():
        vectors = made.text(bench.encoder.encode([("", s.text) for s in STATEMENTS]))
    bank, found = make_bank(STATEMENTS, vectors, torch.cat(images), facts, np.concatenate(source))
    model = tower_model(made, recipe, bench.tower, slope=slope, threshold=threshold)
    file = export_tower(model, bank, recipe, out, version=version, tower=CLIP_VIT_B16)
    scores = (raw - threshold) * slope
    return file, _report(bench.fuse, bench.fuse_topic, scores, found)


def student(
    bench: Bench,
    recipe: small.SmallRecipe,
    folder: Path,
    start: Path,
    teacher: TowerModel,
    out: Path,
    *,
    version: str,
) -> tuple[Path, dict[str, Any]]:
    """Teach the small model on the pictures of `fit` that the tower model learned from, and write the file.

    Parameters
    ----------
    bench : Bench
    recipe : SmallRecipe
    folder : Path
        Keeps the pooled features.
    start : Path
        The published weights.
    teacher : TowerModel
    out : Path
    version : str
    """
    trunk = small.published_trunk(torch.load(start, weights_only=True))
    fit = _pooled(trunk, bench.fit, folder / "pooled-fit.npy")
    fuse = _pooled(trunk, bench.fuse, folder / "pooled-fuse.npy")
    whole = np.flatnonzero(bench.fit.kind == "")
    target = soft_targets(bench.fit.label, teach(bench, teacher), recipe)
    taught = lesson(bench.facts, bench.encoder, recipe.text, texts=recipe.texts, long="split", seed=recipe.seed)
    model, projection = small.fit_with_projection(
        fit[whole], target[whole], taught.texts[torch.from_numpy(whole)], bench.weight(whole), recipe
    )
    v, raw = small_scores(model, fuse)
    threshold = own_threshold(raw, bench.fuse.label, bench.fuse.source)
    slope = label_slope(raw, bench.fuse.label, bench.fuse.source)
    model.head.slope.fill_(slope)
    model.head.offset.fill_(-slope * threshold)
    images, facts, source = [v], facts_of(bench.fuse), [bench.fuse.source]
    if (folder / "forged").is_dir():
        forged = TokenStore.read(folder / "forged")
        images.append(small_scores(model, _pooled(trunk, forged, folder / "pooled-forged.npy"))[0])
        facts += facts_of(forged)
        source.append(forged.source)
    with torch.no_grad():
        embedded = bench.encoder.encode([("", s.text) for s in STATEMENTS])
        vectors = F.normalize(projection(embedded), dim=1)
    bank, found = make_bank(STATEMENTS, vectors, torch.cat(images), facts, np.concatenate(source))
    file = export_student(trunk, model, bank, attrs.asdict(recipe), out, version=version)
    return file, _report(bench.fuse, bench.fuse_topic, (raw - threshold) * slope, found)


def teach(bench: Bench, teacher: TowerModel) -> Tensor:
    """What the tower model says of the pictures of `fit`: log-odds (n,)."""
    tokens = bench.fit.after(teacher.first - 1)
    out = []
    with torch.inference_mode():
        for start in range(0, len(tokens), 64):
            part = torch.from_numpy(np.array(tokens[start : start + 64])).float()
            v = teacher.vector(bench.tower, branch(bench.tower, part, teacher.first, teacher.last, teacher.lora))
            out.append(teacher.head.raw(v) * teacher.head.slope)
    return torch.cat(out)


def soft_targets(label: NDArray[np.int64], told: Tensor, recipe: small.SmallRecipe) -> NDArray[np.float64]:
    """What the small model is taught, float64 (n,) in [0, 1], where a tower model said `told` (log-odds).

    The middle of what was said becomes zero: a tower model's own zero is where it accuses hardly anybody, which would
    teach that nothing is generated.
    """
    said = told.double().numpy()
    target: NDArray[np.float64] = recipe.labels * label + (1 - recipe.labels) / (1 + np.exp(np.median(said) - said))
    return target


@torch.inference_mode()
def small_scores(model: StudentModel, pooled: NDArray[np.float16]) -> tuple[Tensor, Tensor]:
    """Unit vectors and raw log-odds of pooled features."""
    v = model.embed(torch.from_numpy(np.asarray(pooled, np.float32)))
    return v, model.head.raw(v)


def _pooled(trunk: LiteTrunk, store: TokenStore, cache: Path) -> NDArray[np.float16]:
    if cache.is_file():
        kept: NDArray[np.float16] = np.load(cache)
        if len(kept) == len(store):
            return kept
    out = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(store), 32):
            part = np.stack([semantic_square(s, SIDE) for s in store.squares[start : start + 32]])
            out.append(trunk.features(torch.from_numpy(part)).float().half().numpy())
    made = np.concatenate(out)
    np.save(cache, made)
    return made


def label_slope(raw: Tensor, label: NDArray[np.int64], source: NDArray[np.str_]) -> float:
    """What brings raw scores of pictures that the model did not learn from to the scale of log-odds; positive."""
    weight = source_weight(label, source)
    fitted = LogisticRegression(C=1e6).fit(raw.double().numpy()[:, None], label, sample_weight=weight)
    return max(float(fitted.coef_[0, 0]), 1e-3)


def _report(store: TokenStore, topic: NDArray[np.int64], scores: Tensor, found: Sequence[Measured]) -> dict[str, Any]:
    rows = np.arange(len(store))
    values = scores.double().numpy()
    reals = [
        {"source": str(n), "above": int((values[mine] > 0).sum()), "of": int(mine.sum())}
        for n in np.unique(store.source[store.label == 0])
        for mine in [(store.label == 0) & (store.source == n)]
    ]
    return {
        **ranked(store, topic, rows, scores),
        "caught": float((values[store.label == 1] > 0).mean()),
        "accused": reals,
        "statements": [attrs.asdict(m) | {"speaks": m.speaks} for m in found],
    }

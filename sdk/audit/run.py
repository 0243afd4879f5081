"""Runs the audit: scores pictures before and after every change, and puts the numbers together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.decoding import decode
from tellsign.errors import DecodeError, SettingError
from tellsign.evaluation.items import Dataset, Item
from tellsign.fusion.features import feature_row
from tellsign.schemas import Declaration, Evidence, Picture, Verdict

from . import matrix
from .changes import CHANGES, Change, changed, partners

Floats = NDArray[np.float64]

EXAMPLES = 4
"""Pictures that the page shows, half of each class where there are."""
_BATCH = 8


class AuditedDetector(Protocol):
    """The part of `tellsign.Detector` that is needed here."""

    @property
    def versions(self) -> Any:
        """Versions of everything that takes part, by name."""

    @property
    def declarations(self) -> dict[str, Declaration]:
        """Of the plugins that take part, by name."""

    def detect_many(self, sources: Iterable[Any], *, batch_size: int | None = ...) -> Iterator[Any]:
        """One verdict per source, in order."""

    def collect_many(self, sources: Iterable[Any], *, batch_size: int | None = ...) -> Iterator[Any]:
        """The evidence of each source, in order, without fusion."""


@attrs.frozen(kw_only=True)
class Example:
    """One picture on the page: as it was and after every change, with what each detector said."""

    name: str
    label: int
    pictures: dict[str, Picture]
    """By change; the unchanged picture under ""."""
    log_odds: dict[str, dict[str, float]]
    """By change, then by detector."""


@attrs.frozen(kw_only=True)
class Audit:
    """What an audit found."""

    report: dict[str, Any]
    """Only what JSON holds."""
    examples: tuple[Example, ...]


def audit(
    dataset: Dataset,
    detector: AuditedDetector,
    *,
    changes: Sequence[Change] = CHANGES,
    normalise: bool = True,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Measure every detector's accuracy beside what moves it.

    Parameters
    ----------
    dataset : Dataset
        From `tellsign.evaluation.dataset.load`; a few hundred pictures, since all are kept in memory.
    detector : Detector
        Without the stability probe, which would only cost time.
    changes : sequence of Change
    normalise : bool, default True
        Put every picture through `tellsign.data.normalise` first, so that classes share one pixel processing.
    seed : int
        Of the draws.
    progress : callable, optional
        Called with (scored, all), pictures times changes and one.

    Raises
    ------
    SettingError
        No picture of a class can be read, or no detector gives a score.
    """
    items, pictures, troubles = _read(dataset.items, normalise=normalise, seed=seed)
    label = np.array([i.label for i in items], int)
    if len(set(label.tolist())) < 2:
        raise SettingError("DATA", "readable pictures of both classes", f"{len(items)} of one class")
    sources = [i.source for i in items]
    total, done = len(items) * (len(changes) + 1), 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    rows: list[dict[str, float]] = []
    fused: list[float] = []
    for verdict in detector.detect_many(pictures, batch_size=_BATCH):
        assert isinstance(verdict, Verdict)
        rows.append(_row(verdict.evidence, detector.declarations))
        fused.append(float("nan") if verdict.p_ai is None else verdict.p_ai)
        tick()
    names = sorted({name for row in rows for name, value in row.items() if not np.isnan(value)})
    if not names:
        raise SettingError("plugins", "at least one detector that gives a score here", sorted(detector.declarations))
    before = _columns(rows, names)
    same = partners(label.tolist(), sources, seed=seed, same_source=True)
    other = partners(label.tolist(), sources, seed=seed, same_source=False)
    shown = _chosen(label)
    made: dict[int, dict[str, Picture]] = {i: {"": pictures[i]} for i in shown}
    after: dict[str, dict[str, Floats]] = {}
    for change in changes:
        which = same if change.name == "another picture" else other

        def sequence(change: Change = change, which: list[int] = which) -> Iterator[Picture]:
            for i, picture in enumerate(pictures):
                new = changed(picture, pictures[which[i]], change, seed=seed + i)
                if i in made:
                    made[i][change.name] = new
                yield new

        rows = []
        for evidence in detector.collect_many(sequence(), batch_size=_BATCH):
            rows.append(_row(evidence, detector.declarations))
            tick()
        after[change.name] = _columns(rows, names)
    examples = tuple(
        Example(
            name=items[i].name,
            label=int(label[i]),
            pictures=made[i],
            log_odds={
                "": {n: float(before[n][i]) for n in names},
                **{c: {n: float(values[n][i]) for n in names} for c, values in after.items()},
            },
        )
        for i in shown
    )
    report = {
        "detectors": {n: _detector(n, detector.declarations, label, before[n], after, changes) for n in names},
        "changes": {c.name: {"kind": c.kind, "summary": c.summary} for c in changes},
        "blind_spots": matrix.blind_spots(label, sources, before),
        "rules": matrix.or_against_fusion(label, before, np.array(fused)),
        "errors": troubles,
        "versions": dict(detector.versions),
        "settings": {
            "data": dataset.data,
            "split": dataset.split,
            "pictures": len(items),
            "real": int((label == 0).sum()),
            "ai": int((label == 1).sum()),
            "pipeline": "normalise" if normalise else "as-is",
            "seed": seed,
        },
    }
    return Audit(report=report, examples=examples)


def _detector(
    name: str,
    declarations: dict[str, Declaration],
    label: NDArray[np.int_],
    before: Floats,
    after: dict[str, dict[str, Floats]],
    changes: Sequence[Change],
) -> dict[str, Any]:
    moved = {c: matrix.sensitivity(before, values[name]) for c, values in after.items()}
    return {
        "task": declarations[name.split(".", 1)[0]].task.value,
        **matrix.accuracy(label, before),
        "sensitivity": moved,
        "auc_after": {c: matrix.accuracy(label, values[name])["auc"] for c, values in after.items()},
        "drift_of_reals": {c: matrix.drift(label, before, values[name], 0) for c, values in after.items()},
        "mean_sensitivity": matrix.alignment({c.name: c.kind for c in changes}, moved),
    }


def _row(evidence: Iterable[Evidence], declarations: dict[str, Declaration]) -> dict[str, float]:
    """Log-odds of every score column of the head "p_ai"; other statistics are no log-odds and stay out."""
    scores = {
        f"{d.name}.{c.name}"
        for d in declarations.values()
        for c in d.columns
        if c.statistic == "logit" and c.head == "p_ai"
    }
    return {k: v for k, v in feature_row(evidence, declarations, "p_ai").items() if k in scores}


def _columns(rows: Sequence[dict[str, float]], names: Sequence[str]) -> dict[str, Floats]:
    return {n: np.array([r.get(n, float("nan")) for r in rows], np.float64) for n in names}


def _read(
    items: Sequence[Item], *, normalise: bool, seed: int
) -> tuple[list[Item], list[Picture], list[dict[str, str]]]:
    kept: list[Item] = []
    pictures: list[Picture] = []
    troubles: list[dict[str, str]] = []
    for item in items:
        try:
            picture = decode(item.path)
            if normalise:
                from tellsign.data.normalise import normalise_picture

                # From the content, so that neither class nor order moves it.
                digest = hashlib.sha256(picture.pixels.tobytes() + str(seed).encode()).digest()
                picture = normalise_picture(picture.pixels, int.from_bytes(digest[:8], "big"))
        except (DecodeError, SettingError) as error:
            troubles.append({"path": item.name, "message": str(error)})
            continue
        kept.append(item)
        # The file's bytes are not needed, and hundreds of them would fill the memory.
        pictures.append(Picture(pixels=picture.pixels, overview=picture.overview))
    return kept, pictures, troubles


def _chosen(label: NDArray[np.int_]) -> list[int]:
    """Indices of the pictures to show, the classes in turn."""
    sides = [np.flatnonzero(label == y)[: EXAMPLES // 2].tolist() for y in (0, 1)]
    return sorted(sides[0] + sides[1])

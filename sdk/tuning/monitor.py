"""Reads verdicts and tells whether they still look like what a bundle was calibrated on."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.errors import SettingError
from tellsign.fusion.bundle import Bundle
from tellsign.fusion.calibration import logit
from tellsign.fusion.drift import LEAST_REFERENCE, RATE, Drift, watch
from tellsign.schemas import Label

Floats = NDArray[np.float64]

_LONGEST_LINE = 64 << 20
_SURE = 1e-9


@attrs.frozen(kw_only=True, eq=False)
class Stream:
    """Scores in the order in which they came."""

    log_odds: Floats
    """Of p_ai at even odds."""
    groups: tuple[str, ...] | None
    bundles: tuple[str, ...]
    """Versions of the fusion that the verdicts name."""
    passed_over: int
    """Lines without p_ai (unreadable pictures, pictures without evidence), and verdicts that a claim in the file moved:
    the calibration knows pixels only."""


def read_scores(path: str | Path) -> Stream:
    """Read what `tellsign detect --json` printed, or a CSV with a column `p_ai`.

    A CSV may also have `prior` (at which p_ai is stated, default .5) and `group`.

    Raises
    ------
    SettingError
        No such file, a line that is no verdict, or a p_ai outside [0, 1].
    """
    target = Path(path)
    if not target.is_file():
        raise SettingError("scores", "JSON lines of `detect --json`, or a CSV with p_ai", str(path))
    rows, passed = (_json_lines if _is_json(target) else _csv_rows)(target)
    if not rows:
        raise SettingError("scores", "at least one verdict with p_ai", f"none in {path}")
    groups = [r.get("group") for r in rows]
    return Stream(
        log_odds=np.array([r["log_odds"] for r in rows], np.float64),
        groups=tuple(str(g) for g in groups) if all(g not in (None, "") for g in groups) else None,
        bundles=tuple(sorted({r["bundle"] for r in rows if r.get("bundle")})),
        passed_over=passed,
    )


def _is_json(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).lstrip()[:1] == b"{"


def _json_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    rows: list[dict[str, Any]] = []
    passed = 0
    with path.open(encoding="utf-8") as file:
        number = 0
        while line := file.readline(_LONGEST_LINE):
            number += 1
            if not line.strip():
                continue
            try:
                told = json.loads(line)
                if not isinstance(told, dict):
                    raise ValueError("not an object")
            except (ValueError, RecursionError) as error:
                raise SettingError("scores", "one JSON object per line", f"line {number}: {error}") from error
            p = told.get("p_ai")
            if p is None or _claimed(told):
                passed += 1
                continue
            versions = told.get("versions")
            bundle = versions.get("bundle") if isinstance(versions, dict) else None
            rows.append(
                {"log_odds": _odds(p, told.get("prior", 0.5), f"line {number}"), "bundle": bundle}
                | ({"group": told["group"]} if "group" in told else {})
            )
    return rows, passed


def _claimed(told: Mapping[str, Any]) -> bool:
    warnings = told.get("warnings")
    return isinstance(warnings, list) and any(isinstance(w, dict) and w.get("code") == "file_claim" for w in warnings)


def _csv_rows(path: Path) -> tuple[list[dict[str, Any]], int]:
    rows: list[dict[str, Any]] = []
    passed = 0
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if "p_ai" not in (reader.fieldnames or ()):
                raise SettingError("scores", "a column p_ai", ", ".join(reader.fieldnames or ()) or "no header")
            for row in reader:
                if not (row["p_ai"] or "").strip():
                    passed += 1
                    continue
                where = f"line {reader.line_num}"
                rows.append({"log_odds": _odds(row["p_ai"], row.get("prior") or 0.5, where), "group": row.get("group")})
    except (UnicodeDecodeError, csv.Error) as error:
        raise SettingError("scores", "JSON lines or a CSV in UTF-8", f"{path}: {error}") from error
    return rows, passed


def _odds(p: object, prior: object, where: str) -> float:
    try:
        chance, at = float(p), float(prior)  # type: ignore[arg-type]
        if not 0 <= chance <= 1 or not 0 < at < 1:
            raise ValueError(f"p_ai {p!r} at prior {prior!r}")
    except (TypeError, ValueError) as error:
        raise SettingError("scores", "p_ai in [0, 1] and prior in (0, 1)", f"{where}: {error}") from error
    return logit(min(max(chance, _SURE), 1 - _SURE)) - logit(at)


@attrs.frozen(kw_only=True, eq=False)
class Reference:
    """Calibration scores of a bundle: log-odds at even odds, one per independent picture."""

    real: Floats
    ai: Floats
    pattern: str


def reference_of(bundle: Bundle, pattern: str | None = None) -> Reference:
    """The calibration scores of one availability pattern.

    `tune` keeps them in the bundle. From another bundle they are read off the prediction sets' scores, which is exact
    where the pattern has no tamper evidence and no mask.

    Parameters
    ----------
    bundle : Bundle
    pattern : str, optional
        Blocks joined by "+"; default the one with the most calibration pictures.

    Raises
    ------
    SettingError
        No such pattern, or its scores cannot be had.
    """
    kept = bundle.training.get("reference")
    if isinstance(kept, Mapping) and kept:
        sizes = {k: len(v.get("real", ())) + len(v.get("ai", ())) for k, v in kept.items()}
        key = max(sizes, key=lambda k: (sizes[k], k)) if pattern is None else pattern
        if key in kept:
            real, ai = (np.array(kept[key].get(side, ()), np.float64) for side in ("real", "ai"))
            return Reference(real=real, ai=ai, pattern=key)
    sizes = {k: sum(s.groups for s in by.values()) for k, by in bundle.conformal.items()}
    key = max(sizes, key=lambda k: (sizes[k], k)) if pattern is None else pattern
    if key not in bundle.conformal:
        raise SettingError("pattern", f"one of {', '.join(sorted(bundle.conformal))}", key)
    blocks = set(key.split("+"))
    tamper = bundle.heads.get("p_tampered")
    if (tamper is not None and tamper.blocks & blocks) or any(
        c.statistic == "share" and c.block in blocks for c in bundle.columns
    ):
        allowed = "a bundle that `tellsign tune` wrote, or one whose pattern has no tamper evidence and no mask"
        raise SettingError("bundle", f"{allowed}; or give --reference", f"{bundle.version}, {key}")
    sides: dict[Label, Floats] = {}
    for label, sign in ((Label.AUTHENTIC, 1), (Label.AI_GENERATED, -1)):
        scores = bundle.conformal[key].get(label)
        values = np.zeros(0) if scores is None else np.clip(scores.scores, _SURE, 1 - _SURE)
        z = sign * (np.log(values) - np.log1p(-values))
        if scores is not None:
            # Rows of one group lie apart and share a weight only: every so many sorted rows stand for one picture.
            reached = np.cumsum(scores.weights[np.argsort(z, kind="stable")])
            marks = np.searchsorted(reached, np.arange(scores.groups) + 0.5)
            z = np.sort(z)[np.minimum(marks, len(z) - 1)]
        sides[label] = z
    return Reference(real=sides[Label.AUTHENTIC], ai=sides[Label.AI_GENERATED], pattern=key)


def read_reference(path: str | Path) -> Reference:
    """Calibration scores from a CSV with `p_ai` and `label` (1 = AI), and where there are any `prior` and `group`.

    Raises
    ------
    SettingError
        No such file, a missing column, or a value that is not allowed.
    """
    target = Path(path)
    if not target.is_file():
        raise SettingError("reference", "a CSV with p_ai and label", str(path))
    sides: dict[str, dict[str, list[float]]] = {"0": {}, "1": {}}
    try:
        with target.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [c for c in ("p_ai", "label") if c not in (reader.fieldnames or ())]
            if missing:
                raise SettingError("reference", "the columns p_ai and label", f"a CSV without {', '.join(missing)}")
            for row in reader:
                where, label = f"line {reader.line_num}", (row["label"] or "").strip()
                if label not in sides:
                    raise SettingError("reference", "label 0 or 1", f"{where}: {label!r}")
                if (row["p_ai"] or "").strip():
                    value = _odds(row["p_ai"], row.get("prior") or 0.5, where)
                    sides[label].setdefault(row.get("group") or where, []).append(value)
    except (UnicodeDecodeError, csv.Error) as error:
        raise SettingError("reference", "a CSV in UTF-8", f"{path}: {error}") from error
    real, ai = (np.array([float(np.mean(v)) for v in sides[x].values()]) for x in ("0", "1"))
    return Reference(real=real, ai=ai, pattern=target.name)


def monitor(
    stream: Stream,
    reference: Reference,
    *,
    rate: float = RATE,
    share: float | None = None,
    shuffle: bool = False,
    seed: int = 0,
) -> Drift:
    """`tellsign.fusion.drift.watch` of a stream against a reference.

    `shuffle` draws an order first, for scores whose order means nothing: a folder that is sorted by class would
    otherwise read as a stream in which the share of AI pictures jumps, and no one mixture explains that.

    Raises
    ------
    SettingError
        A setting outside its range, or too few calibration scores.
    """
    if min(len(reference.real), len(reference.ai)) < LEAST_REFERENCE and share is None:
        allowed = f"at least {LEAST_REFERENCE} calibration scores of real and of AI pictures"
        raise SettingError("bundle", allowed, f"{len(reference.real)} and {len(reference.ai)} for {reference.pattern}")
    order = np.random.default_rng([seed, 1]).permutation(len(stream.log_odds)) if shuffle else slice(None)
    groups = None if stream.groups is None else np.array(stream.groups)[order].tolist()
    try:
        return watch(
            reference.real,
            reference.ai,
            stream.log_odds[order],
            groups=groups,
            rate=rate,
            share=share,
            seed=seed,
        )
    except ValueError as error:
        raise SettingError("monitor", "settings in range", str(error)) from error


def in_words(drift: Drift, reference: Reference) -> str:
    """What a person should know, in one or two sentences."""
    mixed = (
        f"{drift.share:.0%} AI pictures fits best (largest difference {drift.distance:.2f}, p = {drift.p_value:.2g})"
    )
    if drift.alarm:
        return (
            f"DRIFT: after {drift.alarm_at} of {drift.count} scores no mixture of the calibration's real and AI "
            f"pictures ({reference.pattern}) explains them any more. At most {drift.rate:.1%} of streams without drift "
            f"raise this alarm. The mixture with {mixed}. Probabilities and error rates are not to be relied on here: "
            "tune on pictures of this kind."
        )
    capital, needed = math.log10(max(drift.capital, 1e-300)), -math.log10(drift.rate)
    return (
        f"No drift seen in {drift.count} scores: a mixture of the calibration's pictures ({reference.pattern}) with "
        f"{mixed}. The martingale reached 10^{capital:.1f} and alarms at 10^{needed:.1f}. A shift that looks like more "
        "or fewer AI pictures cannot be told from just that; --share names the share where it is known."
    )


__all__ = ["Reference", "Stream", "in_words", "monitor", "read_reference", "read_scores", "reference_of"]

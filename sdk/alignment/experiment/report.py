"""Runs of all arms and seeds as a table with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .setting import Setting
from .train import OFF, ON, Answers

Floats = NDArray[np.float64]
DRAWS = 1000
NONE = "none"
COLUMNS = (
    ("mass", "attention on the region"),
    ("iou", "IoU of the map"),
    ("iou_relevance", "IoU of the relevance map"),
    ("empty", "maps that are empty"),
    ("accuracy_with_cue", "accuracy, cue as in the fit"),
    ("accuracy_flipped", "accuracy, cue flipped"),
    ("auc_flipped", "AUC, cue flipped"),
    ("accuracy_seen_flipped", "same inpainter, cue flipped"),
)


def table(
    runs: Mapping[str, Sequence[Answers]],
    fake: NDArray[np.bool_],
    held_out: NDArray[np.bool_],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Values with intervals, and differences from the arm without alignment.

    Parameters
    ----------
    runs : mapping from arm to answers, one per seed
        On the same n pictures.
    fake : bool array of (n,)
    held_out : bool array of (n,)
        True for untouched pictures and those by held-out tools, False for inpaintings by tools of the fit.
    draws, seed : int
        Of the bootstrap. A draw takes seeds with replacement and, within each class and tool, pictures with
        replacement; all arms share its draws, so differences are paired.

    Returns
    -------
    dict of dict
        By arm `seeds`, and by name of `COLUMNS` {value, interval, difference, difference_interval}.
    """
    rng = np.random.default_rng(seed)
    seeds = min(len(r) for r in runs.values())
    kinds = [np.flatnonzero(k) for k in (fake & held_out, ~fake, fake & ~held_out)]
    # Row 0 is everything as it is, once.
    which = _times(rng, seeds, draws)
    weights = [_times(rng, len(k), draws) for k in kinds]
    numbers = {}
    for arm, r in runs.items():
        values = np.stack([_values(run, kinds, weights) for run in r[:seeds]])
        there = np.isfinite(values)
        with np.errstate(invalid="ignore", divide="ignore"):
            numbers[arm] = np.einsum("ds,sdk->dk", which, np.where(there, values, 0)) / np.einsum(
                "ds,sdk->dk", which, there.astype(np.float64)
            )
    out: dict[str, dict[str, Any]] = {}
    for arm, values in numbers.items():
        gap = values - numbers[NONE] if NONE in numbers else np.full_like(values, np.nan)
        out[arm] = {"seeds": seeds} | {
            name: {
                "value": _finite(values[0, k]),
                "interval": _interval(values[1:, k]),
                "difference": _finite(gap[0, k]),
                "difference_interval": _interval(gap[1:, k]),
            }
            for k, (name, _) in enumerate(COLUMNS)
        }
    return out


def _times(rng: np.random.Generator, n: int, draws: int) -> Floats:
    """How often each of n is drawn; (1 + draws, n), the first row all once."""
    drawn = rng.multinomial(n, np.full(n, 1 / n), draws) if n else np.zeros((draws, 0))
    return np.concatenate([np.ones((1, n)), drawn])


def _values(run: Answers, kinds: Sequence[NDArray[np.int_]], weights: Sequence[Floats]) -> Floats:
    """One run's numbers on weighted pictures (held-out fakes, reals, fakes by tools of the fit): (draws, columns)."""
    fakes, reals, seen = kinds
    by_fake, by_real, by_seen = weights
    right = (run.logit >= 0).astype(np.float64)

    def accuracy(of: NDArray[np.int_], by: Floats, fake_cue: int) -> Floats:
        return (_mean(right[of, fake_cue], by) + _mean(1 - right[reals, 1 - fake_cue], by_real)) / 2

    def iou(hits: NDArray[np.int64]) -> Floats:
        found, accused, missed = (by_fake @ hits[fakes, OFF].astype(np.float64)).T
        return np.asarray(found / (found + accused + missed))

    above = run.logit[fakes, OFF][:, None] - run.logit[reals, ON][None, :]
    ranked = np.where(above == 0, 0.5, above > 0)
    auc = ((by_fake @ ranked) * by_real).sum(axis=1) / (by_fake.sum(axis=1) * by_real.sum(axis=1))
    return np.stack(
        [
            _mean(run.mass[fakes, OFF].astype(np.float64), by_fake),
            iou(run.hits),
            iou(run.explained),
            _mean(np.isnan(run.mass[fakes, OFF]).astype(np.float64), by_fake),
            accuracy(fakes, by_fake, ON),
            accuracy(fakes, by_fake, OFF),
            auc,
            accuracy(seen, by_seen, OFF),
        ],
        axis=1,
    )


def _mean(values: Floats, weights: Floats) -> Floats:
    """Weighted means over the values that are there; NaN where none is."""
    there = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((weights @ np.where(there, values, 0)) / (weights @ there.astype(np.float64)))


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _interval(values: NDArray[np.float64]) -> list[float] | None:
    values = values[np.isfinite(values)]
    return [float(v) for v in np.quantile(values, [0.025, 0.975])] if len(values) else None


def markdown(found: Mapping[str, Mapping[str, Any]], setting: Setting, facts: Mapping[str, Any]) -> str:
    """The table for a document, with what it was measured on."""
    lines = [
        f"Cue: {setting.cue}, on {100 * setting.agreement:.0f} % of the inpaintings of the fit and off on as many "
        "untouched pictures; flipped, it is on every untouched picture of the test and on no inpainting. "
        f"Fit: {facts['n_fit']} pictures, half of them inpainted by {', '.join(setting.fit_tools)}. Test: "
        f"{facts['n_test']} pictures, half of them inpainted by {', '.join(setting.held_out)}; {facts['n_seen']} more "
        f"inpaintings by the tools of the fit. The regions cover {100 * facts['share']:.1f} % of the held-out "
        f"inpaintings' windows. {facts['seeds']} seeds; 95 % intervals over seeds and pictures.",
        "",
        "| aligned with | " + " | ".join(words for _, words in COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for arm, row in found.items():
        lines.append(f"| {arm} | " + " | ".join(_cell(row[name]) for name, _ in COLUMNS) + " |")
    lines += ["", "Differences from no alignment, paired:", ""]
    lines += ["| aligned with | " + " | ".join(words for _, words in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for arm, row in found.items():
        if arm != NONE:
            cells = (
                _cell({"value": row[n]["difference"], "interval": row[n]["difference_interval"]}, "+")
                for n, _ in COLUMNS
            )
            lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(number: Mapping[str, Any], sign: str = "") -> str:
    if number["interval"] is None or number["value"] is None:
        return "-"
    low, high = number["interval"]
    return f"{number['value']:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"

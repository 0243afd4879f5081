"""Does it see? Pixel and picture metrics on forged pictures, by kind and tool, under several conditions."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import rankdata
from tqdm import tqdm

from tellsign.data.normalise import reencode
from tellsign.errors import SettingError
from tellsign.plugins.segmentation.model import CELL, MASKS
from tellsign.plugins.segmentation.regions import own_cut
from tellsign.plugins.segmentation.scan import Forward, Scan, scan

from .baselines import at_each_cut, best_cut, noise_map
from .data import UNTOUCHED, ForgedRow, Sample, load
from .metrics import CUT, Counts, pool

Condition = Callable[[Sample], Sample]


def jpeg90(sample: Sample) -> Sample:
    """Saved once more as JPEG of quality 90."""
    return attrs.evolve(sample, pixels=reencode(sample.pixels, 90))


def half(sample: Sample) -> Sample:
    """Half as large both ways."""
    size = (max(1, sample.pixels.shape[1] // 2), max(1, sample.pixels.shape[0] // 2))
    return Sample(
        np.asarray(Image.fromarray(sample.pixels).resize(size, Image.Resampling.BICUBIC)),
        *(
            np.asarray(Image.fromarray(m).resize(size, Image.Resampling.NEAREST))
            for m in (sample.ai, sample.manipulation)
        ),
    )


CONDITIONS: dict[str, Condition] = {"native": lambda sample: sample, "jpeg90": jpeg90, "half": half}


@attrs.frozen(kw_only=True)
class Seen:
    """What was measured on one picture."""

    row: ForgedRow
    logits: tuple[float, float]
    """Mean and highest class logit of the tiles."""
    area: dict[str, float]
    """Marked share of the picture by mask."""
    truth: dict[str, float]
    """True share."""
    counts: dict[str, Counts]
    noise: dict[str, list[Counts]]
    """Of the noise map at each cut."""
    whole: dict[str, Counts]
    """Of everything marked."""
    either: Counts
    """Of both masks together, against both truths together."""
    either_noise: list[Counts]
    either_whole: Counts


def full_size(heat: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A map of cells at the picture's size, bilinear, as the network scales its masks up."""
    size = (heat.shape[1] * CELL, heat.shape[0] * CELL)
    large = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BILINEAR))
    return large[: shape[0], : shape[1]]


def look(row: ForgedRow, sample: Sample, forward: Forward, cut: float = CUT, *, own: bool = True) -> tuple[Seen, Scan]:
    """Measure one picture.

    `cut` is where maps are cut; with `own` the manipulation map only where the picture's level is low
    (`regions.own_cut`, whose numbers are those of the shipped weights).
    """
    seen = scan(sample.pixels, forward)
    truth = {"ai": sample.ai > 0, "manipulation": sample.manipulation > 0}
    cuts = {"ai": cut, "manipulation": own_cut(seen.maps["manipulation"], cut) if own else cut}
    marked = {name: full_size(seen.maps[name], sample.pixels.shape) >= cuts[name] for name in MASKS}
    everything = np.ones(sample.pixels.shape[:2], bool)
    noise = noise_map(sample.pixels)
    both_marked, both_true = marked["ai"] | marked["manipulation"], truth["ai"] | truth["manipulation"]
    told = Seen(
        row=row,
        logits=(float(seen.logits.mean()), float(seen.logits.max())),
        area={name: float(m.mean()) for name, m in marked.items()},
        truth={name: float(t.mean()) for name, t in truth.items()},
        counts={name: Counts.of(marked[name], truth[name]) for name in MASKS},
        noise={name: at_each_cut(noise, truth[name]) for name in MASKS},
        whole={name: Counts.of(everything, truth[name]) for name in MASKS},
        either=Counts.of(both_marked, both_true),
        either_noise=at_each_cut(noise, both_true),
        either_whole=Counts.of(everything, both_true),
    )
    return told, seen


def look_at_all(
    rows: Sequence[ForgedRow],
    forward: Forward,
    condition: str = "native",
    cut: float = CUT,
    *,
    own: bool = True,
    progress: bool = True,
) -> list[Seen]:
    """Measure pictures under a condition; see `look`.

    Raises
    ------
    SettingError
        A condition that is not in `CONDITIONS`.
    """
    if condition not in CONDITIONS:
        raise SettingError("condition", f"one of {', '.join(CONDITIONS)}", condition)
    change = CONDITIONS[condition]
    bar = tqdm(rows, desc=condition, disable=not progress)
    return [look(row, change(load(row)), forward, cut, own=own)[0] for row in bar]


def auc(positive: Iterable[float], negative: Iterable[float]) -> float | None:
    """Chance that a positive's number is above a negative's, ties half; None where there is none of either."""
    p, n = np.fromiter(positive, float), np.fromiter(negative, float)
    if not len(p) or not len(n):
        return None
    ranks = rankdata(np.concatenate([p, n]))[: len(p)]
    return float((ranks.sum() - len(p) * (len(p) + 1) / 2) / (len(p) * len(n)))


def _mask_line(seen: Sequence[Seen], mask: str) -> dict[str, Any]:
    """One mask on pictures that have something in it."""
    both = mask == "either"
    counts = [s.either if both else s.counts[mask] for s in seen]
    noise = [s.either_noise if both else s.noise[mask] for s in seen]
    whole = pool([s.either_whole if both else s.whole[mask] for s in seen]).f1
    pooled, (cut, noise_counts) = pool(counts), best_cut(noise)
    each = [c.f1 or 0.0 for c in counts]
    return {
        "n": len(seen),
        "f1": pooled.f1,
        "iou": pooled.iou,
        "f1_per_picture": float(np.mean(each)),
        "iou_per_picture": float(np.mean([c.iou or 0.0 for c in counts])),
        "all_ones_f1": whole,
        "noise_f1": noise_counts.f1,
        "noise_cut": cut,
        "above": (pooled.f1 or 0.0) - max(whole or 0.0, noise_counts.f1 or 0.0),
    }


def table(seen: Sequence[Seen]) -> dict[str, Any]:
    """All numbers of one condition.

    Parameters
    ----------
    seen : sequence of Seen

    Returns
    -------
    dict
        "masks": by "mask kind/tool" (and "mask all") the pooled and per-picture metrics beside both baselines;
        "classes": AUC and balanced accuracy of the class against untouched and moved pictures, by tool;
        "false_alarm": median, 95th percentile and mean of the marked share of untouched pictures.
    """
    edited: dict[str, list[Seen]] = {}
    for s in seen:
        for mask, known in (("ai", s.row.ai_counts), ("manipulation", s.row.ma_counts)):
            if known and s.truth[mask] > 0:
                for group in (s.row.made_by, "all"):
                    edited.setdefault(f"{mask} {group}", []).append(s)
        if s.row.ai_counts and s.row.ma_counts and 0 < max(s.truth.values()) < 1:
            edited.setdefault(f"either {s.row.made_by}", []).append(s)
            edited.setdefault("either all", []).append(s)
    masks = {name: _mask_line(part, name.split(" ")[0]) for name, part in sorted(edited.items())}
    negative = [s for s in seen if not s.row.cls]
    classes: dict[str, Any] = {}
    for group in [*sorted({s.row.made_by for s in seen if s.row.cls}), "all"]:
        positive = [s for s in seen if s.row.cls and group in ("all", s.row.made_by)]
        if not positive or not negative:
            continue
        right = np.mean([max(s.logits) > 0 for s in positive]), np.mean([max(s.logits) <= 0 for s in negative])
        classes[group] = {
            "n": len(positive),
            "auc_mean": auc((s.logits[0] for s in positive), (s.logits[0] for s in negative)),
            "auc_max": auc((s.logits[1] for s in positive), (s.logits[1] for s in negative)),
            "balanced_accuracy": float(np.mean(right)),
        }
    untouched = [s for s in seen if s.row.kind == UNTOUCHED]
    moved = [s for s in seen if s.row.kind != UNTOUCHED and s.row.ma_counts and s.truth["manipulation"] > 0]
    alarm = {name: _areas([s.area[name] for s in untouched]) for name in MASKS} if untouched else {}
    by_manipulation = auc((s.area["manipulation"] for s in moved), (s.area["manipulation"] for s in untouched))
    return {
        "masks": masks,
        "classes": classes,
        "false_alarm": alarm,
        "untouched": len(untouched),
        "auc_manipulated_area": by_manipulation,
    }


def _areas(values: Sequence[float]) -> dict[str, float]:
    a = np.array(values)
    return {"median": float(np.median(a)), "p95": float(np.percentile(a, 95)), "mean": float(a.mean())}


def in_markdown(told: dict[str, dict[str, Any]]) -> str:
    """The tables of several conditions, for the documentation."""
    lines = [
        "| condition | mask, kind/tool | n | F1 pooled | IoU pooled | F1 per picture | all ones | noise map "
        "| above both |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for condition, one in told.items():
        for name, m in one["masks"].items():
            keys = ("f1", "iou", "f1_per_picture", "all_ones_f1", "noise_f1", "above")
            lines.append(f"| {condition} | {name} | {m['n']} | " + " | ".join(_digits(m[k]) for k in keys) + " |")
    lines += ["", "| condition | class | n | AUC mean | AUC highest | balanced accuracy |", "|---|---|---|---|---|---|"]
    for condition, one in told.items():
        for name, c in one["classes"].items():
            parts = ("auc_mean", "auc_max", "balanced_accuracy")
            lines.append(f"| {condition} | {name} | {c['n']} | " + " | ".join(_digits(c[k]) for k in parts) + " |")
    lines += [
        "",
        "| condition | mask | untouched | median area | 95th percentile | mean |",
        "|---|---|---|---|---|---|",
    ]
    for condition, one in told.items():
        for name, a in one["false_alarm"].items():
            areas = " | ".join(f"{100 * a[k]:.2f} %" for k in ("median", "p95", "mean"))
            lines.append(f"| {condition} | {name} | {one['untouched']} | {areas} |")
    return "\n".join(lines) + "\n"


def _digits(x: float | None) -> str:
    return "-" if x is None else f"{x:.3f}"


def tampered_rows(folder: Path) -> list[ForgedRow]:
    """Rows of a folder with `manifest.csv` of columns image, mask: edited by hand, every mask a manipulation."""
    with (folder / "manifest.csv").open(newline="") as handle:
        return [
            ForgedRow(
                id=line["image"],
                path=folder / line["image"],
                cls=0,
                kind="hand",
                tool=line["manipulation"],
                ai_mask="",
                ma_mask=folder / line["mask"],
                ai_counts=False,
                ma_counts=True,
                group=line["image"],
                source=folder.name,
            )
            for line in csv.DictReader(handle)
        ]


def overlay(sample: Sample, seen: Scan, side: int = 256) -> NDArray[np.uint8]:
    """Picture, truth (AI red, manipulation blue), AI map and manipulation map beside each other, uint8."""
    shape = sample.pixels.shape
    picture = sample.pixels.astype(np.float32)
    truth = picture * 0.5
    truth[..., 0] += 127 * sample.ai
    truth[..., 2] += 127 * sample.manipulation
    panels = [picture, truth]
    for name, channel in (("ai", 0), ("manipulation", 2)):
        shown = picture * 0.4
        shown[..., channel] += 150 * full_size(seen.maps[name], shape)
        panels.append(shown)
    small = [
        np.asarray(Image.fromarray(np.clip(p, 0, 255).astype(np.uint8)).resize((side, side), Image.Resampling.BILINEAR))
        for p in panels
    ]
    return np.concatenate(small, axis=1)

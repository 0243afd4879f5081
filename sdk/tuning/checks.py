"""What is wrong with somebody's data, in words, before anything is trained on them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import attrs
import numpy as np

from tellsign.data.duplicates import near_pairs
from tellsign.data.trivial import GATED, LIMIT
from tellsign.evaluation.items import FAKE, REAL
from tellsign.evaluation.shortcuts import Traits, rules
from tellsign.fusion.adapt import LEAST_GROUPS
from tellsign.fusion.conformal import SOURCE_GROUPS
from tellsign.fusion.inherit import needed_groups
from tellsign.fusion.table import ScoreTable
from tellsign.fusion.train import SMALL
from tellsign.schemas import Label

from .scoring import ScoredPicture

_SKEWED = 0.2
"""A class below this share is called rare."""
_MOST_PAIRS = 30_000
"""Above so many pictures near duplicates are not looked for: the search is quadratic."""


@attrs.frozen(kw_only=True)
class Finding:
    """One thing about the data."""

    code: str
    """For programs."""
    serious: bool
    """Whether numbers drawn from these data may be wrong; otherwise it is only good to know."""
    text: str


@attrs.frozen(kw_only=True)
class Sifted:
    """The pictures that are left, with the groups that they really have."""

    kept: tuple[ScoredPicture, ...]
    groups: tuple[str, ...]
    """Of `kept`: those of the data, joined where pictures nearly equal one another."""
    findings: tuple[Finding, ...]


def sift(pictures: Sequence[ScoredPicture], groups: Sequence[str]) -> Sifted:
    """Leave out what is there twice, and join groups that share a picture.

    Parameters
    ----------
    pictures : sequence of n ScoredPicture
    groups : sequence of n str
        Pictures of one group share content.
    """
    findings: list[Finding] = []
    labels: dict[str, set[int]] = {}
    for p in pictures:
        labels.setdefault(p.sha256, set()).add(p.item.label)
    torn = {sha for sha, found in labels.items() if len(found) > 1}
    seen: set[str] = set()
    keep: list[int] = []
    for i, p in enumerate(pictures):
        if p.sha256 not in torn and p.sha256 not in seen:
            seen.add(p.sha256)
            keep.append(i)
    if torn:
        names = _some([p.item.name for p in pictures if p.sha256 in torn])
        text = f"{len(torn)} files are there with both labels, byte for byte ({names}): all of them are left out."
        findings.append(Finding(code="contradiction", serious=True, text=text))
    again = len(pictures) - len(keep) - sum(p.sha256 in torn for p in pictures)
    if again:
        text = f"{again} files repeat another one byte for byte: each picture is counted once."
        findings.append(Finding(code="repeated", serious=False, text=text))
    kept = [pictures[i] for i in keep]
    joined, notes = _joined(kept, [groups[i] for i in keep])
    return Sifted(kept=tuple(kept), groups=joined, findings=(*findings, *notes))


def _joined(pictures: Sequence[ScoredPicture], groups: Sequence[str]) -> tuple[tuple[str, ...], list[Finding]]:
    if len(pictures) > _MOST_PAIRS:
        text = f"near duplicates were not looked for among {len(pictures)} pictures (at most {_MOST_PAIRS})."
        return tuple(groups), [Finding(code="not_compared", serious=False, text=text)]
    parent = {g: g for g in groups}

    def root(g: str) -> str:
        while parent[g] != g:
            parent[g] = parent[parent[g]]
            g = parent[g]
        return g

    pairs = near_pairs(np.array([p.phash for p in pictures], np.uint64)) if len(pictures) > 1 else []
    across = [(i, j) for i, j in pairs if groups[i] != groups[j]]
    for i, j in across:
        a, b = sorted((root(groups[i]), root(groups[j])))
        parent[b] = a
    findings = []
    if across:
        names = _some([f"{pictures[i].item.name} and {pictures[j].item.name}" for i, j in across[:2]], len(across))
        text = (
            f"{len(across)} pairs of nearly equal pictures lie in different groups ({names}): their groups were "
            "joined, or one would be trained on and the other judged."
        )
        findings.append(Finding(code="leak", serious=True, text=text))
    mixed = sum(pictures[i].item.label != pictures[j].item.label for i, j in pairs)
    if mixed:
        text = (
            f"{mixed} pairs of nearly equal pictures have different labels, as an original and its edit do; "
            "where they are no such pairs, one of the labels is wrong."
        )
        findings.append(Finding(code="near_contradiction", serious=False, text=text))
    return tuple(root(g) for g in groups), findings


def shortcuts(pictures: Sequence[ScoredPicture], *, seed: int = 0) -> tuple[dict[str, float], list[Finding]]:
    """How well rules that look at no picture tell the classes apart: AUC by rule, and what is to be said of it.

    A rule counts as a shortcut where its AUC is above .55 by more than chance allows for (two standard errors of the
    Mann-Whitney statistic under no difference).
    """
    label = np.array([p.item.label for p in pictures], int)
    seen = {field.name: [getattr(p.traits, field.name) for p in pictures] for field in attrs.fields(Traits)}
    found = rules(seen, label, seed)
    ones, zeros = int((label == FAKE).sum()), int((label == REAL).sum())
    noise = math.sqrt((ones + zeros + 1) / (12 * ones * zeros)) if ones and zeros else 0.5
    high = {n: a for n, a in found.items() if n in GATED and a > LIMIT and a > 0.5 + 2 * noise}
    if not high:
        return found, []
    names = ", ".join(f"{n} (AUC {a:.2f})" for n, a in sorted(high.items(), key=lambda p: -p[1]))
    text = (
        f"the file alone tells the classes apart: {names}. The plugins do not see formats and sizes, but traces of "
        "compression they do; a gain on these data may be of that kind. --normalise puts all through one pipeline."
    )
    return found, [Finding(code="shortcut", serious=True, text=text)]


def of_table(table: ScoreTable, *, rates: Mapping[Label, float], minimum: int, split: str) -> list[Finding]:
    """Balance, numbers and variety of a score table."""
    out: list[Finding] = []

    def groups(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> int:
        return len(np.unique(table.group[mask]))

    counts = {v: groups(table.label == v) for v in (REAL, FAKE)}
    words = {REAL: "real", FAKE: "AI"}
    total = sum(counts.values())
    for value, count in counts.items():
        if count < LEAST_GROUPS:
            text = f"{count} independent {words[value]} pictures: below {LEAST_GROUPS} nothing is tuned."
            out.append(Finding(code="too_few", serious=True, text=text))
        elif count < _SKEWED * total:
            text = (
                f"{count} of {total} independent pictures are {words[value]} ({count / total:.0%}). Weights make up "
                "for the imbalance, not for what so few pictures cannot show. The share of AI pictures is not learnt "
                "from these data: give it with --prior."
            )
            out.append(Finding(code="imbalance", serious=False, text=text))
    kinds = Counter(str(k) for k in table.kinds)
    for label, rate in rates.items():
        have = groups(np.array([str(k) == str(label) for k in table.kinds])) if kinds[str(label)] else 0
        need = needed_groups(rate, minimum)
        if have < need and (have or label in (Label.AUTHENTIC, Label.AI_GENERATED)):
            text = f"{have} independent pictures are {str(label).replace('_', ' ')}, and sets for an error rate of "
            text += f"{rate:.1%} take {need}: {need - have} more"
            text += f", or --error-rate {1 / (have + 1):.3f} or above." if have >= minimum else "."
            out.append(Finding(code="few_for_sets", serious=False, text=f"{text} Until then its sets are the base's."))
    if total >= 2 * LEAST_GROUPS and len(table) < SMALL:
        text = f"{len(table)} pictures: only moving the base is tried, not training anew, which takes {SMALL}."
        out.append(Finding(code="few_rows", serious=False, text=text))
    for value in (REAL, FAKE):
        sources = Counter(table.source[table.label == value].tolist())
        if len(sources) == 1 and counts[value] >= LEAST_GROUPS:
            what = "real source" if value == REAL else "generator"
            text = (
                f"all {words[value]} pictures are of one {what} ({next(iter(sources))}). What is tuned may know that "
                f"{what} rather than {words[value]} pictures; how it does on others cannot be seen here."
            )
            out.append(Finding(code="one_source", serious=True, text=text))
        elif value == FAKE and split == "generator":
            small = sorted(s for s, n in sources.items() if n < SOURCE_GROUPS)
            if small:
                text = f"generators with fewer than {SOURCE_GROUPS} pictures ({_some(small)}) are judged on few."
                out.append(Finding(code="small_generators", serious=False, text=text))
    return out


def of_answers(pictures: Sequence[ScoredPicture], columns: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Plugins that did not answer, by plugin and reason; `columns` names each plugin's columns."""
    out = []
    for plugin, names in sorted(columns.items()):
        reasons = Counter(p.silent[plugin] for p in pictures if plugin in p.silent)
        for reason, count in reasons.most_common(2):
            text = f"{plugin} gave no answer on {count} of {len(pictures)} pictures: {reason}"
            out.append(Finding(code="silent_plugin", serious=count == len(pictures), text=text))
        silent = sum(all(math.isnan(p.values[n]) for n in names) and plugin not in p.silent for p in pictures)
        if silent:
            text = f"{plugin} had nothing to say of {silent} of {len(pictures)} pictures."
            out.append(Finding(code="not_applicable", serious=False, text=text))
    return out


def _some(names: Sequence[str], total: int | None = None) -> str:
    count = len(names) if total is None else total
    shown = ", ".join(names[:2])
    return shown if count <= 2 else f"{shown} and {count - len(names[:2])} more"


__all__ = ["Finding", "Sifted", "of_answers", "of_table", "shortcuts", "sift"]

"""X-AIGD's protocol over a data set: every picture is judged once, and only numbers stay."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.errors import TellsignError
from tellsign.evaluation.items import FAKE, REAL, DataError, Dataset, Item
from tellsign.evaluation.journal import setup_hash
from tellsign.evaluation.pixels import Hits, Scaling, chosen_map, prediction
from tellsign.evaluation.truth import Shapes
from tellsign.schemas import MapEvidence, Verdict

from .annotations import CATEGORIES, category_masks, proportion
from .detection import Tally
from .fidelity import fidelity
from .judgement import judgement
from .quality import Quality, against_quality

SCORED = ("annotated", "judged-fake")
"""Whose pixels are counted: those of every annotated picture, or only of those that were judged generated."""


class OneByOne(Protocol):
    """The part of `tellsign.Detector` that is needed here."""

    @property
    def versions(self) -> Any:
        """Versions of everything that takes part, by name."""

    def detect(self, source: Any) -> Verdict:
        """The verdict on a picture."""


@attrs.frozen(kw_only=True)
class Answer:
    """What is kept of one picture."""

    name: str
    label: int
    source: str
    group: str
    p: float | None
    share: float | None = None
    """Artifact proportion; None for real pictures and where nothing is annotated."""
    hits: tuple[Hits, ...] | None = None
    """In the order of `detection.ROWS`; None without annotation or without a map."""
    by_category: bool = False
    """Whether the detector's maps name categories."""


def run(
    dataset: Dataset,
    detector: OneByOne,
    *,
    heat: str | None = None,
    scaling: Scaling = "min-max",
    scored: str = "annotated",
    journal: Path | None = None,
    quality: Quality | None = None,
    setup: dict[str, Any] | None = None,
    draws: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Judge every picture and count.

    Parameters
    ----------
    dataset : Dataset
        From `tellsign.evaluation.dataset.load`; its layout is X-AIGD's.
    detector : Detector
    heat : str, optional
        `plugin` or `plugin:map`; by default the verdict's own heat map. Where a detector has maps that are named after
        categories, those are used instead, each for its category.
    scaling : "min-max" or "own"
        The paper stretches explanation maps; a map of probabilities is read as it is with "own".
    scored : "annotated" or "judged-fake"
    journal : Path, optional
        JSON lines; answers that are there under the same setup are not asked for again.
    quality : mapping, optional
        Measures of quality by picture (`read_quality`), to be held against the answers.
    setup : dict, optional
        What answers depend on besides versions.
    draws, seed : int
        Of the bootstrap.
    progress : callable, optional
        Called with (judged, all).

    Returns
    -------
    dict
        judgement, detection (by row), fidelity, quality (by measure), by_generator, n, notes, errors, versions,
        settings. NaN is None.

    Raises
    ------
    DataError
        A picture's annotation names no categories, or `scored` is neither.
    """
    if scored not in SCORED:
        raise DataError(f"scored takes {' or '.join(SCORED)}, got {scored!r}.")
    facts = {
        "versions": dict(detector.versions),
        "heat": heat,
        "scaling": scaling,
        "data": dataset.data,
        **(setup or {}),
    }
    key = setup_hash(facts)
    known = {} if journal is None else _known(journal, key)
    answers: list[Answer] = []
    errors: list[dict[str, str]] = []
    for n, item in enumerate(dataset.items):
        answer = known.get(item.name)
        if answer is None:
            try:
                answer = _answer(item, detector.detect(item.file), heat, scaling)
            except DataError:
                raise
            except TellsignError as error:
                errors.append({"name": item.name, "message": str(error)})
            else:
                if journal is not None:
                    _append(journal, key, answer)
        if answer is not None:
            answers.append(answer)
        if progress is not None:
            progress(n + 1, len(dataset.items))
    report = summarise(answers, scored=scored, draws=draws, seed=seed)
    made = [a for a in answers if a.p is not None and a.label == FAKE]
    told = ([a.name for a in made], [a.p for a in made if a.p is not None], [a.group for a in made])
    report["quality"] = against_quality(quality or {}, *told, draws=draws, seed=seed)
    settings = {"map": heat, "scaling": scaling, "scored": scored, "cut": 0.5, "draws": draws, "seed": seed}
    return report | {
        "data": dataset.data,
        "split": dataset.split,
        "notes": list(dataset.notes),
        "errors": errors,
        "versions": dict(detector.versions),
        "settings": settings,
    }


def summarise(answers: Iterable[Answer], *, scored: str, draws: int, seed: int) -> dict[str, Any]:
    """Judgement, detection and fidelity of answers; see `run`."""
    answers = list(answers)
    judged = [a for a in answers if a.p is not None]
    label, p = _array(judged, "label", int), _array(judged, "p", np.float64)
    reals = [a for a in judged if a.label == REAL]
    rows = {"all": judged} | {
        name: reals + [a for a in judged if a.label == FAKE and a.source == name]
        for name in sorted({a.source for a in judged if a.label == FAKE})
    }
    tally = Tally()
    for a in answers:
        if a.hits is not None and (scored == "annotated" or (a.p is not None and a.p >= 0.5)):
            tally.add_counts(list(a.hits))
    annotated = [a for a in judged if a.share is not None]
    group = np.array([a.group for a in annotated], dtype=object)
    shares = _array(annotated, "share", np.float64)
    found: dict[str, Any] = _plain(tally.summary())
    return {
        "n": len(answers),
        "n_unjudged": len(answers) - len(judged),
        "judgement": judgement(label, p),
        "by_generator": {
            name: judgement(_array(of, "label", int), _array(of, "p", np.float64))
            for name, of in rows.items()
            if name != "all"
        },
        "detection": found,
        "maps_name_categories": any(a.by_category for a in answers),
        "fidelity": fidelity(
            shares, _array(annotated, "p", np.float64), group=group, draws=draws if len(annotated) else 0, seed=seed
        ),
    }


def _answer(item: Item, verdict: Verdict, heat: str | None, scaling: Scaling) -> Answer:
    own = Answer(name=item.name, label=item.label, source=item.source, group=item.group, p=verdict.p_ai)
    if not isinstance(item.truth, Shapes):
        return own
    try:
        truth = category_masks(item.truth, verdict.height, verdict.width)
    except ValueError as error:
        raise DataError(f"{item.name}: {error}.") from error
    predicted, named = _predicted(verdict, heat, scaling)
    hits = None if predicted is None else tuple(Tally().add(predicted, truth))
    return attrs.evolve(own, share=proportion(truth), hits=hits, by_category=named)


def _predicted(verdict: Verdict, heat: str | None, scaling: Scaling) -> tuple[NDArray[np.bool_] | None, bool]:
    """(7, H, W) from maps that are named after categories, else (H, W) from the one map; None without any."""
    height, width = verdict.height, verdict.width
    maps = {e.name: e for e in verdict.evidence if isinstance(e, MapEvidence)}
    if heat is None and any(c.value in maps for c in CATEGORIES):
        empty = np.zeros((height, width), bool)
        each = [prediction(maps[c.value], height, width, scaling) if c.value in maps else empty for c in CATEGORIES]
        return np.stack(each), True
    evidence = chosen_map(verdict, heat)
    return (None if evidence is None else prediction(evidence, height, width, scaling)), False


def _array(answers: list[Answer], field: str, dtype: Any) -> NDArray[Any]:
    return np.array([getattr(a, field) for a in answers], dtype)


def _plain(value: Any) -> Any:
    """NaN as None, which JSON has a word for."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _known(journal: Path, key: str) -> dict[str, Answer]:
    return {answer.name: answer for answer in _lines(journal, key)}


def _lines(journal: Path, key: str) -> Iterator[Answer]:
    if not journal.is_file():
        return
    with journal.open(encoding="utf-8") as handle:
        for text in handle:
            try:
                line = json.loads(text)
            except ValueError:
                continue  # cut off by a kill
            if line["setup"] == key:
                hits = line["answer"].pop("hits")
                yield Answer(hits=None if hits is None else tuple(tuple(h) for h in hits), **line["answer"])


def _append(journal: Path, key: str, answer: Answer) -> None:
    with journal.open("a+b") as handle:
        handle.seek(0, 2)
        if handle.tell():
            handle.seek(-1, 2)
            if handle.read(1) != b"\n":
                handle.write(b"\n")
        line = json.dumps({"setup": key, "answer": attrs.asdict(answer)}, separators=(",", ":"))
        handle.write(line.encode() + b"\n")

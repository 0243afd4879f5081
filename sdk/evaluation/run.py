"""From labelled pictures to a report: decode, damage, detect, count. Pictures pass through; only numbers stay."""

from __future__ import annotations

import hashlib
import platform
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.decoding import decode, encode_jpeg
from tellsign.errors import DecodeError, SettingError
from tellsign.schemas import Picture, Verdict

from . import curves, metrics, paper, pixels
from .compare import paired
from .conditions import NATIVE, Condition, parse
from .dataset import AI, FAKE, REAL, Dataset, Item
from .journal import Journal
from .kept import Kept
from .outcomes import LABELS, Outcome, Row, Store
from .peers import CallablePeer, ListedPeer, columns_of, probabilities
from .shortcuts import Traits, audit, traits
from .summary import POOLED, SMALL, summary
from .without import Without

ALIGNMENTS = {
    "jpeg96": "generated pictures stored without loss are saved as JPEG, quality 96, 4:2:0; real ones untouched"
}
"""Ways to make the classes' formats alike that papers use, by name."""
_ALIGNED_QUALITY = 96
_LOSSLESS = ("PNG", "BMP", "TIFF", "GIF")
_AHEAD = 2  # pictures that are decoded while the detector is busy
_AT_ONCE = 8  # conditions of one picture that are made together; of a longer list half as many, being a grid's
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
class Trouble:
    """One picture that could not be scored."""

    path: str
    condition: str | None
    """None where the picture could not be read at all."""
    code: str
    message: str


@attrs.frozen(kw_only=True)
class Preparation:
    """What is done to every picture before its conditions, alike for both classes but for `align`."""

    normalise: bool = False
    align: str | None = None
    seed: int = 0


@attrs.frozen(kw_only=True)
class Maps:
    """How heat maps are held against masks."""

    name: str | None = None
    """`plugin` or `plugin:map`; by default the verdict's own heat map."""
    scaling: pixels.Scaling = "own"


@attrs.frozen(kw_only=True)
class _Prepared:
    place: int
    asked: int
    sha256: str
    sources: tuple[tuple[str, Picture, Traits], ...] = ()
    known: tuple[tuple[str, Outcome], ...] = ()
    troubles: tuple[Trouble, ...] = ()


@attrs.frozen(kw_only=True)
class _Waiting:
    place: int
    condition: str
    traits: Traits
    key: str
    peers: dict[str, float | None]


def evaluate(
    dataset: Dataset,
    detector: ManyDetector,
    *,
    conditions: str | Sequence[str] = NATIVE,
    normalise: bool = False,
    seed: int = 0,
    draws: int = 1000,
    progress: Callable[[int, int], None] | None = None,
    align: str | None = None,
    peers: Sequence[CallablePeer | ListedPeer | Without] = (),
    maps: Maps | None = None,
    journal: Path | None = None,
    setup: Mapping[str, Any] | None = None,
    scores: bool = True,
    kept: Kept | None = None,
) -> dict[str, Any]:
    """Score every picture under every condition and count.

    Parameters
    ----------
    dataset : Dataset
        From `tellsign.evaluation.dataset.load`.
    detector : Detector
        Anything with `detect_many` and `versions` as `tellsign.Detector` has them.
    conditions : str or sequence of str, default "native"
        Names out of `tellsign.evaluation.conditions`; `overall` is measured under the first.
    normalise : bool, default False
        Put every picture through `tellsign.data.normalise` first; pictures that are too small for it are left out and
        named. By default pictures are judged as they are on disk.
    seed : int, default 0
        Of the bootstrap and of `normalise`.
    draws : int, default 1000
        Bootstrap draws; 0 gives no intervals.
    progress : callable, optional
        Called with (scored, all), pictures times conditions.
    align : str, optional
        One of `ALIGNMENTS`.
    peers : sequence of CallablePeer, ListedPeer or Without
        Other detectors; a callable one is given the very pictures that this one is given. `Without` is this detector
        less a plugin.
    maps : Maps, optional
        Which heat map is held against the data set's masks, and how. Not where `normalise` moves the pixels.
    journal : Path, optional
        Where answers are written as they come; those that are there already are taken from it.
    setup : mapping, optional
        What else an answer depends on (plugin settings, device), so that the journal tells runs apart.
    scores : bool, default True
        Keep every picture's probability in the report; two reports can only be compared with them.
    kept : Kept, optional
        Evidence from which verdicts are made where every plugin's is there; `detector` is asked about the rest.

    Returns
    -------
    dict
        Only what JSON holds: overall, by_generator, by_condition, by_real_source, worst_generator, worst_real_source,
        trivial_rules, risk_coverage, audit, paper, roc, reliability, pixels, peers, comparisons, mistakes, pictures,
        errors, notices, warnings, versions, data_hash, settings, seconds.

    Raises
    ------
    SettingError
        An unknown condition or alignment; callable peers, or a journal, beside kept evidence.
    PeerError
        A peer failed; what was scored before is in the journal.
    """
    chosen = parse(conditions)
    if align is not None and align not in ALIGNMENTS:
        raise SettingError("align", f"one of {', '.join(ALIGNMENTS)}, or None", align)
    names = [p.name for p in peers]
    if len(set(names)) < len(names):
        raise SettingError("peers", "one name each (NAME=module:callable)", names)
    if kept is not None and (journal is not None or any(isinstance(p, CallablePeer) for p in peers)):
        raise SettingError("kept", "neither a journal nor peers that must see the pictures", "one of them")
    preparation = Preparation(normalise=normalise, align=align, seed=seed)
    maps = maps or Maps()
    if journal is None:
        run = _Run(dataset, detector, chosen, preparation, peers, maps, None, progress, kept)
        run.score()
        return _report(run, draws=draws, scores=scores)
    facts = {
        "versions": {**_libraries(), **dict(detector.versions)},
        "preparation": attrs.asdict(preparation),
        "maps": attrs.asdict(maps),
        "peers": {p.name: p.where for p in peers if not isinstance(p, ListedPeer)},
        **(setup or {}),
    }
    with Journal(journal, facts) as book:
        run = _Run(dataset, detector, chosen, preparation, peers, maps, book, progress)
        run.score()
        return _report(run, draws=draws, scores=scores)


class _Run:
    """One pass over a data set."""

    def __init__(
        self,
        dataset: Dataset,
        detector: ManyDetector,
        chosen: tuple[Condition, ...],
        preparation: Preparation,
        peers: Sequence[CallablePeer | ListedPeer | Without],
        maps: Maps,
        journal: Journal | None,
        progress: Callable[[int, int], None] | None,
        kept: Kept | None = None,
    ) -> None:
        self.started = time.perf_counter()
        self.dataset, self.detector, self.chosen = dataset, detector, chosen
        self.preparation, self.maps, self.journal, self.progress = preparation, maps, journal, progress
        self.peers, self.kept = peers, kept
        self.live = [p for p in peers if isinstance(p, CallablePeer)]
        self.listed = [p for p in peers if isinstance(p, ListedPeer)]
        self.less = [p for p in peers if isinstance(p, Without)]
        self.stores = {c.name: Store(dataset.items, [p.name for p in peers]) for c in chosen}
        self.hashes = np.zeros((len(dataset.items), 32), np.uint8)
        self.missing = np.ones(len(dataset.items), bool)
        self.troubles: list[Trouble] = []
        self.notices: Counter[str] = Counter()
        self.versions: dict[str, str] = {}
        self.resumed = 0
        self.total, self.done = len(dataset.items) * len(chosen), 0
        step = _AT_ONCE if len(chosen) <= _AT_ONCE else _AT_ONCE // 2
        self._parts = [chosen[i : i + step] for i in range(0, len(chosen), step)]
        self._waiting: deque[_Waiting] = deque()
        self._counting = threading.Lock()  # the detector may draw its sources in another thread

    def score(self) -> None:
        """Ask the detector, and whoever else was named, about every picture."""
        for answer in self.detector.detect_many(self._sources(), batch_size=_BATCH, on_error="return"):
            waiting = self._waiting.popleft()
            item = self.dataset.items[waiting.place]
            self._tick()
            if not isinstance(answer, Verdict):
                self.troubles.append(_trouble(item, answer.error, waiting.condition))
                continue
            outcome = self._outcome(item, answer, waiting.condition, waiting.traits, waiting.peers)
            if self.journal is not None:
                self.journal.add(waiting.key, waiting.condition, attrs.evolve(outcome, versions=dict(answer.versions)))
            self._keep(waiting.place, waiting.condition, outcome)
        if self._waiting or self.done != self.total:
            raise RuntimeError(f"detect_many answered {self.done} of {self.total} pictures")

    def _outcome(
        self, item: Item, answer: Verdict, condition: str, seen: Traits, peers: Mapping[str, float | None]
    ) -> Outcome:
        shape = {"width": answer.width, "height": answer.height}
        less = {p.name: p.verdict(answer.evidence, **shape) for p in self.less}
        asked = {name: v.p_ai if self.dataset.asks == AI else v.p_tampered for name, v in less.items()}
        return Outcome(
            label=answer.label.value,
            p_ai=answer.p_ai,
            p_tampered=answer.p_tampered,
            traits=seen,
            hits=self._hits(item, answer, condition),
            peers={**peers, **asked},
            notices=tuple(f"{n.plugin or 'tellsign'}: {n.code}" for n in answer.warnings),
            versions={} if self.versions else dict(answer.versions),
        )

    def _sources(self) -> Iterator[Picture]:
        buffered: list[tuple[_Prepared, str, Picture, Traits]] = []
        with ThreadPoolExecutor(_AHEAD, "tellsign-eval") as pool:
            units = ((place, k) for place in range(len(self.dataset.items)) for k in range(len(self._parts)))
            for prepared in _ahead(pool, self._prepare, units):
                place = prepared.place
                if prepared.sha256:
                    self.hashes[place] = np.frombuffer(bytes.fromhex(prepared.sha256), np.uint8)
                    self.missing[place] = False
                self.troubles.extend(prepared.troubles)
                for name, outcome in prepared.known:
                    self._keep(place, name, outcome)
                self.resumed += len(prepared.known) if self.journal is not None else 0
                self._tick(prepared.asked - len(prepared.sources))
                buffered += [(prepared, *source) for source in prepared.sources]
                # Peers are given a batch; where there is none, nothing waits for one.
                if not self.live or len(buffered) >= _BATCH:
                    yield from self._handed_on(buffered)
                    buffered = []
            yield from self._handed_on(buffered)

    def _handed_on(self, batch: Sequence[tuple[_Prepared, str, Picture, Traits]]) -> Iterator[Picture]:
        answers = {p.name: p.scores([picture for _, _, picture, _ in batch]) for p in self.live} if batch else {}
        for n, (prepared, name, picture, seen) in enumerate(batch):
            key = _key(prepared.sha256, self.dataset.items[prepared.place])
            own = {peer: scores[n] for peer, scores in answers.items()}
            self._waiting.append(_Waiting(place=prepared.place, condition=name, traits=seen, key=key, peers=own))
            yield picture

    def _prepare(self, unit: tuple[int, int]) -> _Prepared:
        """Everything of one picture, under a few conditions, that needs no detector; runs in a thread."""
        place, part = unit
        item, asked = self.dataset.items[place], self._parts[part]
        sha256, picture = "", None
        known: list[tuple[str, Outcome]] = []
        troubles: list[Trouble] = []
        try:
            sha256 = content_hash(item)
            if self.journal is not None and sha256:
                found = [(c.name, self.journal.get(_key(sha256, item), c.name)) for c in asked]
                known = [(name, outcome) for name, outcome in found if outcome is not None]
            if self.kept is not None and sha256:
                for condition in asked:
                    said = self.kept.answered(sha256, condition.name)
                    if said is not None:
                        outcome = self._outcome(item, said.verdict, condition.name, said.traits, {})
                        known.append((condition.name, outcome))
            if len(known) < len(asked):
                picture = picture_of(item, sha256, self.preparation)
        except (DecodeError, SettingError) as error:
            troubles += [_trouble(item, error, None)] if part == 0 else []  # once, however many conditions there are
        sources: list[tuple[str, Picture, Traits]] = []
        there = {name for name, _ in known}
        for condition in asked:
            if picture is None or condition.name in there:
                continue
            try:
                shown = damaged(picture, condition)
            except (DecodeError, OSError, ValueError) as error:  # a side that the format cannot hold
                troubles.append(_trouble(item, error, condition.name))
                continue
            sources.append((condition.name, shown, traits(shown)))
        return _Prepared(
            place=place,
            asked=len(asked),
            sha256=sha256,
            sources=tuple(sources),
            known=tuple(known),
            troubles=tuple(troubles),
        )

    def _hits(self, item: Item, verdict: Verdict, condition: str) -> tuple[int, int, int] | None:
        """Pixels found, accused and missed, where the data set has a mask and the verdict a map."""
        if item.truth is None or self.preparation.normalise:
            return None
        evidence = pixels.chosen_map(verdict, self.maps.name)
        if evidence is None:
            return None
        try:
            truth = item.truth.mask(verdict.height, verdict.width)
        except DecodeError as error:
            self.troubles.append(
                Trouble(path=item.name, condition=condition, code="mask", message=f"its mask: {error.message}")
            )
            return None
        found = pixels.prediction(evidence, verdict.height, verdict.width, self.maps.scaling)
        return pixels.count(found, truth)

    def _keep(self, place: int, condition: str, outcome: Outcome) -> None:
        item = self.dataset.items[place]
        if self.listed:
            scores = {p.name: p.score(item, condition, NATIVE) for p in self.listed}
            outcome = attrs.evolve(outcome, peers={**outcome.peers, **scores})
        self.versions = self.versions or dict(outcome.versions)
        self.notices.update(outcome.notices)
        self.stores[condition].add(place, outcome)

    def _tick(self, count: int = 1) -> None:
        with self._counting:
            self.done += count
            if self.progress is not None:
                self.progress(self.done, self.total)


def picture_of(item: Item, sha256: str, preparation: Preparation) -> Picture:
    """The picture that is judged: decoded, and prepared as the run asks. The one place where an item becomes pixels.

    Parameters
    ----------
    item : Item
    sha256 : str
        Of its file; seeds `normalise`, so that neither class nor order nor place of the picture moves the draw.
    preparation : Preparation

    Raises
    ------
    DecodeError
        It cannot be read.
    SettingError
        It is too small to be normalised.
    """
    picture = decode(item.file)
    if preparation.align is not None and item.label == FAKE and _is_lossless(picture):
        picture = decode(encode_jpeg(picture.pixels, _ALIGNED_QUALITY))
    if preparation.normalise:
        from tellsign.data.normalise import normalise_picture

        own = int.from_bytes(hashlib.sha256(f"{preparation.seed}/{sha256}".encode()).digest()[:8], "big")
        picture = normalise_picture(picture.pixels, own)
    return picture


def damaged(picture: Picture, condition: Condition) -> Picture:
    """The picture under a condition, and its overview likewise where it has one."""
    if condition.name == NATIVE:
        return picture
    shown = decode(condition.apply(picture.pixels))
    if picture.overview is None:
        return shown
    return attrs.evolve(shown, overview=decode(condition.apply(picture.overview.pixels)))


def _is_lossless(picture: Picture) -> bool:
    return picture.facts is None or (picture.facts.container in _LOSSLESS and not picture.facts.quantization)


def content_hash(item: Item) -> str:
    """SHA-256 of a picture's file; empty where there is none."""
    if item.content is not None:
        return hashlib.sha256(item.content.read()).hexdigest()
    if not item.path.is_file():  # a pipe would be read for ever
        return ""
    try:
        with item.path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError:
        return ""


def _key(sha256: str, item: Item) -> str:
    """What the journal calls a picture; one content with two masks has two pixel counts."""
    return sha256 if item.truth is None else f"{sha256}/{item.truth.fingerprint}"


def _report(run: _Run, *, draws: int, seed: int | None = None, scores: bool) -> dict[str, Any]:
    seed = run.preparation.seed if seed is None else seed
    dataset, stores, first_name = run.dataset, run.stores, run.chosen[0].name
    tables = {name: store.columns(dataset.asks) for name, store in stores.items()}
    blocks = {name: summary(table, draws=draws, seed=seed) for name, table in tables.items()}
    first, table = blocks[first_name], tables[first_name]
    peers, comparisons = _peers(run, tables, draws=draws, seed=seed)
    hits = {name: _pixels(stores[name], draws=draws, seed=seed) for name in stores}
    report: dict[str, Any] = {
        **first,
        "by_condition": {
            name: _condition_block(block) | ({"pixels": hits[name]} if hits[name] else {})
            for name, block in blocks.items()
        },
        "audit": audit(table.traits, table.label),
        "paper": paper.table(table, draws=draws, seed=seed),
        "roc": curves.roc(table),
        "reliability": curves.reliability(table),
        "pixels": hits[first_name],
        "peers": peers,
        "comparisons": comparisons,
        "mistakes": _mistakes(run, stores[first_name]),
        "errors": {
            "unreadable": len({t.path for t in run.troubles if t.condition is None}),
            "not_scored": sum(t.condition is not None for t in run.troubles),
            "files": [attrs.asdict(t) for t in run.troubles],
        },
        "notices": dict(sorted(run.notices.items())),
        "warnings": [*dataset.notes, *_warnings(run, first, hits[first_name])],
        "versions": {**_libraries(), **dict(run.detector.versions), **run.versions},
        "data_hash": _data_hash(run),
        "settings": {
            "data": dataset.data,
            "layout": dataset.layout,
            "asks": dataset.asks,
            "split": dataset.split,
            "pictures": len(dataset.items),
            "pipeline": "normalise" if run.preparation.normalise else "as-is",
            "align": None if run.preparation.align is None else ALIGNMENTS[run.preparation.align],
            "map": {"name": run.maps.name, "scaling": run.maps.scaling, "cut": pixels.CUT},
            "conditions": {c.name: c.summary for c in run.chosen},
            "curves": {c.name: [c.family, c.strength] for c in run.chosen if c.family is not None},
            "peers": {p.name: p.where for p in run.peers},
            "seed": seed,
            "bootstrap_draws": draws,
            "ece_bins": metrics.BINS,
            "cut": metrics.CUT,
        },
    }
    if scores:
        report["pictures"] = _pictures(run)
    return report | {"seconds": time.perf_counter() - run.started}


def _condition_block(block: dict[str, Any]) -> dict[str, Any]:
    names = ("by_generator", "worst_generator", "by_real_source", "worst_real_source", "trivial_rules")
    return {**block["overall"], **{name: block[name] for name in names}}


def _pixels(store: Store, *, draws: int, seed: int) -> dict[str, Any] | None:
    table = store.columns()
    return pixels.summarise(store.hits[store.there], table.label, table.group, draws=draws, seed=seed)


def _peers(run: _Run, tables: Mapping[str, Any], *, draws: int, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The peers' own numbers, and this detector against each of them on the pictures that both scored."""
    blocks: dict[str, Any] = {}
    comparisons: dict[str, Any] = {}
    first = run.chosen[0].name
    for peer in run.peers:
        raw = {name: store.peers[peer.name][store.there] for name, store in run.stores.items()}
        # One reading of the scale for all conditions, not one each.
        _, scale = probabilities(np.concatenate(list(raw.values())))
        p = {name: v if scale == "probability" else 0.5 * (1 + np.tanh(v / 2)) for name, v in raw.items()}
        tables_of = {n: columns_of(tables[n], p[n]) for n in raw if np.isfinite(p[n]).any()}
        own = {n: summary(t, draws=draws, seed=seed) for n, t in tables_of.items()}
        blocks[peer.name] = {
            "scores_are": scale,
            "where": peer.where,
            "overall": own[first]["overall"] if first in own else None,
            "by_generator": own[first]["by_generator"] if first in own else None,
            "by_condition": {n: block["overall"] for n, block in own.items()},
            "paper": paper.table(tables_of[first], draws=draws, seed=seed) if first in own else None,
            "roc": curves.roc(tables_of[first]) if first in own else None,
        }
        comparisons[peer.name] = {}
        for name, table in tables_of.items():
            both = tables[name].scored & table.scored
            if both.any():
                comparisons[peer.name][name] = paired(
                    table.label[both], table.p[both], tables[name].p[both], table.group[both], draws=draws, seed=seed
                )
    return blocks, comparisons


def _mistakes(run: _Run, store: Store) -> dict[str, list[dict[str, Any]]]:
    label = np.array([i.label for i in run.dataset.items], int)
    p = store.p_ai if run.dataset.asks == AI else store.p_tampered
    reals, fakes = curves.mistakes(label, p)
    out: dict[str, list[dict[str, Any]]] = {}
    for kind, places in (("real_called_fake", reals), ("fake_called_real", fakes)):
        out[kind] = [
            {
                "place": int(i),
                "name": run.dataset.items[i].name,
                "source": run.dataset.items[i].source,
                "p": float(p[i]),
                "verdict": _verdict(store, int(i)),
            }
            for i in places
        ]
    return out


def _verdict(store: Store, place: int) -> str:
    return LABELS[int(store.verdict[place])]


def _pictures(run: _Run) -> dict[str, Any]:
    """Every picture's own numbers, as columns; content by the first 16 digits of its hash."""
    keep = np.flatnonzero(np.any([s.there for s in run.stores.values()], axis=0))
    items = [run.dataset.items[i] for i in keep]

    def rounded(values: NDArray[np.float64]) -> list[float | None]:
        return [None if not np.isfinite(v) else round(float(v), 6) for v in values[keep]]

    return {
        "name": [i.name for i in items],
        "content": [run.hashes[i].tobytes().hex()[:16] for i in keep],
        "label": [i.label for i in items],
        "source": [i.source for i in items],
        "group": [i.group for i in items],
        "p": {name: rounded(s.p_ai if run.dataset.asks == AI else s.p_tampered) for name, s in run.stores.items()},
        "peers": {
            peer.name: {name: rounded(s.peers[peer.name]) for name, s in run.stores.items()} for peer in run.peers
        },
    }


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[tuple[int, int]], _Prepared], units: Iterable[tuple[int, int]]
) -> Iterator[_Prepared]:
    """Work on the next few pictures while the consumer holds one; in order."""
    running: deque[Any] = deque()
    try:
        for unit in units:
            running.append(pool.submit(work, unit))
            if len(running) > _AHEAD:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()


def _trouble(item: Item, error: Exception, condition: str | None) -> Trouble:
    code = getattr(error, "code", None) or ("left_out" if isinstance(error, SettingError) else type(error).__name__)
    return Trouble(path=item.name, condition=condition, code=str(code), message=getattr(error, "message", str(error)))


def _data_hash(run: _Run) -> str:
    """Of labels and contents; the same pictures under other names or in another order give the same."""
    shas = ("missing" if gone else sha.tobytes().hex() for sha, gone in zip(run.hashes, run.missing, strict=True))
    lines = sorted(f"{item.label} {sha}" for item, sha in zip(run.dataset.items, shas, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _warnings(run: _Run, block: dict[str, Any], hits: dict[str, Any] | None) -> list[str]:
    out = []
    items, pictures = run.dataset.items, len(run.dataset.items)
    unread = len({t.path for t in run.troubles if t.condition is None})
    if unread:
        out.append(f"{unread} of {pictures} pictures could not be read or used; errors.files names them.")
    if spoilt := sum(t.condition is not None for t in run.troubles):
        out.append(f"{spoilt} pictures could not be scored under one of the conditions; errors.files names them.")
    if run.resumed:
        out.append(f"{run.resumed} of {run.total} answers were taken from the journal of an earlier run.")
    if run.journal is not None and run.journal.others:
        out.append(
            f"The journal also holds {run.journal.others} answers of other versions or settings; they were not used."
        )
    labels: dict[bytes, set[int]] = {}
    seen: Counter[bytes] = Counter()
    for item, sha, gone in zip(items, run.hashes, run.missing, strict=True):
        if not gone:
            labels.setdefault(sha.tobytes(), set()).add(item.label)
            seen[sha.tobytes()] += 1
    if torn := sum(len(v) > 1 for v in labels.values()):
        out.append(f"{torn} files are there byte for byte under both labels.")
    if twice := sum(n - 1 for n in seen.values()):
        out.append(f"{twice} files repeat another one byte for byte; intervals take them for independent.")
    overall, asked = block["overall"], run.dataset.asks
    if overall["n_without_probability"]:
        why = "no plugin could judge them" if asked == AI else "no plugin assesses tampering"
        out.append(
            f"{overall['n_without_probability']} pictures got no probability ({why}); they count "
            "as uncertain and are not in AUC, ECE and Brier."
            if asked == AI
            else f"{overall['n_without_probability']} pictures got no p_tampered ({why}); they are not in AUC, ECE and "
            "Brier."
        )
    both = run.dataset.count(REAL) and run.dataset.count(FAKE)
    if overall["auc"] is None and both:
        out.append("No AUC: after unreadable pictures and those without probability, a class is empty.")
    if overall["tpr_at_1_fpr"] is None and overall["n_real"] < metrics.MANY_REALS and both:
        out.append(f"TPR at 1 % FPR needs {metrics.MANY_REALS} real pictures, and {overall['n_real']} are there.")
    masks = sum(i.mask for i in items)
    if masks and hits is None:
        why = "pixels move under --normalise" if run.preparation.normalise else "no plugin gave a heat map"
        out.append(f"{masks} pictures have masks and no pixel metrics are given: {why}.")
    # Another version, or other weights, than the fusion was fitted on is told by the verdicts; it is no failure.
    told = ("plugin_version", "plugin_weights")
    failed = {k: v for k, v in run.notices.items() if "plugin_" in k and not k.endswith(told)}
    if failed:
        out.append("Plugins failed: " + ", ".join(f"{k} ({v} times)" for k, v in sorted(failed.items())) + ".")
    if other := sorted(k for k in run.notices if k.endswith(told)):
        out.append(f"The fusion was fitted on other plugins than these: {', '.join(other)}.")
    for peer in run.listed:
        for name, store in run.stores.items():
            lacking = int((~np.isfinite(store.peers[peer.name]) & store.there).sum())
            if lacking:
                out.append(f"{peer.where} has no score for {lacking} of {int(store.there.sum())} pictures ({name}).")
    out += _suspicions(run, block)
    return out


def _suspicions(run: _Run, block: dict[str, Any]) -> list[str]:
    """Rules that look at nothing and tell the classes apart all the same."""
    from tellsign.data.trivial import GATED, LIMIT

    overall = block["overall"]
    loud = [f"{k} {v:.2f}" for k, v in block["trivial_rules"].items() if k in GATED and v > LIMIT]
    if not loud:
        return []
    # Standard error of the AUC of a rule that says nothing (Mann-Whitney).
    reals, fakes = overall["n_real"], overall["n_ai"]
    chance = 0.5 + 1.96 * ((reals + fakes + 1) / (12 * reals * fakes)) ** 0.5 if reals and fakes else 1.0
    return [
        f"Trivial rules tell the classes apart (AUC above {LIMIT}): {', '.join(loud)}. A number measured on such "
        "data may be the rule's."
        + (f" With so few pictures chance alone reaches {min(chance, 1):.2f}." if chance > LIMIT else "")
        + ("" if run.preparation.normalise else " --normalise takes most of such differences away.")
    ]


def _libraries() -> dict[str, str]:
    names = ("tellsign", "numpy", "pillow", "scikit-learn", "torch", "xgboost")
    out = {"python": platform.python_version()}
    for name in names:
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return out


__all__ = [
    "ALIGNMENTS",
    "POOLED",
    "SMALL",
    "ManyDetector",
    "Maps",
    "Preparation",
    "Row",
    "Trouble",
    "content_hash",
    "damaged",
    "evaluate",
    "picture_of",
    "summary",
]

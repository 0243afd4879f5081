"""One picture's way: decoded, made into views, shown to the plugins, fused into a verdict."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import attrs

from tellsign.schemas import (
    SCHEMA_VERSION,
    VIEW_OF_TASK,
    Declaration,
    Evidence,
    Failed,
    Label,
    NotApplicable,
    Notice,
    Picture,
    ScoreEvidence,
    Task,
    Unavailable,
    UncertainReason,
    Verdict,
    View,
)

from .guard import Answer, Guard
from .runtime import DeviceRuntime
from .stability import ORIGINAL, PROBED, flip, saved_again
from .worker import in_words

if TYPE_CHECKING:
    from tellsign.fusion.bundle import Fused

    from .decoding import Limits, Source

SILENT = (NotApplicable, Failed, Unavailable)
"""Evidence that says nothing about the picture."""


class Fusion(Protocol):
    """What the pipeline needs of a fusion bundle."""

    def fuse(
        self,
        evidence: Sequence[Evidence],
        declarations: Mapping[str, Declaration],
        *,
        prior: float = ...,
        error_rate: float | None = ...,
    ) -> Fused:
        """Turn evidence into probabilities, a set of labels, and a label."""


@attrs.frozen(kw_only=True)
class Prepared:
    """A picture on its way to the plugins: its views."""

    source: str | None
    width: int
    height: int
    views: dict[tuple[str, type], View]
    """By the name of the copy (`ORIGINAL`, "jpeg85", ...) and the view's class."""
    broken: dict[tuple[str, type], str]
    """Views that could not be made, and why."""
    timings: dict[str, float]
    key: str
    """Distinguishes the picture from the others of its batch."""
    picture: Picture | None
    """Kept where it may have to be saved again for the stability probe; else its pixels live in the views only."""


@attrs.define
class Gathered:
    """What the plugins said about one picture."""

    prepared: Prepared
    answers: dict[str, dict[str, Answer]] = attrs.field(factory=dict)
    """By copy, then by plugin."""
    timings: dict[str, float] = attrs.field(factory=dict)

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Of the picture as it came, sorted by plugin."""
        return tuple(e for answer in self.answers.get(ORIGINAL, {}).values() for e in answer.evidence)

    @property
    def notices(self) -> tuple[Notice, ...]:
        """Of the plugins that did something wrong on the picture as it came."""
        return tuple(a.notice for a in self.answers.get(ORIGINAL, {}).values() if a.notice is not None)

    def add(self, stage: str, seconds: float) -> None:
        """Count seconds for a stage."""
        self.timings[stage] = self.timings.get(stage, 0.0) + seconds

    def copies(self) -> dict[str, tuple[Evidence, ...]]:
        """Evidence of the copies that can be compared: those on which every plugin that had answered did again."""
        original = self.answers.get(ORIGINAL, {})
        comparable = {}
        for copy, answers in self.answers.items():
            lost = any(a.failed and not original[name].failed for name, a in answers.items())
            if copy != ORIGINAL and not lost:
                merged = (original | answers).values()
                comparable[copy] = tuple(e for answer in merged for e in answer.evidence)
        return comparable


_Seen = tuple[Gathered, str, Mapping[tuple[str, type], View], Mapping[tuple[str, type], str]]
"""A picture, the name of its copy, the copy's views, and those that could not be made, with the reason."""


@attrs.frozen(kw_only=True)
class Pipeline:
    """The way of a picture, without state of its own; safe to use from several threads."""

    guards: tuple[Guard, ...]
    """Sorted by name; the order of the evidence."""
    runtime: DeviceRuntime
    limits: Limits | None
    stability_probe: bool
    strict: bool = False
    notices: tuple[Notice, ...] = ()
    """What every verdict should warn of: plugins that are installed and could not be loaded."""

    @property
    def declarations(self) -> dict[str, Declaration]:
        """Of the plugins that take part, by name."""
        return {guard.name: guard.declaration for guard in self.guards}

    def prepare(self, source: Source | Picture, *, key: str = "0", probe: bool = False) -> Prepared:
        """Decode a picture and make its views, one per kind of view however many plugins share it.

        Parameters
        ----------
        source
            What `tellsign.decode` takes, or a `Picture`.
        key : str
            Distinguishes the picture from the others of its batch.
        probe : bool
            Keep the picture for the stability probe.

        Raises
        ------
        DecodeError
            The picture cannot be read.
        """
        began = time.perf_counter()
        picture = source if isinstance(source, Picture) else self._decode(source)
        decoded = time.perf_counter()
        views: dict[tuple[str, type], View] = {}
        broken: dict[tuple[str, type], str] = {}
        tasks = {guard.task for guard in self.guards}
        self._look(picture, ORIGINAL, tasks, key, views, broken)
        viewed = time.perf_counter()
        return Prepared(
            source=picture.source,
            width=picture.width,
            height=picture.height,
            views=views,
            broken=broken,
            timings={"decode": decoded - began, "views": viewed - decoded},
            key=key,
            picture=picture if probe else None,
        )

    def _decode(self, source: Source) -> Picture:
        from .decoding import decode

        return decode(source) if self.limits is None else decode(source, limits=self.limits)

    def _look(
        self,
        picture: Picture,
        copy: str,
        tasks: set[Task],
        key: str,
        views: dict[tuple[str, type], View],
        broken: dict[tuple[str, type], str],
    ) -> None:
        from .views import build_view

        for kind, task in {VIEW_OF_TASK[task]: task for task in sorted(tasks)}.items():
            try:
                views[copy, kind] = build_view(task, picture, f"{key}.{copy}.{kind.__name__}")
            except Exception as error:  # an odd picture must not lose the answers of the other tasks
                if self.strict:
                    raise
                broken[copy, kind] = in_words(error)

    def run(self, batch: Sequence[Prepared]) -> list[Gathered]:
        """Show the pictures to every plugin, all pictures in one call each."""
        began = time.perf_counter()
        gathered = [Gathered(prepared, timings=dict(prepared.timings)) for prepared in batch]
        with self.runtime.scope():
            for guard in self.guards:
                for one in gathered:
                    one.timings[f"plugin:{guard.name}"] = 0.0
                self._show(guard, [(one, ORIGINAL, one.prepared.views, one.prepared.broken) for one in gathered])
        share = (time.perf_counter() - began) / max(1, len(batch))
        for one in gathered:
            one.timings["total"] = sum(one.prepared.timings.values()) + share
        return gathered

    def _show(self, guard: Guard, batch: Sequence[_Seen]) -> None:
        kind = VIEW_OF_TASK[guard.task]
        asked: list[tuple[Gathered, str, View]] = []
        for one, copy, views, broken in batch:
            if (copy, kind) in views:
                asked.append((one, copy, views[copy, kind]))
            elif (copy, kind) in broken:
                one.answers.setdefault(copy, {})[guard.name] = guard.could_not_see(broken[copy, kind])
        pictures = len({id(one) for one, _, _ in asked})
        answers, seconds = guard.ask([view for _, _, view in asked], pictures=pictures)
        for (one, copy, _), answer in zip(asked, answers, strict=True):
            one.answers.setdefault(copy, {})[guard.name] = answer
            if copy == ORIGINAL:
                one.add(f"plugin:{guard.name}", seconds / len(asked))

    def look_again(self, batch: Sequence[Gathered]) -> None:
        """Save each picture again and show the copies to what looks at pixels or meaning, all in one call each."""
        tasks = {guard.task for guard in self.guards} & PROBED
        seen: list[_Seen] = []
        for one in batch:
            if one.prepared.picture is None or not tasks:
                continue
            for copy, saved in saved_again(one.prepared.picture):
                views: dict[tuple[str, type], View] = {}
                broken: dict[tuple[str, type], str] = {}
                self._look(saved, copy, tasks, one.prepared.key, views, broken)
                seen.append((one, copy, views, broken))
        with self.runtime.scope():
            for guard in self.guards:
                if seen and guard.task in PROBED:
                    self._show(guard, seen)

    def conclude(
        self,
        batch: Sequence[Gathered],
        fusion: Fusion,
        *,
        prior: float,
        error_rate: float | None,
        versions: Mapping[str, str],
    ) -> list[Verdict]:
        """Fuse what the plugins said, check that what is definite is stable, and put the verdicts together.

        `versions` are those of what takes part in every verdict; the models that spoke are added. Only a definite
        verdict can flip, so only those pictures are saved again and looked at once more.
        """

        def fuse(evidence: Sequence[Evidence]) -> Fused:
            return fusion.fuse(evidence, self.declarations, prior=prior, error_rate=error_rate)

        all_fused = []
        for one in batch:
            began = time.perf_counter()
            all_fused.append(fuse(one.evidence))
            one.add("fusion", time.perf_counter() - began)
            one.add("total", one.timings["fusion"])
        changes: dict[int, Notice] = {}
        if self.stability_probe:
            began = time.perf_counter()
            definite = [i for i, fused in enumerate(all_fused) if fused.label is not Label.UNCERTAIN]
            self.look_again([batch[i] for i in definite])
            for i in definite:
                others = {copy: fuse(other).label for copy, other in batch[i].copies().items()}
                change = flip(all_fused[i].label, others)
                if change is not None:
                    changes[i] = change
            share = (time.perf_counter() - began) / max(1, len(definite))
            for i, one in enumerate(batch):
                one.add("stability", share if i in definite else 0.0)
                one.add("total", one.timings["stability"])
        return [
            self._verdict(one, fused, changes.get(i), versions)
            for i, (one, fused) in enumerate(zip(batch, all_fused, strict=True))
        ]

    def _verdict(self, one: Gathered, fused: Fused, change: Notice | None, versions: Mapping[str, str]) -> Verdict:
        evidence = one.evidence
        notices = [*self.notices, *one.notices, *_understudies(evidence), *fused.notices]
        if all(isinstance(e, SILENT) for e in evidence) and "no_evidence" not in {n.code for n in notices}:
            notices.append(Notice(code="no_evidence", message="no plugin said anything about this picture"))
        label, reason = fused.label, fused.reason
        if change is not None:
            label, reason = Label.UNCERTAIN, UncertainReason.UNSTABLE
            notices.append(change)
        return Verdict(
            label=label,
            reason=reason,
            p_ai=fused.p_ai,
            p_tampered=fused.p_tampered,
            prior=fused.prior,
            p_ai_at_1_percent=fused.p_ai_at_1_percent,
            prediction_set=fused.prediction_set,
            contributions=tuple(fused.contributions),
            evidence=evidence,
            warnings=tuple(notices),
            source=one.prepared.source,
            width=one.prepared.width,
            height=one.prepared.height,
            timings=one.timings,
            versions={**versions, **_models(evidence)},
        )

    def close(self) -> None:
        """Let the plugins' threads end and the models go."""
        for guard in self.guards:
            guard.close()
        self.runtime.close()


def versions_of(guards: Sequence[Guard], fusion: Fusion) -> dict[str, str]:
    """Versions of what takes part in every verdict."""
    from . import __version__

    plugins = {f"plugin:{guard.name}": guard.declaration.version for guard in guards}
    bundle = {"bundle": str(fusion.version)} if hasattr(fusion, "version") else {}
    return {"tellsign": __version__, "schema": SCHEMA_VERSION} | plugins | bundle


def _understudies(evidence: Sequence[Evidence]) -> list[Notice]:
    """A warning for each plugin whose score is not from its best model, because that one is not here."""
    scored = {e.plugin for e in evidence if isinstance(e, ScoreEvidence)}
    return [
        Notice(code="weaker_model", message=f"{e.plugin}: {e.reason}", plugin=e.plugin)
        for e in evidence
        if isinstance(e, Unavailable) and e.plugin in scored
    ]


def _models(evidence: Sequence[Evidence]) -> dict[str, str]:
    """Which models spoke: "model:<plugin>" to their names and versions."""
    spoke: dict[str, set[str]] = {}
    for e in evidence:
        if not isinstance(e, SILENT):
            spoke.setdefault(f"model:{e.plugin}", set()).add(e.model)
    return {key: ", ".join(sorted(models)) for key, models in spoke.items()}


__all__ = ["Fusion", "Gathered", "Pipeline", "Prepared", "versions_of"]

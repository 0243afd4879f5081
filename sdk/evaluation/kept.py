"""What each plugin said of each picture, kept on disk: another fusion, or a new plugin, costs no old forward pass.

One file per plugin, and one for what is known of the pictures themselves. An answer is known by the content of the
picture's file, the condition, how pictures are prepared, and what the plugin is: its version, the hashes of its
weights, its settings, and which fetched weights were there. The device is not among these. What failed is not kept.
"""

from __future__ import annotations

import base64
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import attrs

from tellsign.errors import DecodeError, SettingError
from tellsign.schemas import Declaration, Evidence, Failed, Picture, Verdict
from tellsign.schemas.codec import from_parts, to_parts

from .conditions import Condition
from .items import Dataset
from .lines import Lines
from .shortcuts import Traits

_AT_ONCE = 8  # pictures, under a condition each, that a plugin is shown together


class Concluding(Protocol):
    """The part of `tellsign.Detector` that turns kept evidence into a verdict."""

    @property
    def declarations(self) -> dict[str, Declaration]:
        """Of the plugins that take part, by name."""

    def conclude(self, evidence: Iterable[Evidence], *, width: int, height: int) -> Verdict:
        """The verdict on what the plugins said."""


class Collecting(Protocol):
    """The part of `tellsign.Detector` that asks a plugin."""

    def collect_many(self, sources: Iterable[Any]) -> Iterator[tuple[Evidence, ...]]:
        """What the plugins say of each source, in order."""

    def close(self) -> None:
        """Let go of the models."""


class _Said(Lines):
    KIND, WORDS, FINDS_NEW = "tellsign-kept-evidence", "file of kept evidence", True


@attrs.frozen
class Answered:
    """A picture under a condition of which every plugin has said something."""

    verdict: Verdict
    traits: Traits


class Kept:
    """Evidence in a folder.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    detector : Detector
        All plugins, and the fusion; its plugins are never asked here.
    preparation : mapping
        How pictures are made of files; part of what an answer is known by.
    settings : mapping
        Of the plugins, by name.

    Raises
    ------
    DataError
        A file of the folder is something else.
    """

    def __init__(
        self,
        folder: Path,
        detector: Concluding,
        *,
        preparation: Mapping[str, Any],
        settings: Mapping[str, Mapping[str, object]],
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.detector = detector
        self._open = ExitStack()
        self._lock = threading.Lock()
        here = _fetched()
        facts = {
            name: {
                "preparation": dict(preparation),
                "version": declaration.version,
                "weights": {w.file: w.sha256 for w in declaration.weights},
                "settings": dict(settings.get(name, {})),
                "fetched": here,
            }
            for name, declaration in sorted(detector.declarations.items())
        }
        # A dash begins no plugin's name.
        self._pictures = self._open.enter_context(_Said(folder / "-pictures.jsonl", {"preparation": dict(preparation)}))
        self._said = {
            name: self._open.enter_context(_Said(folder / f"{name}.jsonl", fact)) for name, fact in facts.items()
        }

    def missing(self, content: str, condition: str) -> tuple[str, ...]:
        """Plugins that have not said anything of a picture under a condition."""
        return tuple(name for name, said in self._said.items() if (content, condition) not in said)

    def answered(self, content: str, condition: str) -> Answered | None:
        """The verdict on what is kept, None where a plugin is missing."""
        known = self._pictures.find(content, condition)
        if known is None or self.missing(content, condition):
            return None
        evidence = [e for said in self._said.values() for e in _unpacked(said.find(content, condition))]
        with self._lock:  # pictures are prepared in threads, and there is one fusion
            verdict = self.detector.conclude(evidence, width=known["width"], height=known["height"])
        return Answered(verdict, Traits(**known["traits"]))

    def fill(
        self,
        dataset: Dataset,
        conditions: Sequence[Condition],
        *,
        make: Callable[[str], Collecting],
        prepared: Callable[[Any, str], Picture],
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Ask every plugin about the pictures that it has not seen; those that cannot be read are passed over.

        Parameters
        ----------
        dataset : Dataset
        conditions : sequence of Condition
        make : callable
            From a plugin's name to a detector with this plugin alone; called for those only that have to be asked.
        prepared : callable
            From an item and its content's hash to the picture that is judged.
        progress : callable, optional
            Called with (pictures done, all), pictures times conditions.
        """
        from .run import content_hash, damaged
        from .shortcuts import traits

        total, done = len(dataset.items) * len(conditions), 0
        waiting: dict[str, list[tuple[str, str, Picture]]] = {name: [] for name in self._said}
        with ExitStack() as stack:
            asked: dict[str, Collecting] = {}

            def ask(name: str) -> None:
                if waiting[name] and name not in asked:
                    asked[name] = make(name)
                    stack.callback(asked[name].close)
                batch, waiting[name] = waiting[name], []
                if batch:
                    answers = asked[name].collect_many([picture for _, _, picture in batch])
                    for (content, condition, _), evidence in zip(batch, answers, strict=True):
                        if not any(isinstance(e, Failed) for e in evidence):
                            self._said[name].put(content, condition, _packed(evidence))

            for item in dataset.items:
                try:
                    content = content_hash(item)
                    wanted = {c.name: self.missing(content, c.name) for c in conditions}
                    new = [c for c in conditions if wanted[c.name] or (content, c.name) not in self._pictures]
                    picture = prepared(item, content) if content and new else None
                except (DecodeError, SettingError):
                    new, picture = [], None  # the report names it
                for condition in new if picture is not None else []:
                    assert picture is not None
                    try:
                        shown = damaged(picture, condition)
                    except (DecodeError, OSError, ValueError):
                        continue
                    known = {"width": shown.width, "height": shown.height, "traits": attrs.asdict(traits(shown))}
                    self._pictures.put(content, condition.name, known)
                    for name in wanted[condition.name]:
                        waiting[name].append((content, condition.name, shown))
                        if len(waiting[name]) >= _AT_ONCE:
                            ask(name)
                done += len(conditions)
                if progress is not None:
                    progress(done, total)
            for name in waiting:
                ask(name)

    def close(self) -> None:
        """Let go of the files."""
        self._open.close()

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _fetched() -> list[str]:
    """Weights that were fetched to this machine: they decide which model speaks where none is asked for."""
    from tellsign.weights import SPECS, path_of

    return sorted(name for name in SPECS if path_of(name).is_file())


def _packed(evidence: Sequence[Evidence]) -> dict[str, Any]:
    obj, blobs = to_parts(list(evidence))
    return {"evidence": obj, "arrays": [base64.b64encode(zlib.compress(b)).decode() for b in blobs]}


def _unpacked(answer: Mapping[str, Any]) -> list[Evidence]:
    blobs = [zlib.decompress(base64.b64decode(text)) for text in answer["arrays"]]
    found: list[Evidence] = from_parts(answer["evidence"], blobs, list[Evidence])
    return found


__all__ = ["Answered", "Collecting", "Concluding", "Kept"]

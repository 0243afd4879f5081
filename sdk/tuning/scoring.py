"""Runs the plugins over labelled pictures and keeps what they said, by content and plugin version.

The cache is one file of JSON lines per plugin and fingerprint (version, weights, columns, settings, which larger models
are on this machine), one line per picture, written as soon as it is known. A run that is killed goes on where it was;
another version of a plugin starts a file of its own; a picture that was moved or renamed is not scored again.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs

from tellsign.data.duplicates import perceptual_hash
from tellsign.data.normalise import normalise as normalised
from tellsign.decoding import Source, decode
from tellsign.detector import Detector
from tellsign.errors import DecodeError, SettingError
from tellsign.evaluation.items import Item
from tellsign.evaluation.shortcuts import Traits, traits
from tellsign.fusion.features import feature_row
from tellsign.loading import EVERY
from tellsign.schemas import Declaration, Evidence, Failed, NotApplicable, Picture, Unavailable
from tellsign.stream import Unreadable, run_ahead
from tellsign.weights.registry import SPECS
from tellsign.weights.store import home, path_of

_BATCH = 8

Values = dict[str, float]


def default_cache() -> Path:
    """Where scores are kept unless a folder is named."""
    return home() / "scores"


@attrs.frozen(kw_only=True)
class ScoredPicture:
    """What is known of one picture."""

    item: Item
    sha256: str
    """Of the file's bytes."""
    phash: int
    traits: Traits
    values: Values
    """By column of the feature row; NaN where the plugin had no answer."""
    silent: dict[str, str]
    """Plugins that failed or were not available, with the reason."""


@attrs.frozen(kw_only=True)
class Trouble:
    """One picture that could not be scored."""

    path: str
    code: str
    message: str


@attrs.frozen(kw_only=True)
class Scores:
    """What came of a data set."""

    pictures: tuple[ScoredPicture, ...]
    troubles: tuple[Trouble, ...]
    from_cache: int
    """Pictures for which no plugin had to run."""
    declarations: dict[str, Declaration]


def fingerprint(
    declaration: Declaration, settings: Mapping[str, object], *, normalise: bool, machine: bool = True
) -> str:
    """What must be the same for a plugin's scores to be the same: 16 hex digits.

    `machine` says whether the larger models that lie here matter: a plugin may speak through another one once it has
    been fetched, but not where its settings name the one.
    """
    models = sorted((name, path.stat().st_size) for name in SPECS if machine and (path := path_of(name)).is_file())
    told = [
        declaration.name,
        declaration.version,
        [(w.file, w.sha256) for w in declaration.weights],
        [attrs.astuple(c) for c in declaration.columns],
        sorted((k, repr(v)) for k, v in settings.items()),
        normalise,
        models,
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


class _Lines:
    """An append-only file of JSON lines by key; a last line that was cut off is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Any] = {}
        self._lock = threading.Lock()
        if path.is_file():
            data = path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if len(whole) < len(data):
                path.write_bytes(whole)
            for line in whole.splitlines():
                try:
                    key, value = json.loads(line)
                except ValueError:
                    continue  # A disk that filled up: the picture is scored again.
                self.known[str(key)] = value

    def add(self, key: str, value: Any) -> None:
        with self._lock:
            if key in self.known:
                return
            self.known[key] = value
            with self.path.open("ab") as file:
                file.write(json.dumps([key, value]).encode() + b"\n")


@attrs.frozen(kw_only=True)
class _Prepared:
    item: Item
    sha256: str
    picture: Picture | None
    """None where the cache knows everything."""


def score(
    items: Sequence[Item],
    *,
    plugins: Sequence[str] | None = None,
    settings: Mapping[str, Mapping[str, object]] | None = None,
    trust: Mapping[str, object] | None = None,
    device: str = "auto",
    normalise: bool = False,
    cache: Path | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    make: Callable[..., Detector] = Detector,
) -> Scores:
    """Score every picture with the installed plugins.

    Parameters
    ----------
    items : sequence of Item
    plugins : sequence of str, optional
        Names of the plugins to use; by default all that are installed.
    settings : mapping, optional
        Settings per plugin name.
    trust : mapping, optional
        What else a Detector is given: deny, commercial_only, isolate, isolate_memory, time_limit.
    device : str
    normalise : bool
        Put every picture through `tellsign.data.normalise` first, seeded by its content; by default pictures are
        scored as they are, as `detect` will see them.
    cache : Path, optional
        Folder; default `default_cache()`.
    progress : callable, optional
        Called with (pictures done, pictures in all).
    make : callable
        Makes the Detector; for tests.

    Returns
    -------
    Scores
        Pictures in their order; those that cannot be read are `troubles`.
    """
    folder = default_cache() if cache is None else cache
    folder.mkdir(parents=True, exist_ok=True)
    given = settings or {}
    options: dict[str, Any] = {"device": device, "stability_probe": False}

    with ExitStack() as stack:
        everyone = stack.enter_context(make(plugins=plugins, settings=given, **options, **(trust or {})))
        declarations = {n: d for n, d in everyone.declarations.items() if d.columns}
        if not declarations:
            raise SettingError("plugins", "at least one plugin that loads and has columns", plugins or "none installed")
        # A plugin in one file changes without another version.
        files = {r.name: r.file for r in everyone.records if r.file is not None}
        stores = {
            name: _Lines(folder / f"{name}-{fingerprint(d, told, normalise=normalise)}.jsonl")
            for name, d in declarations.items()
            for told in [dict(given.get(name, {})) | ({"": _digest(files[name])} if name in files else {})]
        }
        pictures = _Lines(folder / f"pictures-{'normalised' if normalise else 'as-is'}.jsonl")
        detectors: dict[frozenset[str], Detector] = {frozenset(declarations): everyone}
        silent: dict[str, dict[str, str]] = {}

        def missing(sha: str) -> frozenset[str]:
            return frozenset(n for n, s in stores.items() if sha not in s.known)

        def prepare(source: Item, key: str) -> _Prepared:
            data = _bytes(source)
            sha = hashlib.sha256(data).hexdigest()
            if sha in pictures.known and not missing(sha):
                return _Prepared(item=source, sha256=sha, picture=None)
            picture = decode(data)
            if sha not in pictures.known:
                about = {"phash": int(perceptual_hash(picture.pixels)), "traits": attrs.asdict(traits(picture))}
                pictures.add(sha, about)
            if normalise:
                picture = Picture(pixels=normalised(picture.pixels, int(sha[:8], 16)))
            return _Prepared(item=source, sha256=sha, picture=picture)

        def finish(batch: Sequence[_Prepared]) -> list[tuple[_Prepared, bool]]:
            by_missing: dict[frozenset[str], list[_Prepared]] = {}
            for one in batch:
                if one.picture is not None and (lacks := missing(one.sha256)):
                    by_missing.setdefault(lacks, []).append(one)
            for lacks, some in by_missing.items():
                if lacks not in detectors:
                    mine = {n: v for n, v in given.items() if n in lacks}
                    asked = [files.get(n, n) for n in sorted(lacks)]
                    more = narrowed(trust or {}, lacks)
                    detectors[lacks] = stack.enter_context(make(plugins=asked, settings=mine, **options, **more))
                answers = detectors[lacks].collect_many([p.picture for p in some if p.picture is not None])
                for one, evidence in zip(some, answers, strict=True):
                    for name in sorted(lacks):
                        values, why = _said(declarations[name], evidence)
                        if why:
                            silent.setdefault(one.sha256, {})[name] = why
                        else:
                            stores[name].add(one.sha256, values)
            return [(one, one.picture is None) for one in batch]

        found: list[ScoredPicture] = []
        troubles: list[Trouble] = []
        cached = 0
        answers = run_ahead(items, prepare, finish, batch_size=_BATCH, on_error="return", progress=progress or False)
        for item, answer in zip(items, answers, strict=True):
            if isinstance(answer, Unreadable):
                error = answer.error
                code = error.code if isinstance(error, DecodeError) else "not_scored"
                message = error.message if isinstance(error, DecodeError) else str(error)
                troubles.append(Trouble(path=item.name, code=code, message=message))
                continue
            one, free = answer
            cached += free
            values = {f"{n}.{c.name}": math.nan for n, d in declarations.items() for c in d.columns}
            for store in stores.values():
                values |= {k: math.nan if v is None else float(v) for k, v in store.known.get(one.sha256, {}).items()}
            about = pictures.known[one.sha256]
            found.append(
                ScoredPicture(
                    item=item,
                    sha256=one.sha256,
                    phash=int(about["phash"]),
                    traits=Traits(**about["traits"]),
                    values=values,
                    silent=dict(silent.get(one.sha256, {})),
                )
            )
    return Scores(pictures=tuple(found), troubles=tuple(troubles), from_cache=cached, declarations=declarations)


def narrowed(trust: Mapping[str, object], names: Collection[str]) -> dict[str, object]:
    """What of `trust` is about these plugins, for a Detector that is asked for them and no others."""
    out = {k: v for k, v in trust.items() if k not in ("deny", "isolate", "time_limit")}
    isolate, limit = trust.get("isolate"), trust.get("time_limit")
    if isinstance(isolate, Collection):
        out["isolate"] = [n for n in isolate if n == EVERY or n in names]
    if limit is not None:
        out["time_limit"] = {n: s for n, s in limit.items() if n in names} if isinstance(limit, Mapping) else limit
    return out


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _bytes(item: Item) -> bytes:
    file: Source = item.file
    if isinstance(file, bytes):
        return file
    try:
        return Path(str(file)).read_bytes()
    except FileNotFoundError as error:
        raise DecodeError("not_found", "there is no such file", str(file)) from error
    except IsADirectoryError as error:
        raise DecodeError("not_a_file", "this is a folder", str(file)) from error
    except OSError as error:
        raise DecodeError("not_readable", f"it cannot be read: {error.strerror or error}", str(file)) from error


def _said(declaration: Declaration, evidence: Sequence[Evidence]) -> tuple[dict[str, float | None], str]:
    """The plugin's numbers, None where it had none; and why it must be asked again, "" where it need not."""
    mine = [e for e in evidence if e.plugin == declaration.name]
    row = feature_row(mine, {declaration.name: declaration})
    why = next((e for e in mine if isinstance(e, Failed | Unavailable)), None)
    if why is not None:
        return {}, why.reason
    if not mine and not any(isinstance(e, NotApplicable) for e in mine):
        return {}, "gave no evidence"
    return {k: None if math.isnan(v) else v for k, v in row.items()}, ""


__all__ = ["ScoredPicture", "Scores", "Trouble", "default_cache", "fingerprint", "narrowed", "score"]

"""Finds plugins without running their code, and loads those that can be loaded.

Nothing here raises for what a plugin does wrong: what went wrong is part of the plugin's record.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from typing import Literal

import attrs
import pluggy

from tellsign.schemas import API_VERSION, Declaration
from tellsign.schemas.codec import loads

from .errors import TellsignError, TimeLimitError
from .plugin import PROJECT, DetectorPlugin, Hooks
from .worker import Worker, in_words

GROUP = "tellsign.detectors"
MANIFEST = "tellsign.json"
ALLOW_VARIABLE = "TELLSIGN_PLUGINS"
DENY_VARIABLE = "TELLSIGN_DISABLED_PLUGINS"

LOAD_LIMIT = 120.0
"""Seconds that importing and making one plugin may take; a cold import of torch from a slow disk fits in."""

State = Literal["ok", "failed", "incompatible", "disabled", "duplicate"]


@attrs.frozen
class PluginRecord:
    """What is known of one installed plugin."""

    name: str
    distribution: str
    """Name of the installed package that brings it."""
    version: str
    """Of the distribution."""
    module: str
    state: State
    reason: str = ""
    """Why the state is not "ok", in words."""
    declaration: Declaration | None = None
    """None where it could not be read."""


class _RefusedError(TellsignError):
    """Why a plugin is not taken; becomes the record's reason."""

    def __init__(self, reason: str, state: State = "failed") -> None:
        self.state: State = state
        super().__init__(reason)


def discover(
    *,
    allow: Collection[str] | None = None,
    deny: Collection[str] | None = None,
    group: str = GROUP,
    environ: Mapping[str, str] = os.environ,
) -> tuple[PluginRecord, ...]:
    """List the installed plugins, sorted by name, without importing more than their parent packages.

    Parameters
    ----------
    allow : collection of str, optional
        Names that may run; None means all, an empty one means none.
    deny : collection of str, optional
        Names that may not.
    group : str
        Group of the entry points.
    environ : mapping
        `TELLSIGN_PLUGINS` allows (a comma list; set but empty means none) and `TELLSIGN_DISABLED_PLUGINS` denies.
        A plugin must pass both the parameters and the environment.
    """
    gates = [
        (None if allow is None else set(allow), "not among the plugins that were asked for"),
        (_listed(environ.get(ALLOW_VARIABLE)), f"not in {ALLOW_VARIABLE}"),
    ]
    denied = dict.fromkeys(_listed(environ.get(DENY_VARIABLE)) or (), f"in {DENY_VARIABLE}")
    denied |= dict.fromkeys(deny or (), "in the list of plugins not to use")

    def why_not(name: str) -> str:
        return denied.get(name) or next((why for names, why in gates if names is not None and name not in names), "")

    records = []
    for distribution, entry in _entries(group):
        record = PluginRecord(
            entry.name, distribution.metadata["Name"], distribution.version, entry.value.partition(":")[0], "ok"
        )
        records.append(_read(record, why_not(entry.name)))
    records.sort(key=lambda r: (r.name, r.distribution, r.module))
    return all_or_nothing(_mark_duplicates(records))


def _listed(text: str | None) -> set[str] | None:
    return None if text is None else {part.strip() for part in text.split(",") if part.strip()}


def _entries(group: str) -> Iterator[tuple[Distribution, EntryPoint]]:
    """Entry points of the group; one distribution with broken metadata does not hide the others."""
    seen: set[str] = set()
    for distribution in distributions():
        try:
            entries = list(distribution.entry_points.select(group=group))
            if not entries or not distribution.version:
                continue
            name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
            if name in seen:  # shadowed by one that comes earlier on the path, as in imports
                continue
        except Exception:  # no name, no version, or a file that is no metadata: not an installed plugin
            continue
        seen.add(name)
        yield from ((distribution, entry) for entry in entries)


def _read(record: PluginRecord, disabled: str) -> PluginRecord:
    """The record with its declaration, or with why there is none."""
    try:
        declaration = _declaration(record)
    except Exception as error:
        refused = error if isinstance(error, _RefusedError) else _RefusedError(in_words(error))
        record = attrs.evolve(record, state=refused.state, reason=str(refused))
    else:
        record = attrs.evolve(record, declaration=declaration)
    return attrs.evolve(record, state="disabled", reason=disabled) if disabled else record


def _declaration(record: PluginRecord) -> Declaration:
    spec = importlib.util.find_spec(record.module)
    if spec is None or not spec.origin:
        raise _RefusedError(f"the entry point names the module {record.module!r}, which is not there")
    path = Path(spec.origin).parent / MANIFEST
    if not path.is_file():
        raise _RefusedError(f"no {MANIFEST} beside the module {record.module!r}")
    text = path.read_text(encoding="utf-8")
    _check_api_version(record, json.loads(text))
    declaration = loads(text, Declaration)
    if declaration.name != record.name:
        raise _RefusedError(f"the entry point is called {record.name!r}, but {MANIFEST} says {declaration.name!r}")
    return declaration


def _check_api_version(record: PluginRecord, manifest: object) -> None:
    """Before the manifest is parsed: one of another version may well have other fields."""
    wanted = manifest.get("api_version") if isinstance(manifest, dict) else None
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted == API_VERSION:
        return
    cure = f"upgrade {PROJECT}" if wanted > API_VERSION else f"upgrade {record.distribution}"
    raise _RefusedError(
        f"written for version {wanted} of the plugin API, this {PROJECT} speaks version {API_VERSION}: {cure}",
        "incompatible",
    )


def _mark_duplicates(records: Iterable[PluginRecord]) -> list[PluginRecord]:
    """Of several plugins with one name none is taken: which one ran would depend on the order of the path."""
    records = list(records)
    owners: dict[str, list[str]] = {}
    for record in records:
        if record.state != "disabled":
            owners.setdefault(record.name, []).append(f"{record.distribution} {record.version}")
    return [
        record
        if record.state == "disabled" or len(owners[record.name]) == 1
        else attrs.evolve(
            record,
            state="duplicate",
            reason=f"the name {record.name!r} is taken by {' and by '.join(owners[record.name])}: remove one of them",
        )
        for record in records
    ]


def all_or_nothing(records: Iterable[PluginRecord]) -> tuple[PluginRecord, ...]:
    """Fail every plugin of a distribution of which one failed: half a distribution is a thing nobody tested."""
    records = tuple(records)
    broken: dict[str, str] = {}
    for record in records:
        if record.state in ("failed", "incompatible"):
            broken.setdefault(record.distribution, record.name)
    return tuple(
        attrs.evolve(
            record,
            state="failed",
            reason=f"{broken[record.distribution]!r} of the same distribution {record.distribution!r} cannot be used",
        )
        if record.state == "ok" and record.distribution in broken
        else record
        for record in records
    )


class Host:
    """Loads plugins into a pluggy manager of its own.

    Parameters
    ----------
    settings : mapping
        Settings per plugin name.
    load_limit : float
        Seconds that one plugin may take to import and to be made.
    """

    def __init__(
        self, *, settings: Mapping[str, Mapping[str, object]] | None = None, load_limit: float = LOAD_LIMIT
    ) -> None:
        self.manager = pluggy.PluginManager(PROJECT)
        self.manager.add_hookspecs(Hooks)
        self.load_limit = load_limit
        self._settings = dict(settings or {})
        self._records: tuple[PluginRecord, ...] = ()

    @property
    def records(self) -> tuple[PluginRecord, ...]:
        """The records that `load` was given, with what became of them."""
        return self._records

    def load(self, records: Iterable[PluginRecord]) -> dict[str, DetectorPlugin]:
        """Import and make every plugin whose state is "ok", one by one.

        Returns
        -------
        dict
            The detectors by name, sorted; `records` says why the others are not there.
        """
        made: dict[str, DetectorPlugin] = {}
        after = []
        for record in sorted(records, key=lambda r: (r.name, r.distribution, r.module)):
            if record.state == "ok":
                outcome = self._load_within_limit(record)
                if isinstance(outcome, str):
                    record = attrs.evolve(record, state="failed", reason=outcome)
                else:
                    made[record.name] = outcome
            after.append(record)
        self._records = all_or_nothing(after)
        for record in self._records:
            if record.state != "ok" and made.pop(record.name, None) is not None:
                self.manager.unregister(name=record.name)
        return made

    def _load_within_limit(self, record: PluginRecord) -> DetectorPlugin | str:
        """The detector, or why there is none."""
        worker = Worker(f"load-{record.name}")
        try:
            outcome = worker.call(lambda: self._load(record), self.load_limit)
        except TimeLimitError:
            return f"it did not load within {self.load_limit:g} s"
        finally:
            worker.close()
        if isinstance(outcome.value, DetectorPlugin):
            return outcome.value
        if self.manager.has_plugin(record.name):
            self.manager.unregister(name=record.name)
        error = outcome.error
        return str(error) if isinstance(error, _RefusedError) else in_words(error)

    def _load(self, record: PluginRecord) -> DetectorPlugin:
        assert record.declaration is not None
        module = importlib.import_module(record.module)
        if self.manager.register(module, record.name) is None:
            raise _RefusedError("its registration is blocked")
        self._check_hooks(module)
        others = [p for p in self.manager.get_plugins() if p is not module]
        classes = self.manager.subset_hook_caller("tellsign_detector", others)()
        if len(classes) != 1:
            raise _RefusedError(f"the module {record.module!r} must implement the hook tellsign_detector, once")
        return _checked(classes[0], record.declaration)(record.declaration, dict(self._settings.get(record.name, {})))

    def _check_hooks(self, module: object) -> None:
        """Refuse hooks that do not exist: a misspelt one would silently never be called."""
        try:
            self.manager.check_pending()
        except pluggy.PluginValidationError as error:
            known = [name for name in vars(Hooks) if not name.startswith("_")]
            unknown = [h.name for h in self.manager.get_hookcallers(module) or () if not h.has_spec()]
            guesses = [g for name in unknown for g in get_close_matches(name, known, n=1)]
            hint = f"; did you mean {guesses[0]!r}?" if guesses else f"; the hooks are {known}"
            raise _RefusedError(f"{error}{hint}") from error


def _checked(found: object, declaration: Declaration) -> type[DetectorPlugin]:
    """The class that the hook returned, if it is the one that the manifest declares."""
    if not inspect.isclass(found) or not issubclass(found, DetectorPlugin):
        raise _RefusedError(f"the hook must return a subclass of DetectorPlugin, got {found!r}")
    path = f"{found.__module__}:{found.__qualname__}"
    if path != declaration.detector:
        raise _RefusedError(f"{MANIFEST} declares the detector {declaration.detector!r}, the hook returned {path!r}")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise _RefusedError(f"the class {path!r} does not implement {missing}")
    try:
        inspect.signature(found.detect).bind(None, (), None)
    except TypeError as error:
        raise _RefusedError(f"{path}.detect must take (views, runtime): {error}") from error
    return found


__all__ = ["GROUP", "MANIFEST", "Host", "PluginRecord", "all_or_nothing", "discover"]

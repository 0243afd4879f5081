"""Finds plugins without running their code, and loads those that can be loaded.

Nothing here raises for what a plugin does wrong: what went wrong is part of the plugin's record.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from typing import Literal

import attrs
import pluggy

from tellsign.schemas import API_VERSION, Declaration
from tellsign.schemas.codec import loads

from . import onefile
from .errors import SettingError, TellsignError, TimeLimitError
from .plugin import PROJECT, DetectorPlugin, Hooks
from .weights.registry import SPECS
from .worker import Worker, in_words

GROUP = "tellsign.detectors"
MANIFEST = "tellsign.json"
ALLOW_VARIABLE = "TELLSIGN_PLUGINS"
DENY_VARIABLE = "TELLSIGN_DISABLED_PLUGINS"
COMMERCIAL_VARIABLE = "TELLSIGN_COMMERCIAL_ONLY"

OLDEST_API_VERSION = 1
"""Oldest version of the contract with plugins that this host still keeps to; the newest is `API_VERSION`."""

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
    file: Path | None = None
    """Set for a plugin in one file (`tellsign.onefile`), which no distribution brings."""

    @property
    def folder(self) -> Path | None:
        """Where its declaration lies, to which the weights' paths are relative; None where that is not known."""
        if self.file is not None:
            return self.file.parent
        spec = find_spec(self.module)
        return None if spec is None or not spec.origin else Path(spec.origin).parent


class _RefusedError(TellsignError):
    """Why a plugin is not taken; becomes the record's reason."""

    def __init__(self, reason: str, state: State = "failed") -> None:
        self.state: State = state
        super().__init__(reason)


def discover(
    *,
    allow: Collection[str] | None = None,
    deny: Collection[str] | None = None,
    files: Iterable[str | os.PathLike[str]] = (),
    commercial_only: bool = False,
    group: str = GROUP,
    environ: Mapping[str, str] = os.environ,
) -> tuple[PluginRecord, ...]:
    """List the installed plugins, sorted by name, without importing anything of theirs.

    Parameters
    ----------
    allow : collection of str, optional
        Names of the installed ones that may run; None means all, an empty one means none.
    deny : collection of str, optional
        Names that may not.
    files : iterable of path
        Plugins in one file each, which nobody has installed: asked for by being here, and held to the other lists.
    commercial_only : bool
        Disable what its own declaration, or the licence of weights that it shares, does not allow to be used
        commercially.
    group : str
        Group of the entry points.
    environ : mapping
        `TELLSIGN_PLUGINS` allows (a comma list; set but empty means none) and `TELLSIGN_DISABLED_PLUGINS` denies.
        `TELLSIGN_COMMERCIAL_ONLY` set to 1 is `commercial_only`. A plugin must pass both the parameters and the
        environment.
    """
    commercial_only = commercial_only or switched_on(COMMERCIAL_VARIABLE, environ)
    asked = None if allow is None else set(allow)
    permitted = listed(environ.get(ALLOW_VARIABLE))
    denied = dict.fromkeys(listed(environ.get(DENY_VARIABLE)) or (), f"in {DENY_VARIABLE}")
    denied |= dict.fromkeys(deny or (), "in the list of plugins not to use")

    def why_not(record: PluginRecord) -> str:
        name = record.name
        if name in denied:
            return denied[name]
        if asked is not None and record.file is None and name not in asked:
            return "not among the plugins that were asked for"
        return "" if permitted is None or name in permitted else f"not in {ALLOW_VARIABLE}"

    records = []
    for distribution, entry in _entries(group):
        record = PluginRecord(
            entry.name, distribution.metadata["Name"], distribution.version, entry.value.partition(":")[0], "ok"
        )
        records.append(_read(record, why_not))
    for file in map(Path, files):
        alone = PluginRecord(onefile.name_of(file), str(file), "", onefile.module_of(file), "ok", file=file.absolute())
        records.append(_read(alone, why_not))
    if commercial_only:
        records = [_commercial(record) for record in records]
    records.sort(key=lambda r: (r.name, r.distribution, r.module))
    return all_or_nothing(_mark_duplicates(records))


def _commercial(record: PluginRecord) -> PluginRecord:
    declared = record.declaration
    if record.state == "disabled" or declared is None:
        return record
    if not declared.commercial_use:
        licences = f"code {declared.code_licence}, weights {declared.weights_licence}"
        return attrs.evolve(record, state="disabled", reason=f"its licences ({licences}) allow no commercial use")
    shared = [SPECS[name] for name in declared.shared_weights if name in SPECS]
    barred = [f"{spec.name} ({spec.licence})" for spec in shared if not spec.commercial_use]
    if not barred:
        return record
    return attrs.evolve(
        record, state="disabled", reason=f"it uses weights that allow no commercial use: {', '.join(barred)}"
    )


def switched_on(variable: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether an environment variable says yes.

    Raises
    ------
    SettingError
        It says neither yes nor no.
    """
    text = environ.get(variable, "").strip().lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("", "0", "false", "no", "off"):
        return False
    raise SettingError(variable, "1 or 0", environ[variable])


def listed(text: str | None) -> set[str] | None:
    """The names in a comma list; None where there is no list."""
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


def find_spec(module: str) -> ModuleSpec | None:
    """`importlib.util.find_spec` without running the parent packages: nothing of a plugin runs before it is wanted."""
    path = None
    spec = None
    for end in [match.end() for match in re.finditer(r"[^.]+", module)]:
        found = (finder.find_spec(module[:end], path) for finder in sys.meta_path)
        spec = next((s for s in found if s is not None), None)
        if spec is None:
            return None
        # One that is imported already may have changed its path; nothing is imported here for that.
        path = getattr(sys.modules.get(module[:end]), "__path__", spec.submodule_search_locations)
    return spec


def _read(record: PluginRecord, why_not: Callable[[PluginRecord], str]) -> PluginRecord:
    """The record with its declaration, or with why there is none."""
    try:
        declaration = _declaration(record) if record.file is None else onefile.declaration_of(record.file)
        if strange := [name for name in declaration.shared_weights if name not in SPECS]:
            known = ", ".join(sorted(SPECS))
            raise _RefusedError(f"it shares the weights {', '.join(strange)}, and this {PROJECT} knows {known}")
    except Exception as error:
        refused = error if isinstance(error, _RefusedError) else _RefusedError(in_words(error))
        record = attrs.evolve(record, state=refused.state, reason=str(refused))
    else:
        record = attrs.evolve(record, declaration=declaration)
        if record.file is not None:
            record = attrs.evolve(record, name=declaration.name, version=declaration.version)
    disabled = why_not(record)
    return attrs.evolve(record, state="disabled", reason=disabled) if disabled else record


def _declaration(record: PluginRecord) -> Declaration:
    spec = find_spec(record.module)
    if spec is None or not spec.origin:
        raise _RefusedError(f"the entry point names the module {record.module!r}, which is not there")
    path = Path(spec.origin).parent / MANIFEST
    if not path.is_file():
        raise _RefusedError(f"no {MANIFEST} beside the module {record.module!r}")
    text = path.read_text(encoding="utf-8")
    version = _negotiated(record, json.loads(text))
    declaration = loads(text, Declaration)
    if version is not None:
        declaration = attrs.evolve(declaration, api_version=version)
    if declaration.name != record.name:
        raise _RefusedError(f"the entry point is called {record.name!r}, but {MANIFEST} says {declaration.name!r}")
    return declaration


def _negotiated(record: PluginRecord, manifest: object) -> int | None:
    """The highest version of the contract that both speak; None where the manifest says none, which its parser tells.

    Before the manifest is parsed: one of another version may well have other fields.
    """
    said = manifest if isinstance(manifest, dict) else {}
    older = said.get("older_api_versions", [])
    offered = [said.get("api_version"), *(older if isinstance(older, list) else ())]
    if not all(type(version) is int for version in offered):
        return None
    ours = range(OLDEST_API_VERSION, API_VERSION + 1)
    both = [version for version in offered if version in ours]
    if both:
        return int(max(both))
    cure = f"upgrade {PROJECT}" if min(offered) > API_VERSION else f"upgrade {record.distribution}"
    raise _RefusedError(
        f"written for {_versions(offered)} of the plugin API, this {PROJECT} speaks {_versions(ours)}: {cure}",
        "incompatible",
    )


def _versions(numbers: Iterable[int]) -> str:
    *rest, last = sorted(numbers)
    return f"versions {', '.join(map(str, rest))} and {last}" if rest else f"version {last}"


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

        Raises
        ------
        SettingError
            A plugin refuses the settings that it was given: whoever gave them should hear of it, and not get verdicts
            without the plugin.
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
        given = self._settings.get(record.name)
        if given and isinstance(error, SettingError):
            parameter = f"{record.name}.{error.parameter}" if error.parameter in given else error.parameter
            raise SettingError(parameter, error.allowed, error.got) from error
        return str(error) if isinstance(error, _RefusedError) else in_words(error)

    def _load(self, record: PluginRecord) -> DetectorPlugin:
        assert record.declaration is not None
        if record.file is not None:
            found = onefile.load(record.file, record.declaration)
            return self._make(found, record.declaration)
        module = importlib.import_module(record.module)
        if self.manager.register(module, record.name) is None:
            raise _RefusedError("its registration is blocked")
        self._check_hooks(module)
        others = [p for p in self.manager.get_plugins() if p is not module]
        classes = self.manager.subset_hook_caller("tellsign_detector", others)()
        if len(classes) != 1:
            raise _RefusedError(f"the module {record.module!r} must implement the hook tellsign_detector, once")
        return self._make(classes[0], record.declaration)

    def _make(self, found: object, declaration: Declaration) -> DetectorPlugin:
        return _checked(found, declaration)(declaration, dict(self._settings.get(declaration.name, {})))

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


__all__ = [
    "GROUP",
    "MANIFEST",
    "OLDEST_API_VERSION",
    "Host",
    "PluginRecord",
    "all_or_nothing",
    "discover",
    "find_spec",
    "listed",
    "switched_on",
]

"""From what is installed to the plugins that a Detector runs."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

import attrs

from tellsign.schemas import Notice

from .errors import PluginError, PluginLoadError, SettingError
from .guard import Guard
from .host import Host, PluginRecord, all_or_nothing, discover, listed
from .onefile import is_file
from .runtime import DeviceRuntime

BROKEN = ("failed", "incompatible", "duplicate")
"""States of an installed plugin that its user should hear of; "disabled" is wanted."""

ISOLATE_VARIABLE = "TELLSIGN_ISOLATE"
EVERY = "*"
"""Stands for every plugin where the names of those to isolate are asked for."""


def load_guards(
    runtime: DeviceRuntime,
    plugins: Collection[str | os.PathLike[str]] | None,
    settings: Mapping[str, Mapping[str, object]],
    *,
    time_limit: float | Mapping[str, float] | None,
    strict: bool,
    deny: Collection[str] = (),
    isolate: Collection[str] = (),
    isolate_memory: int | None = None,
    commercial_only: bool = False,
) -> tuple[tuple[Guard, ...], tuple[PluginRecord, ...]]:
    """Find, load and set up plugins; the parameters are those of `Detector`.

    Returns
    -------
    tuple of Guard
        The plugins that can be asked, sorted by name.
    tuple of PluginRecord
        Everything that is installed, with why the others are not among them.

    Raises
    ------
    SettingError
        A parameter names a plugin that is not installed, or a plugin refuses the settings that it was given.
    PluginLoadError
        Only when `strict`: a plugin cannot be loaded.
    """
    found = _found(plugins, deny, commercial_only)
    names = [p for p in plugins or () if isinstance(p, str) and not is_file(p)]
    limits = time_limit if isinstance(time_limit, Mapping) else {}
    for parameter, named in (("plugins", names), ("deny", deny), ("settings", settings), ("time_limit", limits)):
        _check_names(parameter, named, found)
    _check_names("isolate", set(isolate) - {EVERY}, found)
    apart = {*isolate, *(listed(os.environ.get(ISOLATE_VARIABLE)) or ())}
    elsewhere = [r for r in found if apart & {r.name, EVERY}]
    host = Host(settings=settings)
    made = host.load(r for r in found if r not in elsewhere)
    guards, records = [], []
    for record in all_or_nothing(sorted([*host.records, *elsewhere], key=lambda r: (r.name, r.distribution, r.module))):
        if record.state == "ok":
            limit = limits.get(record.name) if isinstance(time_limit, Mapping) else time_limit
            guard = (
                _isolated(record, settings, runtime, limit, strict, isolate_memory)
                if record in elsewhere
                else Guard(made[record.name], runtime, time_limit=limit, strict=strict)
            )
            try:
                guard.setup()
            except PluginError as error:
                guard.close()
                record = attrs.evolve(record, state="failed", reason=error.message)
            else:
                guards.append(guard)
        if strict and record.state in BROKEN:
            raise PluginLoadError(record.name, record.reason)
        records.append(record)
    return tuple(guards), tuple(records)


def _found(
    plugins: Collection[str | os.PathLike[str]] | None, deny: Collection[str], commercial_only: bool
) -> tuple[PluginRecord, ...]:
    names = None if plugins is None else {p for p in plugins if isinstance(p, str) and not is_file(p)}
    files = [Path(p) for p in plugins or () if is_file(p)]
    return discover(allow=names, deny=deny, files=files, commercial_only=commercial_only)


def _isolated(
    record: PluginRecord,
    settings: Mapping[str, Mapping[str, object]],
    runtime: DeviceRuntime,
    time_limit: float | None,
    strict: bool,
    memory: int | None,
) -> Guard:
    from .isolation.guard import IsolatedGuard
    from .isolation.limits import half_of_the_machine
    from .isolation.remote import RemotePlugin

    limit = half_of_the_machine() if memory is None else memory
    plugin = RemotePlugin(record, dict(settings.get(record.name, {})), memory_limit=limit)
    return IsolatedGuard(plugin, runtime, time_limit=time_limit, strict=strict)


def not_loaded(records: Iterable[PluginRecord]) -> tuple[Notice, ...]:
    """What every verdict warns of: plugins that are installed and wanted, and could not be loaded."""
    return tuple(
        Notice(code="plugin_not_loaded", message=f"{r.name} was not loaded: {r.reason}", plugin=r.name)
        for r in records
        if r.state in BROKEN
    )


def _check_names(parameter: str, names: Iterable[str], found: Iterable[PluginRecord]) -> None:
    installed = sorted({record.name for record in found})
    for name in names:
        if name not in installed:
            guess = get_close_matches(str(name), installed, n=1)
            hint = f" (did you mean {guess[0]!r}?)" if guess else ""
            raise SettingError(parameter, f"names of installed plugins, which are {installed}{hint}", name)


__all__ = ["load_guards", "not_loaded"]

"""From what is installed to the plugins that a Detector runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches

import attrs

from tellsign.schemas import Notice

from .errors import PluginError, PluginLoadError, SettingError
from .guard import Guard
from .host import Host, PluginRecord, discover
from .runtime import DeviceRuntime

BROKEN = ("failed", "incompatible", "duplicate")
"""States of an installed plugin that its user should hear of; "disabled" is wanted."""


def load_guards(
    runtime: DeviceRuntime,
    plugins: Collection[str] | None,
    settings: Mapping[str, Mapping[str, object]],
    *,
    time_limit: float | None,
    strict: bool,
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
        `plugins` or `settings` name a plugin that is not installed.
    PluginLoadError
        Only when `strict`: a plugin cannot be loaded.
    """
    found = discover(allow=plugins)
    _check_names("plugins", plugins or (), found)
    _check_names("settings", settings, found)
    host = Host(settings=settings)
    made = host.load(found)
    guards, records = [], []
    for record in host.records:
        if record.state == "ok":
            guard = Guard(made[record.name], runtime, time_limit=time_limit, strict=strict)
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

"""Writes a new plugin: a package, or one file for a trial."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from tellsign.errors import SettingError
from tellsign.host import discover
from tellsign.schemas import API_VERSION, Declaration, InvalidValueError, Task

from .template import one_file, texts


def new(
    name: str,
    *,
    task: Task = Task.PIXEL,
    folder: str | os.PathLike[str] = ".",
    single: bool = False,
) -> tuple[Path, ...]:
    """Write a plugin that works as it stands.

    Parameters
    ----------
    name : str
        The plugin's: 1 to 40 of a-z, 0-9, _ and -, the first a letter.
    task : Task
        What it looks at.
    folder : path
        Where the package's folder `tellsign-<name>` goes, or the file `<name>.py`.
    single : bool
        One file and no package.

    Returns
    -------
    tuple of Path
        What was written.

    Raises
    ------
    SettingError
        The name is not allowed or is taken by an installed plugin, or what would be written is there already.
    """
    _check(name)
    where = Path(folder)
    if not where.is_dir():
        raise SettingError("folder", "a folder that is there", str(folder))
    if single:
        files = {where / f"{name.replace('-', '_')}.py": one_file(name, task)}
    else:
        base = where / f"tellsign-{name}"
        if base.exists():
            raise SettingError("name", f"one whose folder is not there yet ({base})", name)
        files = {base / path: text for path, text in texts(name, task, API_VERSION).items()}
    for path in files:
        if path.exists():
            raise SettingError("name", f"one whose file is not there yet ({path})", name)
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tuple(files)


def _check(name: str) -> None:
    field = attrs.fields_dict(Declaration)["name"]
    try:
        assert field.validator is not None
        field.validator(None, field, name)
    except InvalidValueError as error:
        raise SettingError("name", error.allowed, name) from None
    for record in discover(environ={}):
        if record.name == name:
            raise SettingError("name", f"one that no installed plugin has ({record.distribution} brings it)", name)


__all__ = ["new"]

"""Labelled pictures of anyone's: a CSV with a path and a label per row."""

from __future__ import annotations

import csv
from pathlib import Path

import attrs

from tellsign.errors import SettingError


@attrs.frozen(kw_only=True)
class LabelledPicture:
    """A picture whose truth is known."""

    path: Path
    fake: bool
    """Made by AI."""
    group: str
    """Pictures that share content share it."""


def read_labelled(file: Path) -> list[LabelledPicture]:
    """Read labelled pictures.

    Parameters
    ----------
    file : Path
        A CSV with the columns `path` (relative to its folder, or absolute), `label` (1 = made by AI, 0 = real) and, if
        there is one, `group`; other columns are ignored.

    Returns
    -------
    list of LabelledPicture
        In the file's order. Without a group each picture is its own.

    Raises
    ------
    SettingError
        The file is not there, a column is missing, or a label is neither 0 nor 1.
    """
    if not file.is_file():
        raise SettingError("pictures", "a CSV file", str(file))
    with file.open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        if missing := {"path", "label"} - set(reader.fieldnames or ()):
            raise SettingError("pictures", "a CSV with the columns path and label", f"one without {sorted(missing)}")
        out = []
        for row in reader:
            if row["label"] not in ("0", "1"):
                raise SettingError(f"label of {row['path']}", "0 (real) or 1 (made by AI)", row["label"])
            path = file.parent / row["path"]
            out.append(LabelledPicture(path=path, fake=row["label"] == "1", group=row.get("group") or row["path"]))
    return out

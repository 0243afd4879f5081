"""Rows of a folder that `tellsign forge` filled."""

from __future__ import annotations

import csv
from pathlib import Path

from tellsign.errors import SettingError

from .rows import PictureRow

_NEEDED = ("path", "cls", "kind", "tool", "ai_mask", "ma_mask", "group", "source")


def read_forged(folder: Path, split: str) -> list[PictureRow]:
    """Read a forgery manifest.

    Parameters
    ----------
    folder : Path
        With `manifest.csv`.
    split : str
        The split of the pictures that were forged.

    Returns
    -------
    list of PictureRow
        `label` 1 where the AI mask is not empty, `tampered` 1 where pixels were moved, pasted or painted without a
        neural network, `edited` 1 where only a part is synthesised. `source` is the base's collection for pictures
        without synthesised pixels, else "kind/tool".

    Raises
    ------
    SettingError
        No manifest, or one without the columns needed.
    """
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        raise SettingError("forged", "a folder with manifest.csv", str(folder))
    with manifest.open(newline="") as handle:
        reader = csv.DictReader(handle)
        missing = [x for x in _NEEDED if x not in (reader.fieldnames or ())]
        if missing:
            raise SettingError("forged", f"a manifest with the columns {', '.join(_NEEDED)}", f"none of {missing}")
        return [_row(folder, line, split) for line in reader]


def _row(folder: Path, line: dict[str, str], split: str) -> PictureRow:
    ai, moved = bool(line["ai_mask"]), bool(line["ma_mask"])
    return PictureRow(
        path=folder / line["path"],
        label=int(ai),
        source=f"{line['kind']}/{line['tool']}" if ai else line["source"],
        content="photo",
        group=line["group"],
        split=split,
        # Whether an AI edit is tampering as well is not asked: the label table puts AI first.
        tampered=-1 if ai else int(moved),
        edited=int(ai and line["ai_mask"] != "ones"),
        forged=True,
    )

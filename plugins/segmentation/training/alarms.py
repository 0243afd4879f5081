"""How often the manipulation map is sure of itself, from the score table that the default fusion is trained on."""

from __future__ import annotations

import csv
from pathlib import Path

COLUMN = "segmentation.manipulation_top"
TAMPERED = "tampered with by hand"


def alarmed(table: Path, cut: float) -> dict[str, tuple[int, int]]:
    """Pictures whose map's highest hundredth reaches a cut.

    Parameters
    ----------
    table : Path
        CSV with `segmentation.manipulation_top`, label, source, tampered and group; a picture that stands there more
        than once with the same number counts once.
    cut : float
        In [0, 1].

    Returns
    -------
    dict of str to (int, int)
        Above the cut and in all: by source of photographs that nobody touched, all of them together, generated pictures
        together, and those tampered with.

    Raises
    ------
    ValueError
        The table lacks a column.
    """
    with table.open(newline="") as handle:
        reader = csv.DictReader(handle)
        missing = {COLUMN, "label", "source", "tampered", "group"} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{table} takes a table with the columns {sorted(missing)}")
        seen = {
            (row["group"], row["source"], row["label"], row["tampered"], row[COLUMN]) for row in reader if row[COLUMN]
        }
    found: dict[str, list[bool]] = {}
    for _, source, label, tampered, value in sorted(seen):
        names = ["generated"] if label == "1" else [TAMPERED] if tampered == "1" else [source, "photographs, all"]
        for name in names:
            found.setdefault(name, []).append(float(value) >= cut)
    return {name: (sum(above), len(above)) for name, above in found.items()}


__all__ = ["alarmed"]

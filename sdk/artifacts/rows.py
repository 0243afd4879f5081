"""Pictures whose artifacts are marked, to learn from: X-AIGD's rows, or forgeries that stand in for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.decoding import decode
from tellsign.evaluation.dataset import load
from tellsign.evaluation.items import FAKE, DataError, Item
from tellsign.evaluation.truth import Shapes
from tellsign.forge.manifest import NAME, ONES, ForgedRow, read_manifest
from tellsign.forge.manifest import load as load_forged
from tellsign.schemas import Category

from .annotations import CATEGORIES, category_masks

Loaded = tuple[NDArray[np.uint8], NDArray[np.bool_]]
LAYOUTS = ("x-aigd", "x-aigd-json")


@attrs.frozen(kw_only=True)
class MarkedPicture:
    """One picture and what is known of its artifacts."""

    name: str
    label: int
    """1 generated (or edited by a network), 0 real."""
    source: str
    group: str
    """Pictures of one group are never parted by a split."""
    known: bool
    """Whether its artifacts are marked. Real pictures have none, and that is known; a generated picture that nobody
    annotated has some, and nobody knows where."""
    local: bool = False
    """Whether only what is marked is made by a network, so that a piece beside it is real. False for X-AIGD's pictures,
    which are generated as a whole."""
    read: Callable[[], Loaded] = attrs.field(eq=False, repr=False)

    def load(self) -> Loaded:
        """Pixels, uint8 (H, W, 3), and the masks of `CATEGORIES`, bool (7, H, W)."""
        return self.read()


def marked_pictures(
    data: Path,
    *,
    split: str | None = None,
    reals: Path | None = None,
    standing_for: Category = Category.TEXTURE,
) -> list[MarkedPicture]:
    """Read pictures with marked artifacts.

    Parameters
    ----------
    data : Path
        X-AIGD as the hub has it or exported (`tellsign.evaluation.layouts`), or a folder that `tellsign forge` wrote.
    split : str, optional
        Of X-AIGD; pictures of the unlabelled splits are not known.
    reals : Path, optional
        A folder of real pictures; X-AIGD brings none.
    standing_for : Category
        Whose mask a forged region becomes. A stand-in, to run a recipe without X-AIGD: an inpainted region is no
        artifact that a person saw.

    Returns
    -------
    list of MarkedPicture

    Raises
    ------
    DataError
        DATA is neither.
    """
    if data.is_dir() and (data / NAME).is_file():
        return [_forged(data, row, standing_for) for row in read_manifest(data)]
    dataset = load(data, split=split, reals=reals)
    if dataset.layout not in LAYOUTS:
        raise DataError(f"{data} was read as {dataset.layout}; X-AIGD's rows or a forged folder are needed.")
    return [_annotated(item, dataset.split) for item in dataset.items]


def _annotated(item: Item, split: str | None) -> MarkedPicture:
    real = item.label != FAKE
    known = real or (isinstance(item.truth, Shapes) and not (split or "").startswith("unlabeled"))

    def read() -> Loaded:
        pixels = decode(item.file).pixels
        height, width = pixels.shape[:2]
        try:
            shapes = item.truth if isinstance(item.truth, Shapes) else Shapes()
            return pixels, category_masks(shapes, height, width)
        except ValueError as error:
            raise DataError(f"{item.name}: {error}.") from error

    return MarkedPicture(
        name=item.name, label=int(not real), source=item.source, group=item.group, known=known, read=read
    )


def _forged(folder: Path, row: ForgedRow, standing_for: Category) -> MarkedPicture:
    def read() -> Loaded:
        pixels, ai, _ = load_forged(folder, row)
        masks = np.zeros((len(CATEGORIES), *ai.shape), bool)
        masks[CATEGORIES.index(standing_for)] = ai
        return pixels, masks

    # A picture that is generated as a whole has no region that could stand for an artifact.
    known = row.ai_mask != ONES and bool(row.ai_loss)
    local = row.ai_mask not in ("", ONES)
    # Moved pixels are real ones.
    label = int(bool(row.ai_mask))
    return MarkedPicture(
        name=row.id, label=label, source=row.source, group=row.group, known=known, local=local, read=read
    )

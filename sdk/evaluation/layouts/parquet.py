"""Data sets that are published as parquet: OpenSDI, Community Forensics, X-AIGD, and copies with image and label.

pyarrow is needed, which the extra `eval` brings. Pictures are read a few rows at a time, in the order of the file; the
row groups of these files hold up to a gigabyte each.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import attrs

from tellsign.errors import DecodeError
from tellsign.evaluation.items import DataError, Item
from tellsign.evaluation.truth import MaskPicture, Nothing, Shapes

from .artifacts import names, polygons, slips
from .layout import FAKE, MARKED, REAL, SHAPED, Options, Reading, Signs, listed
from .tree import Tree

BATCH = 16
"""Rows that are in memory at once, per file and column."""
OPEN = 4
"""Files and columns that stay open."""


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            "DATA is in parquet files, and pyarrow, which reads them, is not installed: pip install 'tellsign[eval]'."
        ) from error
    return pyarrow.parquet


class _Column:
    """One column of one file, read forwards; going back starts again."""

    def __init__(self, path: Path, column: str) -> None:
        self.path, self.column = path, column
        self._start()

    def _start(self) -> None:
        self._file = _pyarrow().ParquetFile(self.path, memory_map=False)
        self._batches: Iterator[Any] = self._file.iter_batches(batch_size=BATCH, columns=[self.column])
        self._first, self._values = 0, None

    def at(self, row: int) -> bytes:
        """The file in a cell."""
        if row < self._first:
            self._start()
        while self._values is None or row >= self._first + len(self._values):
            self._first += 0 if self._values is None else len(self._values)
            try:
                self._values = next(self._batches).column(0)
            except StopIteration:
                raise DecodeError("not_found", f"row {row} of {self.path} is not there") from None
        value = self._values[row - self._first].as_py()
        if isinstance(value, dict):  # the hub's image type: {"bytes": ..., "path": ...}
            value = value.get("bytes")
        if not isinstance(value, bytes) or not value:
            raise DecodeError("empty", "the cell holds no picture", f"{self.path}#{row}")
        return value


_open: OrderedDict[tuple[Path, str], _Column] = OrderedDict()
_lock = threading.Lock()


@attrs.frozen
class Cell:
    """A picture, or a mask, in a parquet file."""

    path: Path
    column: str
    row: int

    def read(self) -> bytes:
        """The bytes of the file in it.

        Raises
        ------
        DecodeError
            There are none.
        """
        with _lock:
            key = (self.path, self.column)
            column = _open.pop(key, None) or _Column(self.path, self.column)
            _open[key] = column
            while len(_open) > OPEN:
                _open.popitem(last=False)
            return column.at(self.row)


def files(tree: Tree) -> list[Path]:
    """The parquet files in DATA."""
    if tree.is_file:
        return [tree.path] if tree.path.suffix.casefold() == ".parquet" else []
    here = tree.top
    for _ in range(3):
        found = [p for p in here.under(2) if p.suffix.casefold() == ".parquet"]
        if found:
            return found
        if "data" not in here.folders:
            return []
        here = here.folders["data"]
    return []


def columns(path: Path) -> tuple[str, ...]:
    """Names of a file's columns.

    Raises
    ------
    DataError
        pyarrow is missing, or the file is broken.
    """
    parquet = _pyarrow()
    try:
        return tuple(parquet.read_schema(path).names)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as parquet ({error}).") from error


def table(path: Path, wanted: tuple[str, ...]) -> list[dict[str, Any]]:
    """The small columns of a file, those of them that are there, row by row."""
    have = [c for c in wanted if c in columns(path)]
    read: list[dict[str, Any]] = _pyarrow().read_table(path, columns=have).to_pylist()
    return read


def _stem(path: Path) -> str:
    """Split that a file's name begins with: sd15 of sd15-00000-of-00019.parquet."""
    return path.stem.split("-")[0]


@attrs.frozen(kw_only=True)
class _Parquet:
    """What the layouts of this file share: recognition by columns."""

    name: str
    title: str
    known: str
    expects: str
    columns: tuple[str, ...]
    rank: int = MARKED

    def recognise(self, tree: Tree) -> Signs:
        """By the columns of the first file."""
        found = files(tree)
        if not found:
            return Signs()
        try:
            have = columns(found[0])
        except DataError as error:
            return Signs(seen=(f"{len(found)} parquet files",), against=(str(error),))
        if not set(self.columns) <= set(have):
            return Signs()
        return Signs(seen=(f"{found[0].name} with the columns {', '.join(self.columns)}",))

    def _files(self, tree: Tree, split: str | None) -> list[Path]:
        found = files(tree)
        if not found:
            raise DataError(f"{tree.path} holds no .parquet file.")
        if split is None:
            return found
        mine = [p for p in found if _stem(p) == split or p.parent.name == split]
        if not mine:
            raise DataError(f"{tree.path} has no split {split}; it has {listed(sorted({_stem(p) for p in found}))}.")
        return mine

    def _rows(
        self, tree: Tree, split: str | None, wanted: tuple[str, ...]
    ) -> Iterator[tuple[Path, int, dict[str, Any]]]:
        """File, number and small columns of every row of a split."""
        for path in self._files(tree, split):
            for row, cells in enumerate(table(path, wanted)):
                yield path, row, cells


class OpenSdi(_Parquet):
    """OpenSDI: key, image, mask, label (1 fake); the file's name says which generator made the fakes."""

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        items: list[Item] = []
        for path, row, cells in self._rows(tree, options.split, ("key", "label")):
            generator = _stem(path)
            key, fake = str(cells.get("key") or row), int(cells["label"]) == FAKE
            kind = "edited" if key.startswith("partial/") else "whole"
            items.append(
                Item(
                    path=path,
                    name=f"{path.name}#{key}",
                    label=FAKE if fake else REAL,
                    source=f"{generator}, {kind}" if fake else "OpenSDI real",
                    group=f"opensdi/{PurePosixPath(key).stem}",
                    mask=fake and kind == "edited",
                    truth=(
                        MaskPicture(content=Cell(path, "mask", row).read, name=f"{path.name}#{row}")
                        if fake and kind == "edited"
                        else None
                        if fake
                        else Nothing()
                    ),
                    subsets=(generator,),
                    content=Cell(path, "image", row),
                )
            )
        return Reading(items=tuple(items), one_class=len({i.label for i in items}) == 1, split=options.split)


class CommunityForensics(_Parquet):
    """Community Forensics: image_data, model_name, real_source, label (1 fake). The base set holds fakes only."""

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        items: list[Item] = []
        wanted = ("image_name", "model_name", "real_source", "label", "architecture", "subset")
        for path, row, cells in self._rows(tree, options.split, wanted):
            fake = int(cells["label"]) == FAKE
            model, real = cells.get("model_name") or "unnamed", cells.get("real_source") or "real"
            name = f"{path.name}#{row} ({cells.get('image_name') or row})"
            items.append(
                Item(
                    path=path,
                    name=name,
                    label=FAKE if fake else REAL,
                    source=str(model if fake else real),
                    group=name,
                    subsets=(str(cells.get("architecture") or cells.get("subset") or _stem(path)),) if fake else (),
                    content=Cell(path, "image_data", row),
                )
            )
        every = tuple(dict.fromkeys(s for i in items for s in i.subsets))
        items = [i if i.subsets else attrs.evolve(i, subsets=every) for i in items]
        return Reading(items=tuple(items), one_class=len({i.label for i in items}) == 1, split=options.split)


class XAigd(_Parquet):
    """X-AIGD from the hub: image, generator, labels with polygons; all generated."""

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        found = self._files(tree, None)
        splits = sorted({_stem(p) for p in found})
        split = options.split or next((s for s in ("labeled_test", "test") if s in splits), None)
        items: list[Item] = []
        for path, row, cells in self._rows(tree, split, ("generator", "uid", "labels", "width", "height")):
            labels = cells.get("labels")
            shapes = polygons(labels)
            size = (int(cells["width"]), int(cells["height"])) if cells.get("width") and cells.get("height") else None
            name = f"{path.name}#{cells.get('uid') or row}"
            items.append(
                Item(
                    path=path,
                    name=name,
                    label=FAKE,
                    source=str(cells["generator"]),
                    group=name,
                    mask=bool(shapes),
                    # No annotation is not "no artifact" in the unlabelled splits.
                    truth=(
                        None if "unlabeled" in path.name else Shapes(polygons=shapes, size=size, names=names(labels))
                    ),
                    subsets=(str(cells["generator"]),),
                    content=Cell(path, "image", row),
                )
            )
        return Reading(items=tuple(items), notes=slips(items), one_class=True, split=split)


class ImageLabel(_Parquet):
    """Any parquet with image, label (0 real, 1 fake, or the words) and, perhaps, generator."""

    def recognise(self, tree: Tree) -> Signs:
        """By the columns, where no column makes it another's."""
        signs = super().recognise(tree)
        if not signs.fits:
            return signs
        have = set(columns(files(tree)[0]))
        if {"mask"} <= have or {"labels", "image_data"} & have:
            return Signs()
        return signs

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        words = {"0": REAL, "1": FAKE, "real": REAL, "fake": FAKE, "false": REAL, "true": FAKE}
        items: list[Item] = []
        for path, row, cells in self._rows(tree, options.split, ("label", "generator", "model")):
            label = words.get(str(cells["label"]).casefold())
            if label is None:
                raise DataError(f"{path}, row {row}: label must be 0, 1, real or fake, got {cells['label']!r}.")
            maker = cells.get("generator", cells.get("model"))
            source = str(maker if maker is not None and label == FAKE else ("real", "fake")[label])
            name = f"{path.name}#{row}"
            items.append(
                Item(path=path, name=name, label=label, source=source, group=name, content=Cell(path, "image", row))
            )
        return Reading(items=tuple(items), split=options.split)


KNOWN = (
    OpenSdi(
        name="opensdi",
        title="OpenSDI",
        known="second-hand",
        expects="<split>-*.parquet with key, image, mask, label (1 fake); splits sd15, sd2, sdxl, sd3, flux",
        columns=("key", "image", "mask", "label"),
    ),
    CommunityForensics(
        name="community-forensics",
        title="Community Forensics",
        known="published",
        expects="*.parquet with image_data, model_name, real_source, label (1 fake)",
        columns=("image_data", "model_name", "label"),
    ),
    XAigd(
        name="x-aigd",
        title="X-AIGD",
        known="published",
        expects="labeled_test-*.parquet with image, generator, labels",
        columns=("image", "generator", "labels"),
    ),
    ImageLabel(
        name="image-label-parquet",
        title="parquet with image and label",
        known="published",
        expects="*.parquet with image, label (0 real, 1 fake) and, perhaps, generator",
        columns=("image", "label"),
        rank=SHAPED,
    ),
)

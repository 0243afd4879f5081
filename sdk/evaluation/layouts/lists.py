"""CSV lists of GRIP's benchmarks: SynthWildX, B-Free's viral pictures, and any list of filename and typ."""

from __future__ import annotations

import csv
from pathlib import Path

import attrs

from tellsign.evaluation.items import DataError, Item

from .layout import FAKE, MARKED, REAL, SHAPED, Options, Reading, Signs, listed
from .tree import Tree


def header(path: Path) -> tuple[str, ...]:
    """Columns of a CSV; none where it is not one."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            return tuple(c.strip() for c in next(csv.reader(handle), []))
    except (OSError, UnicodeDecodeError, csv.Error):
        return ()


def rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows of a CSV with the line that each ends in."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            reader.fieldnames = [c.strip() for c in reader.fieldnames or []]
            return [
                (reader.line_num, {k: (v or "").strip() for k, v in row.items() if k and isinstance(v, str | None)})
                for row in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV in UTF-8 ({error}).") from error


def _lists(tree: Tree, wanted: tuple[str, ...]) -> list[Path]:
    """The CSV files in DATA that have all of these columns."""
    paths = [tree.path] if tree.is_file else [p for p in tree.top.paths() if p.suffix.casefold() == ".csv"]
    return [p for p in paths if p.suffix.casefold() == ".csv" and set(wanted) <= set(header(p))]


@attrs.frozen(kw_only=True)
class GripList:
    """A list whose column `typ` says real, or which generator.

    Attributes
    ----------
    columns : tuple of str
        A list must have them.
    without : tuple of str
        And none of these.
    """

    name: str
    title: str
    known: str
    rank: int
    expects: str
    columns: tuple[str, ...]
    without: tuple[str, ...] = ()

    def _of(self, tree: Tree) -> list[Path]:
        return [p for p in _lists(tree, self.columns) if not set(self.without) & set(header(p))]

    def recognise(self, tree: Tree) -> Signs:
        """By the columns."""
        mine = self._of(tree)
        if not mine:
            return Signs()
        against = (f"several such lists ({listed([p.name for p in mine])}): give one",) if len(mine) > 1 else ()
        return Signs(
            seen=(f"{mine[0].name} with the columns {', '.join(self.columns)}",),
            against=against,
            named=tree.named(self.title),
        )

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        mine = self._of(tree)
        if len(mine) != 1:
            raise DataError(f"{tree.path} must be, or hold, one CSV with the columns {', '.join(self.columns)}.")
        base = options.root or mine[0].parent
        items: dict[str, Item] = {}
        for line, row in rows(mine[0]):
            name, typ = row.get("filename", ""), row.get("typ", "")
            if not name or not typ:
                raise DataError(f"{mine[0]}, line {line}: filename and typ must both be given.")
            real = typ.casefold() == "real"
            items[name] = Item(
                path=base / name,
                name=name,
                label=REAL if real else FAKE,
                source=typ,
                group=name,
                subsets=() if real else (typ,),
            )
        every = tuple(dict.fromkeys(s for i in items.values() for s in i.subsets))
        out = tuple(i if i.subsets else attrs.evolve(i, subsets=every) for i in items.values())
        return Reading(items=out, one_class=len({i.label for i in out}) == 1)


@attrs.frozen(kw_only=True)
class BFreeViral:
    """B-Free's viral pictures: many copies of 34 pictures; `source_id` groups the copies of one."""

    name: str = "bfree-online"
    title: str = "BFree-Online"
    known: str = "published"
    rank: int = MARKED
    expects: str = "BFree_viral_images.csv with filename,label,source_id; files at REAL/<id>/* and FAKE/<id>/*"
    columns: tuple[str, ...] = ("filename", "label", "source_id")

    def recognise(self, tree: Tree) -> Signs:
        """By the columns."""
        mine = _lists(tree, self.columns)
        return Signs(seen=(f"{mine[0].name} with the columns {', '.join(self.columns)}",) if mine else ())

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        mine = _lists(tree, self.columns)
        if not mine:
            raise DataError(f"{tree.path} has no CSV with the columns {', '.join(self.columns)}.")
        base = options.root or mine[0].parent
        items = []
        for line, row in rows(mine[0]):
            label = {"REAL": REAL, "FAKE": FAKE}.get(row.get("label", "").upper())
            if label is None:
                raise DataError(f"{mine[0]}, line {line}: label must be REAL or FAKE, got {row.get('label')!r}.")
            name = row["filename"]
            # The published list names links; its notebook saves beside the list, other scripts into images/.
            path = next((p for p in (base / name, base / "images" / name) if p.exists()), base / name)
            items.append(
                Item(
                    path=path,
                    name=name,
                    label=label,
                    source="viral, real" if label == REAL else "viral, generated",
                    group=f"{row['label'].upper()}/{row['source_id']}",
                    subsets=("viral",),
                )
            )
        return Reading(items=tuple(items))


SYNTHWILDX = GripList(
    name="synthwildx",
    title="SynthWildX",
    known="published",
    rank=MARKED,
    expects="list.csv with url,filename,typ; files at <typ>/<id>.jpg",
    columns=("url", "filename", "typ"),
)
GRIP = GripList(
    name="grip-list",
    title="list of filename and typ",
    known="published",
    rank=SHAPED,
    expects="a CSV with filename,typ (typ = real, or the generator)",
    columns=("filename", "typ"),
    without=("url",),
)
KNOWN = (SYNTHWILDX, BFreeViral(), GRIP)

"""How data sets lie on a disk: one small file per family, recognised from the most specific to the most general.

A layout looks at names and heads of small files and says what speaks for it and against it. Of those that fit the most
specific wins; where two are equally specific, or none fits, the error says what was seen and how to name the one that
is meant (`--layout`). Adding one is a class with `recognise` and `read`, a line in `LAYOUTS`, and a miniature tree in
tests/sdk/test_evaluation_layouts.py.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from tellsign.evaluation.items import DataError

from . import artifacts, forgery, genimage, lists, manifest, one_class, pairs, parquet, two_folders
from .layout import Layout, Options, Reading, Signs
from .tree import Tree

LAYOUTS: tuple[Layout, ...] = tuple(
    sorted(
        (
            *artifacts.KNOWN,
            *forgery.KNOWN,
            genimage.GENIMAGE,
            *lists.KNOWN,
            *one_class.KNOWN,
            *parquet.KNOWN,
            *two_folders.KNOWN,
            *pairs.KNOWN,
            two_folders.ANY_PAIRS,
            two_folders.PLAIN_FOLDERS,
            *manifest.KNOWN,
        ),
        key=lambda layout: (layout.rank, layout.name),
    )
)
"""Every layout, the most specific first."""


def by_name(name: str) -> Layout:
    """A layout by its name.

    Raises
    ------
    DataError
        There is none; the message names those that are there and the nearest one.
    """
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    names = sorted(layout.name for layout in LAYOUTS)
    near = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise DataError(f"--layout takes one of {', '.join(names)}, got {name!r}.{hint}")


def recognise(path: Path) -> Layout:
    """The layout of DATA.

    Raises
    ------
    DataError
        None fits, or two fit equally well.
    """
    tree = Tree(path)
    signs: dict[str, Signs] = {layout.name: layout.recognise(tree) for layout in LAYOUTS}
    fitting = [layout for layout in LAYOUTS if signs[layout.name].fits]
    best = [layout for layout in fitting if layout.rank == fitting[0].rank]
    if len(best) > 1 and (named := [layout for layout in best if signs[layout.name].named]):
        best = named
    if len(best) == 1:
        return best[0]
    if best:
        told = "; ".join(f"{b.name} ({b.title}) because of {', '.join(signs[b.name].seen)}" for b in best)
        raise DataError(
            f"{path} fits {len(best)} layouts equally well: {told}. Say which one is meant: --layout "
            f"{' or --layout '.join(b.name for b in best)}."
        )
    near = [
        f"{layout.name} was not taken: it has {', '.join(s.seen)}, but {', '.join(s.against)}"
        for layout in LAYOUTS
        if (s := signs[layout.name]).seen and s.against
    ]
    raise DataError(
        f"The folder {path} must hold real/ and fake/, or be laid out as a data set that is known here, and it has "
        f"{tree.seen()}. "
        + (f"{'; '.join(near[:3])}. " if near else "")
        + f"--layout NAME says how it is meant; names are {', '.join(sorted(layout.name for layout in LAYOUTS))}."
    )


def read(path: Path, layout: Layout, options: Options) -> Reading:
    """Items of DATA, read as `layout`."""
    return layout.read(Tree(path), options)


__all__ = ["LAYOUTS", "Layout", "Options", "Reading", "Signs", "by_name", "read", "recognise"]

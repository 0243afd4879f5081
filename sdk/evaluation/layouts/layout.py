"""What a layout is: a name, signs by which it is recognised, and a way to read it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import attrs

from tellsign.evaluation.items import AI, FAKE, REAL, Item

from .tree import Folder, Tree

MARKED, NAMED, SHAPED, PLAIN = range(4)
"""How specific the signs are: a file or column that only this data set has; names of its sub-folders; a shape that
several data sets share; anything with two classes. The most specific one that fits wins."""


@attrs.frozen(kw_only=True)
class Signs:
    """What speaks for and against a layout; it fits where something does and nothing speaks against it."""

    seen: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    named: bool = False
    """Whether the folder's own name says so; decides between two that fit equally well, and nothing else."""

    @property
    def fits(self) -> bool:
        """Whether DATA can be read so."""
        return bool(self.seen) and not self.against


@attrs.frozen(kw_only=True)
class Options:
    """What the user asked for."""

    split: str | None = None
    root: Path | None = None
    """Where relative paths of a list start."""


@attrs.frozen(kw_only=True)
class Reading:
    """What a layout made of DATA."""

    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()
    asks: str = AI
    one_class: bool = False
    """The data set is published with one class only; the other one comes by --real, or not at all."""
    split: str | None = None
    """The split that was read, where the layout has any."""


class Layout(Protocol):
    """One data set's way of lying on a disk."""

    @property
    def name(self) -> str:
        """For `--layout`."""

    @property
    def title(self) -> str:
        """For people."""

    @property
    def rank(self) -> int:
        """One of MARKED, NAMED, SHAPED, PLAIN."""

    @property
    def expects(self) -> str:
        """What the tree looks like, in one line."""

    @property
    def known(self) -> str:
        """How certain that is: "published", "second-hand" or "from memory"."""

    def recognise(self, tree: Tree) -> Signs:
        """Look at names, and at the heads of small files; never at a picture's pixels."""

    def read(self, tree: Tree, options: Options) -> Reading:
        """Read it, whether or not it was recognised.

        Raises
        ------
        DataError
            The tree is not as the layout says.
        """


def pictures(
    folder: Folder,
    tree: Tree,
    label: int,
    source: str,
    *,
    subsets: tuple[str, ...] = (),
    group: str | None = None,
    deep: bool = True,
) -> list[Item]:
    """Every file of a folder as a picture of one class.

    Parameters
    ----------
    group : str, optional
        Pictures are grouped by this prefix and their stem; by default each stands alone.
    """
    out = []
    for path in folder.under() if deep else folder.paths():
        name = tree.relative(path)
        out.append(
            Item(
                path=path,
                name=name,
                label=label,
                source=source,
                group=name if group is None else f"{group}/{path.stem}",
                subsets=subsets,
            )
        )
    return out


def listed(names: tuple[str, ...] | list[str], most: int = 6) -> str:
    """Names with commas, the first few of them."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


__all__ = [
    "FAKE",
    "MARKED",
    "NAMED",
    "PLAIN",
    "REAL",
    "SHAPED",
    "Layout",
    "Options",
    "Reading",
    "Signs",
    "listed",
    "pictures",
]

"""DDA's pairs: each real picture beside its reconstruction, of one stem."""

from __future__ import annotations

import attrs

from tellsign.evaluation.items import DataError, Item
from tellsign.evaluation.truth import size_of

from .layout import FAKE, REAL, SHAPED, Options, Reading, Signs
from .tree import Folder, Tree

LOOKED_AT = 8
"""Pairs whose sizes are compared."""


@attrs.frozen(kw_only=True)
class DdaPairs:
    """`real/` and `fake/` whose files share their stems, fakes as PNG, cut to multiples of 8 pixels."""

    name: str = "dda-pairs"
    title: str = "DDA pairs"
    known: str = "published"
    rank: int = SHAPED
    expects: str = "{real,fake}/ with common stems, fake/*.png of the real's size cut to multiples of 8"

    def recognise(self, tree: Tree) -> Signs:
        """By stems and sizes; numbered files of equal sizes alone are no sign."""
        if tree.is_file:
            return Signs()
        real, fake = tree.top.at("real"), tree.top.at("fake")
        if real is None or fake is None or not real.files or real.folders or fake.folders:
            return Signs()
        stems, of = _by_stem(real), _by_stem(fake)
        if set(stems) != set(of) or not all(n.casefold().endswith(".png") for n in of.values()):
            return Signs()
        sizes = [
            (size_of(real.path / stems[s]), size_of(fake.path / of[s]))
            for s in sorted(stems)[:: max(1, len(stems) // 8)]
        ][:LOOKED_AT]
        cut = [a is not None and b == (a[0] // 8 * 8, a[1] // 8 * 8) for a, b in sizes]
        if not all(cut):
            return Signs()
        # Squares of one size fit any pair of folders that are numbered alike; a list of qualities is DDA's own.
        if len({b for _, b in sizes}) < 2 and not any(n.casefold().endswith(".json") for n in tree.top.files):
            return Signs()
        return Signs(seen=(f"{len(stems)} stems common to real/ and fake/, sizes cut to multiples of 8",))

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        real, fake = tree.top.at("real"), tree.top.at("fake")
        if real is None or fake is None:
            raise DataError(f"{tree.path} must hold real/ and fake/, and it has {tree.seen()}.")
        stems, of = _by_stem(real), _by_stem(fake)
        alone = sorted(set(stems) ^ set(of))
        items = [
            Item(
                path=folder.path / name,
                name=f"{folder.name}/{name}",
                label=label,
                source=source,
                group=f"pair/{stem}",
                subsets=("pairs",),
            )
            for folder, names, label, source in ((real, stems, REAL, "real"), (fake, of, FAKE, "reconstruction"))
            for stem, name in sorted(names.items())
        ]
        notes = [
            "Read as pairs of a picture and its reconstruction (one group each); --layout plain reads two folders."
        ]
        if alone:
            notes.append(f"{len(alone)} pictures have no partner, {alone[0]} among them.")
        return Reading(items=tuple(items), notes=tuple(notes))


def _by_stem(folder: Folder) -> dict[str, str]:
    return {name.rsplit(".", 1)[0]: name for name in folder.files if not name.casefold().endswith(".json")}


KNOWN = (DdaPairs(),)

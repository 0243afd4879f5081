"""A look at folders that reads each of them once and none that nobody asks about."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from tellsign.evaluation.items import DataError

DEEPEST = 12
_NOT_DATA = frozenset({"__macosx", "thumbs.db", "desktop.ini", ".ds_store"})


class Folder:
    """One folder, read when first asked; names are found whatever their case.

    Hidden entries and what archivers and file managers leave behind are not there; every other file is, so that one
    with a wrong suffix is named as unreadable and not dropped in silence.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name or path.resolve().name

    @cached_property
    def _entries(self) -> tuple[dict[str, Folder], tuple[str, ...]]:
        folders: dict[str, Folder] = {}
        files: list[str] = []
        try:
            with os.scandir(self.path) as entries:
                found = sorted(entries, key=lambda e: e.name)
        except OSError as error:
            raise DataError(f"The folder {self.path} cannot be read ({error.strerror}).") from error
        for entry in found:
            if entry.name.startswith(".") or entry.name.casefold() in _NOT_DATA:
                continue
            if entry.is_dir():
                key = entry.name.casefold()
                if key in folders:
                    raise DataError(
                        f"{self.path} holds {folders[key].name}/ and {entry.name}/, which differ by case only; "
                        "say which one is meant by renaming the other."
                    )
                folders[key] = Folder(self.path / entry.name)
            else:
                files.append(entry.name)
        return folders, tuple(files)

    @property
    def folders(self) -> dict[str, Folder]:
        """Sub-folders by their name in lower case, sorted."""
        return self._entries[0]

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files in it, sorted."""
        return self._entries[1]

    def at(self, *names: str) -> Folder | None:
        """The folder below by its names, whatever their case; None where it is not there."""
        here: Folder | None = self
        for name in names:
            here = None if here is None else here.folders.get(name.casefold())
        return here

    def file(self, name: str) -> Path | None:
        """A file in it by its name, whatever its case."""
        return next((self.path / f for f in self.files if f.casefold() == name.casefold()), None)

    def paths(self) -> Iterator[Path]:
        """The files in it, sorted."""
        return (self.path / name for name in self.files)

    def under(self, depth: int = DEEPEST) -> Iterator[Path]:
        """All files in it and below, folder by folder."""
        yield from self.paths()
        if depth:
            for folder in self.folders.values():
                # A link that leads upwards would never end.
                if folder.path.is_symlink() and self.path.resolve().is_relative_to(folder.path.resolve()):
                    continue
                yield from folder.under(depth - 1)

    def holds(self, *suffixes: str) -> bool:
        """Whether a file in it ends in one of the suffixes (lower case, with the dot)."""
        return any(name.casefold().endswith(suffixes) for name in self.files)

    def inside(self, names: tuple[str, ...], deepest: int = 2) -> Folder:
        """The folder that holds the data: as long as one of `names` is there and nothing else fits, step into it.

        Archives unpack into `Chameleon/test/...`, and people point at either.
        """
        here = self
        for _ in range(deepest):
            step = next((here.folders[n] for n in names if n in here.folders), None)
            if step is None:
                break
            here = step
        return here


class Tree:
    """DATA as a layout looks at it: a folder or a single file.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_file = path.is_file()

    @cached_property
    def top(self) -> Folder:
        """The folder; of a single file the folder that it lies in."""
        return Folder(self.path.parent if self.is_file else self.path)

    def named(self, *words: str) -> bool:
        """Whether the folder's own name, or that of the one above, holds one of the words."""
        names = [squeezed(p) for p in (self.path.resolve().name, self.path.resolve().parent.name)]
        return any(squeezed(w) in n for w in words for n in names)

    def relative(self, path: Path) -> str:
        """A path as tables print it."""
        try:
            return path.relative_to(self.top.path).as_posix()
        except ValueError:
            return path.as_posix()

    def seen(self) -> str:
        """What lies in DATA, for an error."""
        if self.is_file:
            return f"the file {self.path.name}"
        folders = [f"{f.name}/" for f in self.top.folders.values()]
        endings: dict[str, int] = {}
        for name in self.top.files:
            ending = Path(name).suffix.lower() or "without a suffix"
            endings[ending] = endings.get(ending, 0) + 1
        shown = ", ".join(folders[:12]) + (f" and {len(folders) - 12} more folders" if len(folders) > 12 else "")
        parts = [shown or "no sub-folder"]
        parts += [f"{n} files {ending}" for ending, n in sorted(endings.items(), key=lambda p: -p[1])[:4]]
        return "; ".join(parts)


def squeezed(name: str) -> str:
    """A name as it is compared: lower case, letters and digits only."""
    return "".join(c for c in name.casefold() if c.isalnum())

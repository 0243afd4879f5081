"""Data sets whose annotations say where a generated picture gives itself away: X-AIGD, SynthScars, LOKI."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs

from tellsign.evaluation.items import DataError, Item
from tellsign.evaluation.truth import Nothing, Point, Shapes

from .forgery import load_json
from .layout import FAKE, MARKED, REAL, Options, Reading, Signs, listed
from .tree import Folder, Tree


def polygons(labels: object) -> tuple[tuple[Point, ...], ...]:
    """X-AIGD's labels, `[{"label": ..., "points": [[x, y], ...]}, ...]`, as polygons; also given as JSON text."""
    return tuple(tuple((float(x), float(y)) for x, y in one["points"]) for one in _marks(labels))


def names(labels: object) -> tuple[str, ...]:
    """What each of X-AIGD's polygons is called, in the order of `polygons`; empty where any has no name."""
    found = tuple(one.get("label") for one in _marks(labels))
    return tuple(str(name) for name in found) if all(found) else ()


def _marks(labels: object) -> list[dict[str, Any]]:
    if isinstance(labels, str):
        labels = json.loads(labels) if labels.strip() else []
    found: list[dict[str, Any]] = list(labels or ())  # type: ignore[call-overload]
    return found


def slips(items: Iterable[Item]) -> tuple[str, ...]:
    """How many polygons are left out because they have no area."""
    flaws = sum(i.truth.flaws for i in items if isinstance(i.truth, Shapes))
    return (f"{flaws} polygons of fewer than three points or without area are left out.",) if flaws else ()


@attrs.frozen(kw_only=True)
class XAigdJson:
    """X-AIGD exported as JSON or JSON lines, with the hub's keys."""

    name: str = "x-aigd-json"
    title: str = "X-AIGD"
    known: str = "published"
    rank: int = MARKED
    expects: str = "a .json or .jsonl with image, generator and labels: [{label, points}]"

    def recognise(self, tree: Tree) -> Signs:
        """By the keys of the first row."""
        if not tree.is_file or tree.path.suffix.casefold() not in (".json", ".jsonl"):
            return Signs()
        try:
            first = next(iter(records(tree.path)), None)
        except DataError:
            return Signs()
        if isinstance(first, dict) and {"image", "generator", "labels"} <= set(first):
            return Signs(seen=(f"{tree.path.name} with image, generator and labels",))
        return Signs()

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        base = options.root or tree.path.parent
        items = []
        for n, row in enumerate(records(tree.path)):
            try:
                name, generator, shapes = str(row["image"]), str(row["generator"]), polygons(row["labels"])
                called = names(row["labels"])
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"{tree.path}, row {n}: needs image, generator and labels ({error!r}).") from error
            size = (int(row["width"]), int(row["height"])) if row.get("width") and row.get("height") else None
            items.append(
                Item(
                    path=base / name,
                    name=name,
                    label=FAKE,
                    source=generator,
                    group=str(row.get("uid") or name),
                    mask=bool(shapes),
                    truth=Shapes(polygons=shapes, size=size, names=called),
                    subsets=(generator,),
                )
            )
        return Reading(items=tuple(items), notes=slips(items), one_class=True)


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a JSON list or of JSON lines."""
    if path.suffix.casefold() == ".json":
        rows = load_json(path)
        if not isinstance(rows, list):
            raise DataError(f"{path} must hold a list of objects.")
        yield from rows
        return
    try:
        with path.open(encoding="utf-8-sig") as handle:
            for n, line in enumerate(handle, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise DataError(f"{path}, line {n}: must be an object, got {line.strip()[:60]!r}.")
                    yield row
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as JSON lines ({error}).") from error


@attrs.frozen(kw_only=True)
class SynthScars:
    """SynthScars: all generated, polygons per picture; twins `.png`/`.jpg` of one stem are one to the bootstrap."""

    name: str = "synthscars"
    title: str = "SynthScars"
    known: str = "second-hand"
    rank: int = MARKED
    expects: str = "{train,test}/images/ and {train,test}/{annotations,annoations}/{train,test}.json"

    def _annotations(self, part: Folder) -> Path | None:
        for folder in ("annotations", "annoations"):  # the README's own spelling is the second
            if (found := part.at(folder)) and (path := found.file(f"{part.name}.json")):
                return path
        return None

    def _parts(self, tree: Tree) -> dict[str, tuple[Folder, Path]]:
        here = tree.top.inside(("synthscars", "data"))
        parts = {}
        for name in ("test", "train"):
            part = here.at(name)
            if part is not None and "images" in part.folders and (path := self._annotations(part)):
                parts[name] = (part.folders["images"], path)
        return parts

    def recognise(self, tree: Tree) -> Signs:
        """By pictures beside annotations of the same name."""
        if tree.is_file:
            return Signs()
        return Signs(
            seen=tuple(f"{n}/images/ with {p.parent.name}/{p.name}" for n, (_, p) in self._parts(tree).items())
        )

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        parts = self._parts(tree)
        split = options.split or ("test" if "test" in parts else "train")
        if split not in parts:
            raise DataError(f"{tree.path} has no split {split}; it has {listed(list(parts)) or 'none'}.")
        images, path = parts[split]
        found: dict[str, list[tuple[Point, ...]]] = {}
        for entry in _entries(load_json(path), path):
            name = entry.get("img_file_name") or entry.get("file_name") or entry.get("image")
            if not isinstance(name, str):
                raise DataError(f"{path}: an entry names no picture (img_file_name): {str(entry)[:80]}.")
            shapes = found.setdefault(Path(name).name, [])
            for ref in entry.get("refs", ()):
                shapes += _flat_polygons(ref.get("segmentation") or ref.get("polygon") or ())
        items = [
            Item(
                path=images.path / name,
                name=tree.relative(images.path / name),
                label=FAKE,
                source="SynthScars",
                group=f"synthscars/{Path(name).stem}",
                mask=bool(shapes),
                truth=Shapes(polygons=tuple(shapes)),
                subsets=(split,),
            )
            for name, shapes in found.items()
        ]
        return Reading(items=tuple(items), notes=slips(items), one_class=True, split=split)


def _entries(data: object, path: Path) -> Iterator[dict[str, Any]]:
    """Annotations, whether they are a list, a table by id, or a list of such tables."""
    if isinstance(data, dict) and "refs" not in data:
        data = list(data.values())
    if not isinstance(data, list):
        raise DataError(f"{path} must hold annotations with img_file_name and refs.")
    for entry in data:
        if isinstance(entry, dict) and "refs" not in entry and all(isinstance(v, dict) for v in entry.values()):
            yield from entry.values()
        elif isinstance(entry, dict):
            yield entry
        else:
            raise DataError(f"{path} must hold annotations with img_file_name and refs, got {str(entry)[:80]}.")


def _flat_polygons(value: Any) -> list[tuple[Point, ...]]:
    """Polygons written as [x, y, x, y, ...], as [[x, y], ...], or a list of either."""
    if not value:
        return []
    if not isinstance(value[0], list | tuple):
        return [tuple(zip(map(float, value[::2]), map(float, value[1::2]), strict=False))]
    if all(isinstance(p, list | tuple) and len(p) == 2 and not isinstance(p[0], list | tuple) for p in value):
        return [tuple((float(x), float(y)) for x, y in value)]
    return [polygon for one in value for polygon in _flat_polygons(one)]


@attrs.frozen(kw_only=True)
class Loki:
    """LOKI's pictures: asked whether one is fake or whether it is real, so that "yes" alone says nothing."""

    name: str = "loki"
    title: str = "LOKI"
    known: str = "second-hand"
    rank: int = MARKED
    expects: str = "true_or_false.json (and open_ended_vqa.json with regions), pictures at image_path"

    def _questions(self, tree: Tree) -> Path | None:
        if tree.is_file:
            return tree.path if tree.path.name.casefold() == "true_or_false.json" else None
        for folder in (tree.top, *(tree.top.folders.values())):
            if path := folder.file("true_or_false.json"):
                return path
        return None

    def recognise(self, tree: Tree) -> Signs:
        """By the name of its list, and by its keys."""
        path = self._questions(tree)
        if path is None:
            return Signs()
        rows = load_json(path)
        first = rows[0] if isinstance(rows, list) and rows else {}
        if not isinstance(first, dict) or "question_type" not in first:
            return Signs()
        return Signs(seen=(f"{path.name} with question_type",))

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        path = self._questions(tree)
        if path is None:
            raise DataError(f"{tree.path} has no true_or_false.json.")
        base = options.root or path.parent
        labels: dict[str, int] = {}
        for n, row in enumerate(records(path)):
            if row.get("modality", "image-text") != "image-text" or not row.get("image_path"):
                continue
            name, asked, answer = str(row["image_path"]), row.get("question_type"), str(row.get("answer", "")).strip()
            yes = {"yes": True, "true": True, "no": False, "false": False}.get(answer.casefold().rstrip("."))
            if asked not in ("ask_fake", "ask_real") or yes is None:
                raise DataError(
                    f"{path}, entry {n}: question_type must be ask_fake or ask_real and answer yes or no, got "
                    f"{asked!r} and {answer!r}."
                )
            label = FAKE if yes == (asked == "ask_fake") else REAL
            if labels.setdefault(name, label) != label:
                raise DataError(f"{path}, entry {n}: {name} is real by one question and fake by another.")
        if not labels:
            raise DataError(f"{path} asks about no picture (modality image-text with an image_path).")
        regions = _regions(path.parent / "open_ended_vqa.json")
        items = []
        for name, label in labels.items():
            boxes = regions.get(name)
            folder = Path(name).parent.name or "LOKI"
            items.append(
                Item(
                    path=base / name,
                    name=name,
                    label=label,
                    source=folder,
                    group=name,
                    mask=bool(boxes),
                    truth=Shapes(boxes=boxes) if boxes else Nothing() if label == REAL else None,
                    subsets=("LOKI",),
                )
            )
        notes = (f"{len(regions)} pictures have regions in open_ended_vqa.json.",) if regions else ()
        return Reading(items=tuple(items), notes=notes)


def _regions(path: Path) -> dict[str, tuple[tuple[float, float, float, float], ...]]:
    if not path.is_file():
        return {}
    out: dict[str, list[tuple[float, float, float, float]]] = {}
    for row in records(path):
        for region in row.get("regions") or ():
            box = region.get("xywh") or region.get("bbox") if isinstance(region, dict) else region
            if box and len(box) == 4:
                left, top, width, height = (float(v) for v in box)
                out.setdefault(str(row.get("image_path")), []).append((left, top, width, height))
    return {name: tuple(boxes) for name, boxes in out.items()}


KNOWN = (SynthScars(), Loki(), XAigdJson())

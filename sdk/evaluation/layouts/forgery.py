"""Data sets of pictures that people tampered with, each with its masks: label 1 means tampered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import attrs

from tellsign.evaluation.items import TAMPERED, DataError, Item
from tellsign.evaluation.truth import MaskPicture, Nothing, size_of

from .layout import FAKE, MARKED, REAL, SHAPED, Options, Reading, Signs, listed
from .tree import Folder, Tree

_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")


def _authentic(path: Path, tree: Tree, source: str, group: str) -> Item:
    return Item(
        path=path, name=tree.relative(path), label=REAL, source=source, group=group, truth=Nothing(), subsets=("all",)
    )


def _tampered(
    path: Path, tree: Tree, source: str, group: str, mask: Path | None, rule: str = "half", subset: str = "all"
) -> Item:
    return Item(
        path=path,
        name=tree.relative(path),
        label=FAKE,
        source=source,
        group=group,
        mask=mask is not None,
        truth=None if mask is None else MaskPicture(path=mask, name=mask.name, rule=rule),
        subsets=(subset,),
    )


def _notes(items: Iterable[Item]) -> tuple[str, ...]:
    """Which masks are missing, and which have another size than their picture."""
    bare = [i.name for i in items if i.label == FAKE and i.truth is None]
    odd = []
    for item in items:
        if isinstance(item.truth, MaskPicture) and item.truth.path is not None:
            own, mask = size_of(item.path), size_of(item.truth.path)
            if own is not None and mask is not None and own != mask:
                odd.append(item.name)
    notes = []
    if bare:
        notes.append(
            f"{len(bare)} tampered pictures have no mask and stay out of the pixel metrics: {listed(bare, 3)}."
        )
    if odd:
        notes.append(f"{len(odd)} masks have another size than their picture and are resized to it: {listed(odd, 3)}.")
    return tuple(notes)


def _stems(folders: Iterable[Folder]) -> dict[str, Path]:
    return {p.stem.casefold(): p for f in folders for p in f.under() if p.suffix.casefold() in _PICTURES}


@attrs.frozen(kw_only=True)
class Casia:
    """CASIA 1 and 2 as they come: `Au/` and `Tp/` (or `Sp/`) with a ground-truth folder of `<stem>_gt.png`."""

    name: str = "casia"
    title: str = "CASIA"
    known: str = "published"
    rank: int = MARKED
    expects: str = "{Au,Tp}/ (CASIA 2) or {Au,Sp}/ (CASIA 1) and a folder *groundtruth*/ with *_gt.png"

    def _tampered(self, top: Folder) -> Folder | None:
        return next((top.folders[n] for n in ("tp", "sp", "modified tp") if n in top.folders), None)

    def _masks(self, top: Folder) -> list[Folder]:
        flat = {n: n.replace(" ", "").replace("_", "").replace("-", "") for n in top.folders}
        return [top.folders[n] for n, f in flat.items() if "groundtruth" in f or f in ("gt", "mask", "masks")]

    def recognise(self, tree: Tree) -> Signs:
        """By Au beside Tp or Sp."""
        if tree.is_file or "au" not in tree.top.folders:
            return Signs()
        tampered = self._tampered(tree.top)
        if tampered is None:
            return Signs()
        return Signs(seen=(f"Au/ beside {tampered.name}/",), named=tree.named("casia"))

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        tampered, authentic = self._tampered(tree.top), tree.top.at("au")
        if tampered is None or authentic is None:
            raise DataError(f"{tree.path} must hold Au/ and Tp/ (or Sp/), and it has {tree.seen()}.")
        masks = _stems(self._masks(tree.top))
        items = [_authentic(p, tree, "CASIA Au", _casia_group(p.stem)) for p in authentic.under()]
        for path in tampered.under():
            mask = masks.get(f"{path.stem}_gt".casefold()) or masks.get(path.stem.casefold())
            kind = {"D": "splicing", "S": "copy-move"}.get([*path.stem.split("_"), ""][1], "tampered")
            items.append(_tampered(path, tree, kind, _casia_group(path.stem), mask, subset="all"))
        return Reading(items=tuple(items), notes=_notes(items), asks=TAMPERED)


def _casia_group(stem: str) -> str:
    """The first source picture that a name tells: Au_cha_00063 and Tp_D_CRN_S_N_cha00063_art00014_11818 share it."""
    found = re.search(r"([a-z]{3})_?(\d{4,5})", stem.casefold())
    return f"casia/{found.group(1)}{found.group(2).zfill(5)}" if found else f"casia/{stem}"


@attrs.frozen(kw_only=True)
class Columbia:
    """Columbia uncompressed: `4cam_auth/`, `4cam_splc/`, and masks in colour in `edgemask/`."""

    name: str = "columbia"
    title: str = "Columbia"
    known: str = "second-hand"
    rank: int = MARKED
    expects: str = "4cam_auth/*.tif, 4cam_splc/*.tif, 4cam_splc/edgemask/<stem>_edgemask.jpg (green = spliced)"

    def recognise(self, tree: Tree) -> Signs:
        """By its two folders."""
        if tree.is_file:
            return Signs()
        have = [n for n in ("4cam_auth", "4cam_splc") if n in tree.top.folders]
        return Signs(seen=(" and ".join(have),)) if len(have) == 2 else Signs()

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        auth, splc = tree.top.at("4cam_auth"), tree.top.at("4cam_splc")
        if auth is None or splc is None:
            raise DataError(f"{tree.path} must hold 4cam_auth/ and 4cam_splc/, and it has {tree.seen()}.")
        masks = _stems(f.folders["edgemask"] for f in (splc, auth) if "edgemask" in f.folders)
        items = [
            _authentic(p, tree, "Columbia", tree.relative(p)) for p in auth.paths() if p.suffix.casefold() in _PICTURES
        ]
        for path in splc.paths():
            if path.suffix.casefold() in _PICTURES:
                mask = masks.get(f"{path.stem}_edgemask".casefold())
                items.append(_tampered(path, tree, "splicing", tree.relative(path), mask, rule="green"))
        return Reading(items=tuple(items), notes=_notes(items), asks=TAMPERED)


@attrs.frozen(kw_only=True)
class Coverage:
    """COVERAGE: `image/<n>.tif` and its tampered twin `<n>t.tif`, `mask/<n>forged.tif`."""

    name: str = "coverage"
    title: str = "COVERAGE"
    known: str = "second-hand"
    rank: int = MARKED
    expects: str = "image/<n>.tif, image/<n>t.tif, mask/<n>forged.tif"

    def recognise(self, tree: Tree) -> Signs:
        """By the names of twins and masks."""
        if tree.is_file:
            return Signs()
        image, mask = tree.top.at("image"), tree.top.at("mask")
        if image is None or mask is None:
            return Signs()
        twins = any(re.fullmatch(r"\d+t\.tiff?", n.casefold()) for n in image.files)
        forged = any(re.fullmatch(r"\d+forged\.tiff?", n.casefold()) for n in mask.files)
        return Signs(seen=("image/<n>t.tif", "mask/<n>forged.tif")) if twins and forged else Signs()

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        image, folder = tree.top.at("image"), tree.top.at("mask")
        if image is None or folder is None:
            raise DataError(f"{tree.path} must hold image/ and mask/, and it has {tree.seen()}.")
        masks = _stems([folder])
        items: list[Item] = []
        for path in image.paths():
            found = re.fullmatch(r"(\d+)(t?)", path.stem.casefold())
            if found is None:
                raise DataError(f"{path}: COVERAGE's pictures are called <number>.tif or <number>t.tif.")
            group = f"coverage/{found.group(1)}"
            if found.group(2):
                items.append(_tampered(path, tree, "copy-move", group, masks.get(f"{found.group(1)}forged")))
            else:
                items.append(_authentic(path, tree, "COVERAGE", group))
        return Reading(items=tuple(items), notes=_notes(items), asks=TAMPERED)


@attrs.frozen(kw_only=True)
class Imd2020:
    """IMD2020, manipulated in real life: a folder per picture with `*_orig.*`, versions, and `<version>_mask.png`."""

    name: str = "imd2020"
    title: str = "IMD2020"
    known: str = "from memory"
    rank: int = MARKED
    expects: str = "<id>/{<id>_orig.jpg,<version>_0.jpg,<version>_0_mask.png}"

    def recognise(self, tree: Tree) -> Signs:
        """By originals beside masks in several folders."""
        if tree.is_file:
            return Signs()
        seen = []
        for folder in list(tree.top.folders.values())[:50]:
            stems = {Path(n).stem.casefold() for n in folder.files}
            if any(s.endswith("_orig") for s in stems) and any(s.endswith("_mask") for s in stems):
                seen.append(f"{folder.name}/ with *_orig and *_mask")
        return Signs(seen=tuple(seen[:2]))

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        items: list[Item] = []
        for folder in tree.top.folders.values():
            masks = {p.stem.casefold(): p for p in folder.paths() if p.stem.casefold().endswith("_mask")}
            for path in folder.paths():
                stem = path.stem.casefold()
                if stem in masks:
                    continue
                if stem.endswith("_orig"):
                    items.append(_authentic(path, tree, "IMD2020", folder.name))
                else:
                    items.append(_tampered(path, tree, "real life", folder.name, masks.get(f"{stem}_mask")))
        if not items:
            raise DataError(f"{tree.path} holds no folder with pictures; this layout is {self.expects}.")
        return Reading(items=tuple(items), notes=_notes(items), asks=TAMPERED)


@attrs.frozen(kw_only=True)
class ImdlFolders:
    """IMDL-BenCo's folders: `Tp/` and `Gt/`, the n-th picture with the n-th mask, both sorted by name."""

    name: str = "imdl-folders"
    title: str = "IMDL-BenCo folders"
    known: str = "published"
    rank: int = SHAPED
    expects: str = "{Tp,Gt}/, paired by sorted order; Au/ where there are authentic pictures"

    def recognise(self, tree: Tree) -> Signs:
        """By Tp beside Gt."""
        if tree.is_file or not {"tp", "gt"} <= set(tree.top.folders):
            return Signs()
        return Signs(seen=("Tp/ beside Gt/",))

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        tp, gt = tree.top.at("tp"), tree.top.at("gt")
        if tp is None or gt is None:
            raise DataError(f"{tree.path} must hold Tp/ and Gt/, and it has {tree.seen()}.")
        pictures, masks = list(tp.paths()), list(gt.paths())
        if len(pictures) != len(masks):
            raise DataError(
                f"{tree.path} has {len(pictures)} files in Tp/ and {len(masks)} in Gt/, and they are paired by sorted "
                "order: every picture after the one without a mask would get its neighbour's."
            )
        items = [_tampered(p, tree, "tampered", tree.relative(p), m) for p, m in zip(pictures, masks, strict=True)]
        if au := tree.top.at("au"):
            items += [_authentic(p, tree, "authentic", tree.relative(p)) for p in au.under()]
        return Reading(items=tuple(items), notes=_notes(items), asks=TAMPERED, one_class="au" not in tree.top.folders)


@attrs.frozen(kw_only=True)
class ImdlJson:
    """IMDL-BenCo's list: `[[picture, mask or "Negative"], ...]`."""

    name: str = "imdl-json"
    title: str = "IMDL-BenCo list"
    known: str = "published"
    rank: int = MARKED
    expects: str = 'a JSON list of ["picture", "mask" or "Negative"]'

    def recognise(self, tree: Tree) -> Signs:
        """By the first row."""
        if not tree.is_file or tree.path.suffix.casefold() != ".json":
            return Signs()
        rows = load_json(tree.path)
        if isinstance(rows, list) and rows and _is_pair(rows[0]):
            return Signs(seen=(f"{tree.path.name}, a list of pairs",))
        return Signs()

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        rows, base = load_json(tree.path), options.root or tree.path.parent
        if not isinstance(rows, list):
            raise DataError(f"{tree.path} must be {self.expects}.")
        items: list[Item] = []
        for n, row in enumerate(rows):
            if not _is_pair(row):
                raise DataError(f'{tree.path}, entry {n}: must be ["picture", "mask" or "Negative"], got {row!r}.')
            path = base / row[0]
            if row[1] == "Negative":
                items.append(attrs.evolve(_authentic(path, tree, "authentic", row[0]), name=row[0]))
            else:
                items.append(attrs.evolve(_tampered(path, tree, "tampered", row[0], base / row[1]), name=row[0]))
        return Reading(
            items=tuple(items),
            notes=_notes(items),
            asks=TAMPERED,
            one_class=len({i.label for i in items}) == 1,
        )


def _is_pair(row: object) -> bool:
    return isinstance(row, list) and len(row) == 2 and all(isinstance(x, str) for x in row)


@attrs.frozen(kw_only=True)
class TampCoco:
    """TampCOCO: `<kind>_images/` beside `<kind>_masks/`, or CAT-Net's list files; a mask is edited above 1 of 255."""

    name: str = "tampcoco"
    title: str = "TampCOCO"
    known: str = "published"
    rank: int = MARKED
    expects: str = "{cm,sp,bcm,bcmc}_{images,masks}/, and *_list.txt with lines picture,mask"
    kinds: tuple[tuple[str, str], ...] = (
        ("cm", "copy-move"),
        ("sp", "splicing"),
        ("bcm", "copy-move, small"),
        ("bcmc", "copy-move, small, compressed"),
    )

    def recognise(self, tree: Tree) -> Signs:
        """By images beside masks."""
        if tree.is_file:
            return Signs()
        have = [k for k, _ in self.kinds if {f"{k}_images", f"{k}_masks"} <= set(tree.top.folders)]
        return Signs(seen=tuple(f"{k}_images/ beside {k}_masks/" for k in have))

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        words = dict(self.kinds)
        items: list[Item] = []
        lists = [p for p in tree.top.paths() if p.name.casefold().endswith("_list.txt")]
        if lists:
            for path in lists:
                kind = words.get(path.name.split("_")[0].casefold(), "tampered")
                items += self._listed(path, tree, kind)
            return Reading(items=tuple(items), notes=_notes(items), asks=TAMPERED, one_class=True)
        for key, kind in self.kinds:
            images, masks = tree.top.at(f"{key}_images"), tree.top.at(f"{key}_masks")
            if images is None or masks is None:
                continue
            by_stem = _stems([masks])
            for path in images.under():
                mask = by_stem.get(path.stem.casefold()) or by_stem.get(f"{path.stem}_mask".casefold())
                items.append(_tampered(path, tree, kind, tree.relative(path), mask, rule="any", subset=kind))
        if not items:
            raise DataError(f"{tree.path} holds no pictures in {{cm,sp,...}}_images/ and no *_list.txt.")
        return Reading(items=tuple(items), notes=_notes(items), asks=TAMPERED, one_class=True)

    def _listed(self, path: Path, tree: Tree, kind: str) -> list[Item]:
        out = []
        for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            names = [word.strip() for word in line.split(",")]
            if len(names) < 2:
                raise DataError(f"{path}, line {n}: must be picture,mask, got {line!r}.")
            mask = None if names[1] in ("", "None") else tree.top.path / names[1]
            out.append(_tampered(tree.top.path / names[0], tree, kind, names[0], mask, rule="any", subset=kind))
        return out


@attrs.frozen(kw_only=True)
class Triplets:
    """COCO-Inpaint in the shape that one public trainer reads: `original/`, `modified/` and `mask/` with common stems.

    How the published archive lies is not known here.
    """

    name: str = "coco-inpaint"
    title: str = "COCO-Inpaint"
    known: str = "second-hand"
    rank: int = MARKED
    expects: str = "[images/]{original,modified,mask}/ with common stems (label 1 = inpainted by a generator)"

    def _folders(self, tree: Tree) -> tuple[Folder | None, Folder | None, Folder | None]:
        here = tree.top.inside(("images",), 1)
        names = (("original", "real"), ("modified", "inpainted"), ("mask", "masks"))
        return tuple(next((here.folders[n] for n in ns if n in here.folders), None) for ns in names)  # type: ignore[return-value]

    def recognise(self, tree: Tree) -> Signs:
        """By the three folders."""
        if tree.is_file:
            return Signs()
        have = self._folders(tree)
        return Signs(seen=(" beside ".join(f"{f.name}/" for f in have if f),)) if all(have) else Signs()

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        original, modified, mask = self._folders(tree)
        if original is None or modified is None or mask is None:
            raise DataError(f"{tree.path} must hold {self.expects}, and it has {tree.seen()}.")
        masks = _stems([mask])
        items = [_authentic(p, tree, "COCO", f"coco/{p.stem}") for p in original.under()]
        for p in modified.under():
            found = masks.get(p.stem.casefold()) or masks.get(f"{p.stem}_mask".casefold())
            source = p.parent.name if p.parent != modified.path else "inpainting"
            items.append(_tampered(p, tree, source, f"coco/{p.stem}", found))
        return Reading(items=tuple(items), notes=_notes(items))


def load_json(path: Path) -> object:
    """A JSON file.

    Raises
    ------
    DataError
        It is not one.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}).") from error


KNOWN = (Casia(), Columbia(), Coverage(), Imd2020(), TampCoco(), Triplets(), ImdlJson(), ImdlFolders())

"""Benchmarks whose generated pictures lie by generator, with the real ones elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import attrs

from tellsign.evaluation.items import DataError, Item

from .layout import FAKE, MARKED, NAMED, REAL, Options, Reading, Signs, listed, pictures
from .tree import Folder, Tree, squeezed
from .two_folders import found

_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".avif")
_REALS = ("0_real", "real", "reals", "raise", "raise-1k", "raise1k", "raise_1k", "nature", "imagenet", "coco")


def _reals(here: Folder, tree: Tree, group: str | None = None, subsets: tuple[str, ...] = ()) -> list[Item]:
    """Real pictures that somebody has laid beside the fakes."""
    folder = next((here.folders[n] for n in _REALS if n in here.folders), None)
    if folder is None:
        return []
    return pictures(folder, tree, REAL, folder.name, group=group, subsets=subsets)


@attrs.frozen(kw_only=True)
class Synthbuster:
    """Synthbuster: nine generators, a folder of PNG each; the reals are RAISE-1k and come apart (`--real`)."""

    name: str = "synthbuster"
    title: str = "Synthbuster"
    known: str = "published"
    rank: int = NAMED
    expects: str = "{dalle2,dalle3,firefly,glide,midjourney-v5,stable-diffusion-1-3,...}/*.png; reals by --real"
    generators: tuple[str, ...] = (
        "dalle2",
        "dalle3",
        "firefly",
        "glide",
        "midjourney-v5",
        "stable-diffusion-1-3",
        "stable-diffusion-1-4",
        "stable-diffusion-2",
        "stable-diffusion-xl",
    )

    def recognise(self, tree: Tree) -> Signs:
        """By at least two of its folders, with pictures straight in them."""
        if tree.is_file:
            return Signs()
        here = tree.top.inside(("synthbuster",))
        mine = [g for g in self.generators if g in here.folders]
        direct = [g for g in mine if here.folders[g].holds(*_PICTURES)]
        if len(mine) < 2 and not (mine and tree.named("synthbuster")):
            return Signs()
        strange = [f.name for n, f in here.folders.items() if n not in self.generators and n not in _REALS]
        against: list[str] = []
        if len(direct) < len(mine):
            against.append(f"no picture straight in {listed([g for g in mine if g not in direct])}")
        if strange:
            against.append(f"{listed([f'{n}/' for n in strange])} not among its folders")
        return Signs(
            seen=(f"folders {listed([f'{g}/' for g in mine])}",),
            against=tuple(against),
            named=tree.named("synthbuster"),
        )

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        here = tree.top.inside(("synthbuster",))
        mine = [here.folders[g] for g in self.generators if g in here.folders]
        if not mine:
            raise DataError(f"{tree.path} holds none of {listed(self.generators, 9)}.")
        # Each fake was made after one RAISE photograph and carries its name.
        items = [i for f in mine for i in pictures(f, tree, FAKE, f.name, subsets=(f.name,), group="raise")]
        items += _reals(here, tree, "raise", tuple(f.name for f in mine))
        return Reading(items=tuple(items), one_class=True)


@attrs.frozen(kw_only=True)
class Drct2m:
    """DRCT-2M: `train2017/` and `val2017/` below each generator; reals are MSCOCO's, in `MSCOCO/` or by `--real`."""

    name: str = "drct-2m"
    title: str = "DRCT-2M"
    known: str = "published"
    rank: int = MARKED
    expects: str = "<generator>/{train2017,val2017}/; reals in MSCOCO/val2017/ or by --real"

    def recognise(self, tree: Tree) -> Signs:
        """By `val2017` or `train2017` below several names."""
        if tree.is_file:
            return Signs()
        here = tree.top.inside(("drct-2m", "drct_2m"))
        mine = [f.name for f in here.folders.values() if "val2017" in f.folders or "train2017" in f.folders]
        fakes = [n for n in mine if n.casefold() != "mscoco"]
        if not fakes:
            return Signs()
        return Signs(seen=(f"val2017/ or train2017/ below {listed(fakes)}",), named=tree.named("drct"))

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        here = tree.top.inside(("drct-2m", "drct_2m"))
        asked = {"val": "val2017", "train": "train2017", "test": "val2017"}.get(options.split or "", options.split)
        split = asked or ("val2017" if any("val2017" in f.folders for f in here.folders.values()) else "train2017")
        generators = [f for n, f in here.folders.items() if split in f.folders and n != "mscoco"]
        if not generators:
            raise DataError(f"{tree.path} has no {split}/ below a generator; this layout is {self.expects}.")
        items: list[Item] = []
        for f in generators:
            # Named by the COCO picture whose caption (or whose pixels) they were made from.
            items += pictures(f.folders[split], tree, FAKE, f.name, subsets=(f.name,), group="coco")
        if coco := here.at("mscoco", split):
            every = tuple(f.name for f in generators)
            items += pictures(coco, tree, REAL, "MSCOCO", subsets=every, group="coco")
        return Reading(items=tuple(items), one_class=True, split=split)


@attrs.frozen(kw_only=True)
class UnivFd:
    """UnivFD's diffusion sets: fakes below each generator, reals in `imagenet/` (guided) and `laion/` (the rest)."""

    name: str = "univfd-diffusion"
    title: str = "UnivFD diffusion"
    known: str = "published"
    rank: int = MARKED
    expects: str = "{guided,ldm_200,ldm_200_cfg,ldm_100,glide_*,dalle}/1_fake/ and {imagenet,laion}/0_real/"

    def _generators(self, here: Folder) -> list[Folder]:
        names = ("guided", "dalle")
        return [
            f
            for n, f in here.folders.items()
            if "1_fake" in f.folders and (n in names or n.startswith(("ldm_", "glide_")))
        ]

    def recognise(self, tree: Tree) -> Signs:
        """By reals that lie apart from the generators that they serve."""
        if tree.is_file:
            return Signs()
        here = tree.top.inside(("diffusion_datasets", "universalfakedetect"))
        reals = [n for n in ("imagenet", "laion") if here.at(n, "0_real")]
        mine = self._generators(here)
        if not reals or not mine:
            return Signs()
        own = [f.name for f in mine if "0_real" in f.folders]
        against = (f"{listed(own)} with reals of their own",) if own else ()
        return Signs(
            seen=(f"{listed([f'{r}/0_real' for r in reals])} beside {listed([f'{f.name}/1_fake' for f in mine])}",),
            against=against,
        )

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        here = tree.top.inside(("diffusion_datasets", "universalfakedetect"))
        mine = self._generators(here)
        if not mine:
            raise DataError(f"{tree.path} holds none of the generators; this layout is {self.expects}.")
        items: list[Item] = []
        for f in mine:
            items += pictures(f.folders["1_fake"], tree, FAKE, f.name, subsets=(f.name,))
        for real, serves in (
            ("imagenet", [f.name for f in mine if f.name.casefold() == "guided"]),
            ("laion", [f.name for f in mine if f.name.casefold() != "guided"]),
        ):
            folder = here.at(real, "0_real")
            if folder is not None and serves:
                items += pictures(folder, tree, REAL, real, subsets=tuple(serves))
        return Reading(items=tuple(items))


@attrs.frozen(kw_only=True)
class EvalGenFolders:
    """EvalGEN with pictures straight in the generators' folders."""

    name: str = "evalgen-folders"
    title: str = "EvalGEN"
    known: str = "second-hand"
    rank: int = NAMED
    expects: str = "{OmniGen,NOVA,Infinity,GoT,Flux}/*; no real pictures, --real adds some"
    generators: tuple[str, ...] = ("omnigen", "nova", "infinity", "got", "flux")

    def recognise(self, tree: Tree) -> Signs:
        """By at least two of its names and nothing else."""
        if tree.is_file:
            return Signs()
        here = tree.top.inside(("evalgen", "geneval-jpeg"))
        mine = [f for n, f in here.folders.items() if n in self.generators]
        only = [f for f in mine if f.name.casefold() in ("omnigen", "nova", "got")]
        if len(mine) < 2 or not only or any(list(found(f, (("0_real", "1_fake"),), 1)) for f in mine):
            return Signs()
        strange = [f.name for n, f in here.folders.items() if n not in self.generators and n not in _REALS]
        against = (f"{listed([f'{n}/' for n in strange])} not among its folders",) if strange else ()
        return Signs(seen=(f"folders {listed([f'{f.name}/' for f in mine])}",), against=against)

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        here = tree.top.inside(("evalgen", "geneval-jpeg"))
        mine = [f for n, f in here.folders.items() if n in self.generators]
        if not mine:
            raise DataError(f"{tree.path} holds none of {listed(self.generators)}.")
        items = [i for f in mine for i in pictures(f, tree, FAKE, f.name, subsets=(f.name,))]
        items += _reals(here, tree, subsets=tuple(f.name for f in mine))
        return Reading(items=tuple(items), one_class=True)


@attrs.frozen(kw_only=True)
class GptImgEval:
    """GPT-ImgEval: pictures of GPT-4o. How the archive lies is not known here: every picture counts as generated."""

    name: str = "gpt-imgeval"
    title: str = "GPT-ImgEval"
    known: str = "from memory"
    rank: int = MARKED
    expects: str = "a folder named GPT-ImgEval; every picture in it is GPT-4o's, but for those in real/ or imagenet/"

    def recognise(self, tree: Tree) -> Signs:
        """By the folder's name alone."""
        if tree.is_file or "gptimgeval" not in squeezed(tree.path.resolve().name):
            return Signs()
        if list(found(tree.top, (("0_real", "1_fake"),))):
            return Signs()  # somebody has sorted it into the usual pair
        return Signs(seen=(f"the name {tree.path.name}/",), named=True)

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        reals = _reals(tree.top, tree, subsets=("GPT-4o",))
        apart = {i.path for i in reals}
        fakes = [
            i
            for i in pictures(tree.top, tree, FAKE, "GPT-4o", subsets=("GPT-4o",))
            if i.path not in apart and i.path.suffix.casefold() in _PICTURES
        ]
        return Reading(items=(*fakes, *reals), one_class=True)


@attrs.frozen(kw_only=True)
class ShareGpt4o:
    """ShareGPT-4o-Image: JSON lists of GPT-4o's outputs; the inputs of its edits are somebody else's pictures."""

    name: str = "sharegpt-4o-image"
    title: str = "ShareGPT-4o-Image"
    known: str = "second-hand"
    rank: int = MARKED
    expects: str = "text_to_image.json and text_and_image_to_image.json, whose output_image is read"
    lists: tuple[str, ...] = ("text_to_image.json", "text_and_image_to_image.json")

    def recognise(self, tree: Tree) -> Signs:
        """By its two lists."""
        if tree.is_file:
            return Signs()
        have = [n for n in self.lists if tree.top.file(n)]
        return Signs(seen=tuple(have))

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        items: dict[str, Item] = {}
        for name in self.lists:
            path = tree.top.file(name)
            if path is None:
                continue
            kind = "edited" if "and_image" in name else "from text"
            for output in _outputs(path):
                items[output] = Item(
                    path=(options.root or tree.top.path) / output,
                    name=output,
                    label=FAKE,
                    source="GPT-4o",
                    group=output,
                    subsets=(f"GPT-4o, {kind}",),
                )
        if not items:
            raise DataError(f"{tree.path} has no {' or '.join(self.lists)} that names an output_image.")
        every = tuple(dict.fromkeys(s for i in items.values() for s in i.subsets))
        return Reading(items=(*items.values(), *_reals(tree.top, tree, subsets=every)), one_class=True)


def _outputs(path: Path) -> Iterator[str]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        for row in rows:
            value = row.get("output_image")
            if isinstance(value, str) and value:
                yield value
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path} is not a JSON list of objects with output_image ({error}).") from error


@attrs.frozen(kw_only=True)
class AigiNow:
    """AIGI-Now: a `semantic` and a `pixel` half per generator, each a pair of folders or fakes alone."""

    name: str = "aigi-now"
    title: str = "AIGI-Now"
    known: str = "second-hand"
    rank: int = MARKED
    expects: str = "<generator>/{semantic,pixel}/ or {semantic,pixel}/<generator>/, each {0_real,1_fake}/ or pictures"

    def _halves(self, here: Folder) -> list[tuple[str, str, Folder]]:
        names = ("semantic", "pixel")
        out = [(g.name, n, g.folders[n]) for g in here.folders.values() for n in names if n in g.folders]
        for n in names:
            if n in here.folders:
                out += [(g.name, n, g) for g in here.folders[n].folders.values()]
        return out

    def recognise(self, tree: Tree) -> Signs:
        """By the names of its two halves."""
        if tree.is_file:
            return Signs()
        halves = self._halves(tree.top.inside(("aigi-now", "test")))
        if {half for _, half, _ in halves} != {"semantic", "pixel"}:
            return Signs()
        return Signs(seen=(f"semantic/ and pixel/ of {listed(sorted({g for g, _, _ in halves}))}",))

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        items: list[Item] = []
        for generator, half, folder in self._halves(tree.top.inside(("aigi-now", "test"))):
            subset = (f"{generator}, {half}",)
            real, fake = (
                next((folder.folders[n] for n in names if n in folder.folders), None)
                for names in (("0_real", "real"), ("1_fake", "fake"))
            )
            if real is None and fake is None:
                items += pictures(folder, tree, FAKE, generator, subsets=subset)
                continue
            if fake is not None:
                items += pictures(fake, tree, FAKE, generator, subsets=subset)
            if real is not None:
                items += pictures(real, tree, REAL, f"reals of {generator}", subsets=subset)
        if not items:
            raise DataError(f"{tree.path} holds no semantic/ or pixel/ half; this layout is {self.expects}.")
        return Reading(items=tuple(items), one_class=not any(i.label == REAL for i in items))


KNOWN = (AigiNow(), UnivFd(), Drct2m(), ShareGpt4o(), GptImgEval(), Synthbuster(), EvalGenFolders())

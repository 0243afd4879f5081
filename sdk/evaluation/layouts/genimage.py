"""GenImage: `ai/` and `nature/` below a generator, with or without the folder that its archive makes."""

from __future__ import annotations

import attrs

from tellsign.evaluation.items import DataError, Item

from .layout import FAKE, MARKED, REAL, Options, Reading, Signs, listed, pictures
from .tree import Folder, Tree, squeezed
from .two_folders import found

KINDS = (("nature", "ai"),)
"""`ai` is label 1. By alphabet it would come first and be taken for 0, and so would an accuracy be turned over."""
GENERATORS = {
    "sdv4": "Stable Diffusion V1.4",
    "stablediffusionv14": "Stable Diffusion V1.4",
    "sdv5": "Stable Diffusion V1.5",
    "stablediffusionv15": "Stable Diffusion V1.5",
    "midjourney": "Midjourney",
    "adm": "ADM",
    "wukong": "Wukong",
    "glide": "GLIDE",
    "vqdm": "VQDM",
    "biggan": "BigGAN",
}
"""How the eight are called in the paper's tables, by what their folders are called."""
_SPLITS = ("train", "val", "test")


def generator(parts: tuple[str, ...], fallback: str) -> str:
    """Name of the generator, out of the names that lead to a pair."""
    names = [p for p in parts if p.casefold() not in _SPLITS] or [fallback]
    for name in reversed(names):  # the archive's own folder (imagenet_ai_0508_adm) is the more certain one
        flat = squeezed(name)
        for key in sorted(GENERATORS, key=len, reverse=True):
            if flat == key or flat.endswith(key):
                return GENERATORS[key]
    return names[0]


@attrs.frozen(kw_only=True)
class GenImage:
    """GenImage, whole or in part; `val` is read unless another split is asked."""

    name: str = "genimage"
    title: str = "GenImage"
    known: str = "second-hand"
    rank: int = MARKED
    expects: str = "<generator>/[imagenet_*/]{train,val}/{ai,nature}/"

    def recognise(self, tree: Tree) -> Signs:
        """By `ai` beside `nature`."""
        if tree.is_file:
            return Signs()
        leaves = [(parts, leaf) for parts, leaf in found(tree.top, KINDS) if "nature" in leaf.folders]
        if not leaves:
            return Signs()
        against = () if any("ai" in leaf.folders for _, leaf in leaves) else ("nature/ is here, and no ai/",)
        names = list(dict.fromkeys(generator(p, tree.path.name) for p, _ in leaves))
        return Signs(seen=(f"ai/ beside nature/ for {listed(names)}",), against=against, named=tree.named("genimage"))

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        leaves = list(found(tree.top, KINDS))
        splits = list(dict.fromkeys(s for parts, _ in leaves if (s := _split(parts))))
        split = options.split or ("val" if "val" in splits else None)
        if split is not None and split not in splits:
            raise DataError(f"{tree.path} has no split {split}; it has {listed(splits) or 'none'}.")
        items: list[Item] = []
        for parts, leaf in leaves:
            if split is not None and _split(parts) != split:
                continue
            name = generator(parts, tree.path.name)
            items += _pair(leaf, tree, name)
        if not items:
            raise DataError(f"{tree.path} holds no ai/ and nature/ with files in it; this layout is {self.expects}.")
        return Reading(items=tuple(items), split=split)


def _pair(leaf: Folder, tree: Tree, name: str) -> list[Item]:
    items: list[Item] = []
    if ai := leaf.at("ai"):
        items += pictures(ai, tree, FAKE, name, subsets=(name,))
    if nature := leaf.at("nature"):
        # One ImageNet picture may serve several generators; its copies are one thing to the bootstrap.
        items += pictures(nature, tree, REAL, "ImageNet", subsets=(name,), group="imagenet")
    return items


def _split(parts: tuple[str, ...]) -> str | None:
    return next((p.casefold() for p in reversed(parts) if p.casefold() in _SPLITS), None)


GENIMAGE = GenImage()

"""Benchmarks whose classes are two folders, `0_real` and `1_fake` or the like, once or below names.

CNNDetection made the shape, and most benchmarks since have kept it: the level above the pair is the generator (or the
site), a level between the two is a class of content, which the authors merge before they average.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from tellsign.evaluation.items import DataError, Item

from .layout import FAKE, MARKED, NAMED, PLAIN, REAL, SHAPED, Options, Reading, Signs, listed, pictures
from .tree import Folder, Tree, squeezed

NUMBERED = ("0_real", "1_fake")
WORDS = ("real", "fake")
DIGITS = ("0", "1")
PAIRS = (NUMBERED, WORDS, DIGITS)
"""Folder of the real pictures, folder of the AI ones. Never by alphabet: GenImage's `ai` sorts before `nature`."""
_SPLITS = ("train", "val", "test")


def found(
    folder: Folder, kinds: tuple[tuple[str, str], ...], depth: int = 3
) -> Iterator[tuple[tuple[str, ...], Folder]]:
    """Folders that hold at least one of a pair, with the names that lead to them."""
    if any(name in folder.folders for kind in kinds for name in kind):
        yield (), folder
    elif depth:
        for child in folder.folders.values():
            for parts, leaf in found(child, kinds, depth - 1):
                yield (child.name, *parts), leaf


def sides(leaf: Folder, kinds: tuple[tuple[str, str], ...]) -> dict[int, Folder]:
    """The folders of the two classes by label, as far as they are there."""
    for real, fake in kinds:
        have = {label: leaf.folders[name] for label, name in ((REAL, real), (FAKE, fake)) if name in leaf.folders}
        if have:
            return have
    return {}


def step_into(tree: Tree, wrappers: tuple[str, ...], options: Options) -> tuple[Folder, str | None]:
    """The folder of the asked split, and the split; `test` where there are several and none is asked."""
    here = tree.top.inside(wrappers)
    there = [s for s in _SPLITS if s in here.folders]
    if options.split is not None:
        if options.split.casefold() not in here.folders:
            raise DataError(f"{tree.path} has no split {options.split}; it has {listed(there) or 'none'}.")
        return here.folders[options.split.casefold()], options.split
    for name in ("test", "testset", "val"):
        if name in here.folders:
            return here.folders[name], name
    return here, None


def _among(name: str, names: tuple[str, ...]) -> bool:
    """Whether a folder is one of the names; one that ends in a star stands for all that begin so."""
    flat = squeezed(name)
    return any(flat.startswith(squeezed(n)) if n.endswith("*") else flat == squeezed(n) for n in names)


@attrs.frozen(kw_only=True)
class TwoFolders:
    """A benchmark of pairs of folders below the names of generators or sites.

    Attributes
    ----------
    names : tuple of str
        Names of the folders above the pairs, as published; empty means that there is none and the pair is on top.
    wrappers : tuple of str
        Folders that may stand above those.
    only : tuple of str
        Names that this benchmark alone has; where some are there, nothing else needs to be looked at.
    fakes_only : bool
        Published without real pictures.
    """

    name: str
    title: str
    names: tuple[str, ...]
    known: str
    wrappers: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    fakes_only: bool = False
    kinds: tuple[tuple[str, str], ...] = (NUMBERED,)
    rank: int = NAMED

    @property
    def expects(self) -> str:
        """See `Layout.expects`."""
        pair = f"{self.kinds[0][1]}/" if self.fakes_only else "{" + ",".join(self.kinds[0]) + "}/"
        return f"{{{listed(self.names, 4)}}}/[<class>/]{pair}" if self.names else f"{self.title}/test/{pair}"

    def recognise(self, tree: Tree) -> Signs:
        """By the names above the pairs: all of them must be this benchmark's."""
        if tree.is_file:
            return Signs()
        named = tree.named(self.title, self.name)
        here, _ = step_into(tree, self.wrappers, Options())
        leaves = list(found(here, self.kinds))
        if not leaves:
            return Signs()
        if not self.names:
            if not named or any(parts for parts, _ in leaves):
                return Signs()
            return Signs(seen=(f"{tree.path.name}/ with {' and '.join(self.kinds[0])}",), named=True)
        have = list(dict.fromkeys(parts[0] for parts, _ in leaves if parts))
        mine = [n for n in have if _among(n, self.names)]
        strange = [n for n in have if not _among(n, self.names)]
        against: list[str] = []
        if strange:
            against.append(f"{listed([f'{n}/' for n in strange])} not among its folders")
        if any(not parts for parts, _ in leaves):
            against.append("the pair of classes lies on top, with no name above it")
        if self.fakes_only and any(REAL in sides(leaf, self.kinds) for _, leaf in leaves):
            against.append("it is published without real pictures, and some are here")
        if not self.fakes_only and all(REAL not in sides(leaf, self.kinds) for _, leaf in leaves):
            against.append("no real picture is here")
        if self.only and not named and not any(_among(n, self.only) for n in have):
            against.append(f"none of {listed(self.only)}, which it alone has")
        seen = (f"folders {listed([f'{n}/' for n in mine])}",) if mine else ()
        return Signs(seen=seen, against=tuple(against), named=named)

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        here, split = step_into(tree, self.wrappers, options)
        return read_pairs(tree, here, self.kinds, self.title, split, self.expects, one_class=self.fakes_only)


@attrs.frozen(kw_only=True)
class AnyPairs:
    """Pairs of folders below any names: what most benchmarks that are not known here look like."""

    name: str = "pairs-below-names"
    title: str = "pairs of folders below names"
    known: str = "published"
    rank: int = SHAPED
    expects: str = "<generator>/[<class>/]{0_real,1_fake}/ (or {real,fake}, {0,1})"

    def recognise(self, tree: Tree) -> Signs:
        """By the shape; all pairs must be named alike."""
        if tree.is_file:
            return Signs()
        here, _ = step_into(tree, (), Options())
        for kind in PAIRS:
            leaves = list(found(here, (kind,)))
            if not leaves or not any(REAL in sides(f, (kind,)) for _, f in leaves):
                continue
            if leaves[0][0] == () and kind != NUMBERED and here is tree.top:
                return Signs()  # the plain layout
            other = [o for o in PAIRS if o != kind and list(found(here, (o,)))]
            against = (f"some classes are called {' and '.join(other[0])} instead",) if other else ()
            at = f"below {listed([p[0] for p, _ in leaves if p])}" if any(p for p, _ in leaves) else "on top"
            return Signs(seen=(f"{' and '.join(kind)} {at}",), against=against)
        return Signs()

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        here, split = step_into(tree, (), options)
        return read_pairs(tree, here, PAIRS, tree.path.name, split, self.expects)


def read_pairs(
    tree: Tree,
    here: Folder,
    kinds: tuple[tuple[str, str], ...],
    title: str,
    split: str | None,
    expects: str,
    *,
    one_class: bool = False,
) -> Reading:
    """Items of every pair below `here`; the first name above a pair is the generator, the others are merged into it."""
    items: list[Item] = []
    merged: dict[str, set[str]] = {}
    for parts, leaf in found(here, kinds):
        subset = parts[0] if parts else title
        if len(parts) > 1:
            merged.setdefault(subset, set()).add(parts[1])
        for label, folder in sides(leaf, kinds).items():
            items += pictures(folder, tree, label, subset, subsets=(subset,))
    if not items:
        raise DataError(f"{tree.path} holds no {' or '.join(kinds[0])} with files in it; this layout is {expects}.")
    notes = tuple(
        f"{name}: {len(classes)} classes merged before averaging, as the authors do."
        for name, classes in merged.items()
        if len(classes) > 1
    )
    return Reading(items=tuple(items), notes=notes, one_class=one_class, split=split)


_GANS = ("progan", "stylegan", "biggan", "cyclegan", "stargan", "gaugan", "stylegan2")
_DIFFUSION = (
    "ADM",
    "Glide",
    "Midjourney",
    "stable_diffusion_v_1_4",
    "stable_diffusion_v_1_5",
    "VQDM",
    "wukong",
    "DALLE2",
    "sd_xl",
)
FORENSYNTHS = TwoFolders(
    name="forensynths",
    title="ForenSynths",
    names=(*_GANS, "whichfaceisreal", "crn", "imle", "deepfake", "san", "seeingdark"),
    known="published",
    wrappers=("forensynths", "cnndetection", "cnn_synth_testset", "dataset"),
    only=("crn", "imle", "deepfake", "san", "seeingdark"),
)
AIGCDETECT = TwoFolders(
    name="aigcdetect",
    title="AIGCDetectBenchmark",
    names=(*_GANS, "whichfaceisreal", *_DIFFUSION),
    known="published",
    wrappers=("aigcdetectbenchmark", "aigcdetectionbenchmark", "aigcdetect", "aigc_bm"),
    only=_DIFFUSION,
)
AIGI_HOLMES = TwoFolders(
    name="aigi-holmes",
    title="AIGI-Holmes",
    names=("FLUX", "Infinity", "Janus*", "LlamaGen", "PixArt-XL", "SD35-L", "Show-o", "VAR"),
    known="published",
    wrappers=("aigi-holmes", "testset"),
    only=("LlamaGen", "PixArt-XL", "SD35-L", "Show-o", "VAR", "Janus*"),
)
CHAMELEON = TwoFolders(
    name="chameleon", title="Chameleon", names=(), known="second-hand", wrappers=("chameleon",), rank=MARKED
)
WILDRF = TwoFolders(
    name="wildrf",
    title="WildRF",
    names=("facebook", "reddit", "twitter"),
    known="published",
    wrappers=("wildrf",),
)
AIGIBENCH_WILD = TwoFolders(
    name="aigibench",
    title="AIGIBench",
    names=("SocialRF", "CommunityAI"),
    known="second-hand",
    wrappers=("aigibench",),
)
CO_SPY = TwoFolders(
    name="co-spy",
    title="CO-SPY-In-the-Wild",
    names=("midjourney", "lexica", "flux", "dalle3", "civitai", "instavibeai"),
    known="second-hand",
    wrappers=("co-spy-in-the-wild", "co-spy"),
    only=("lexica", "civitai", "instavibeai"),
)
EVALGEN = TwoFolders(
    name="evalgen",
    title="EvalGEN",
    names=("OmniGen", "NOVA", "Infinity", "GoT", "Flux"),
    known="second-hand",
    wrappers=("evalgen", "geneval-jpeg"),
    only=("OmniGen", "NOVA", "GoT"),
    fakes_only=True,
)
BFREE_FOLDERS = TwoFolders(
    name="bfree-folders",
    title="BFree-Online",
    names=(),
    known="second-hand",
    wrappers=("b-free", "bfree-online"),
    rank=MARKED,
)
SYNTHWILDX_FOLDERS = TwoFolders(
    name="synthwildx-folders",
    title="SynthWildX",
    names=("dalle3", "firefly", "midjourney_v5"),
    known="second-hand",
    wrappers=("synthwildx",),
    only=("firefly",),
)
KNOWN = (
    CHAMELEON,
    BFREE_FOLDERS,
    FORENSYNTHS,
    AIGCDETECT,
    AIGI_HOLMES,
    WILDRF,
    AIGIBENCH_WILD,
    CO_SPY,
    EVALGEN,
    SYNTHWILDX_FOLDERS,
)
ANY_PAIRS = AnyPairs()


@attrs.frozen(kw_only=True)
class Plain:
    """`real/` and `fake/` (or `0/` and `1/`), whose sub-folders name the sources and the generators."""

    name: str = "plain"
    title: str = "two folders"
    known: str = "published"
    rank: int = PLAIN
    expects: str = "{real,fake}/[<source or generator>/] or {0,1}/"

    def recognise(self, tree: Tree) -> Signs:
        """By the two names."""
        if tree.is_file:
            return Signs()
        have = [kind for kind in (WORDS, DIGITS) if all(n in tree.top.folders for n in kind)]
        against = ("real/, fake/ and 0/, 1/ are both here",) if len(have) > 1 else ()
        return Signs(seen=tuple(f"{a}/ and {b}/" for a, b in have), against=against)

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        if options.split is not None:
            raise DataError(f"--split {options.split} needs a CSV with a column split, and {tree.path} is a folder.")
        kind = WORDS if any(n in tree.top.folders for n in WORDS) else DIGITS
        have = sides(tree.top, (kind,))
        if len(have) < 2:
            raise DataError(f"The folder {tree.path} must hold real/ and fake/, and it has {tree.seen()}.")
        items: list[Item] = []
        for label in (REAL, FAKE):
            items += plain_pictures(have[label], tree, label)
        return Reading(items=tuple(items))


def plain_pictures(side: Folder, tree: Tree, label: int) -> list[Item]:
    """Every file of a class; its first folder is the source or the generator."""
    out = []
    for path in side.under():
        inside = path.relative_to(side.path).parts
        name = tree.relative(path)
        source = inside[0] if len(inside) > 1 else side.name
        out.append(Item(path=path, name=name, label=label, source=source, group=name))
    return out


PLAIN_FOLDERS = Plain()

"""The segmentation plugin: two maps, what they amount to, and the regions that they mark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tellsign.errors import SettingError
from tellsign.plugin import DetectorPlugin, UnavailableError
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import Box, Category, Declaration, Evidence, SegmentationView, View
from tellsign.weights.files import version_of

from .enhancement import lattice
from .model import MASKS
from .regions import CUT, Region, log_odds, own_cut, regions, snap
from .sam import Proposer, sam_proposer
from .scan import MINIMUM, MOST, Scan, forward_of, scan
from .weights_files import GAMMA, load_gamma

SETTINGS = ("weights", "tiles", "sam", "classes")
CELLS = 512
"""Longest side of a map in cells."""
LIMIT = 30.0

SURE = {"ai": 0.85, "manipulation": 0.95}
"""How high a map's highest hundredth must be before its regions are told as findings: at most one photograph in a
hundred of any source of `fuse`, whole or in windows, gets there (docs/segmentation.md)."""

_NOTES = {
    "ai": "looks synthesised and its surroundings do not",
    "manipulation": "looks moved, pasted or painted",
}
REBUILT = (
    "looks up-scaled or rebuilt by a network as a whole: its finest detail repeats every two or four pixels; "
    "that is enhancement and does not count towards the verdict"
)


class SegmentationDetector(DetectorPlugin):
    """Maps of synthesised and of moved pixels.

    Settings
    --------
    weights : path
        Another network in the shipped file's format (`training.export`).
    tiles : int
        Tiles that one picture is given at most; 2 or more.
    sam : path
        A checkpoint of MobileSAM or segment-anything, to whose objects the maps are then snapped; slow on a CPU.
        Without it the maps stay as they are.
    classes : bool
        Tell the class's scores `generated` and `edited` too. They are near chance on unseen sources
        (docs/segmentation.md), so by default they are not told and the fusion has no column for them.
    """

    def __init__(self, declaration: Declaration, settings: Mapping[str, object]) -> None:
        super().__init__(declaration, settings)
        for name in settings:
            if name not in SETTINGS:
                raise SettingError(f"settings of {declaration.name}", ", ".join(SETTINGS), name)
        paths: dict[str, Path | None] = {}
        for name in ("weights", "sam"):
            value = settings.get(name)
            if not isinstance(value, str | Path | None):
                raise SettingError(name, "a path", value)
            paths[name] = None if value is None else Path(value)
        most = settings.get("tiles", MOST)
        if not isinstance(most, int) or isinstance(most, bool) or most < 2:
            raise SettingError("tiles", "an integer of at least 2", most)
        classes = settings.get("classes", False)
        if not isinstance(classes, bool):
            raise SettingError("classes", "true or false", classes)
        self.classes = classes
        self.most = most
        self.file = paths["weights"] or GAMMA
        self.sam: Proposer | None = None if paths["sam"] is None else sam_proposer(paths["sam"])

    def setup(self, runtime: DeviceRuntime) -> None:
        """See whether the weights are there."""
        if not self.file.is_file():
            raise UnavailableError(f"the weights of {self.declaration.name} are not at {self.file}")

    def detect(self, views: Sequence[View], runtime: DeviceRuntime) -> Sequence[Sequence[Evidence]]:
        """Look at each picture; to a small one the plugin does not apply."""
        mine = [v for v in views if isinstance(v, SegmentationView)]
        if len(mine) != len(views):
            raise TypeError("the segmentation plugin takes SegmentationView only")
        out: list[list[Evidence]] = []
        for view in mine:
            height, width = view.image.shape[:2]
            if min(height, width) < MINIMUM:
                reason = f"a picture of {width} x {height} px is too small for a map of its parts"
                out.append([self.not_applicable(reason)])
                continue
            with runtime.use(f"segmentation:{self.file}", lambda: load_gamma(self.file)) as model:
                seen = scan(view.image, forward_of(model, runtime.device), batch=runtime.batch_size, most=self.most)
            out.append(self._evidence(view.image, seen))
        return out

    def _evidence(self, image: NDArray[np.uint8], seen: Scan) -> list[Evidence]:
        height, width = image.shape[:2]
        model, whole = version_of(self.file), Box(0, 0, width, height)
        maps = {name: shrink(seen.maps[name]) for name in MASKS}
        if self.sam is not None:
            objects = self.sam(image, maps["ai"].shape)
            maps = {name: snap(heat, objects) for name, heat in maps.items()}
        scores = {"tampered": log_odds(highest(maps["manipulation"]))}
        if self.classes:
            scores |= {"generated": float(seen.logits.mean(dtype=np.float64)), "edited": float(seen.logits.max())}
        found: list[Evidence] = [
            self.score(name, probability(value), logit=float(np.clip(value, -LIMIT, LIMIT)), model=model)
            for name, value in scores.items()
        ]
        found += [self.map(name, heat, box=whole, model=model) for name, heat in maps.items()]
        for name, heat in maps.items():
            if highest(heat) >= SURE[name]:
                cut = own_cut(heat) if name == "manipulation" else CUT
                found += [self._finding(name, region, model) for region in regions(heat, width, height, cut)]
        peaks = lattice(image)
        if peaks is not None and peaks.rebuilt:
            found.append(self.finding(Category.TEXTURE, float(1 - np.exp(-peaks.quarters)), note=REBUILT, model=model))
        return found

    def _finding(self, name: str, region: Region, model: str) -> Evidence:
        note = f"{100 * region.area:.1f} % of the picture {_NOTES[name]} (contrast {region.contrast:.2f})"
        return self.finding(Category.TEXTURE, region.strength, region=region.box, note=note, model=model)

    def bench_forward(self, views: Sequence[View], runtime: DeviceRuntime) -> Callable[[], object]:
        """The bare forward passes of `detect`, for `tellsign bench`."""
        images = [v.image for v in views if isinstance(v, SegmentationView) and min(v.image.shape[:2]) >= MINIMUM]

        def forward() -> object:
            with runtime.use(f"segmentation:{self.file}", lambda: load_gamma(self.file)) as model:
                look = forward_of(model, runtime.device)
                return [scan(i, look, batch=runtime.batch_size, most=self.most).logits for i in images]

        return forward


def shrink(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map averaged down so that its longer side has at most `CELLS` cells."""
    step = -(-max(heat.shape) // CELLS)
    if step == 1:
        return heat
    rows, columns = (np.arange(0, n, step) for n in heat.shape)
    sums = np.add.reduceat(np.add.reduceat(heat, rows, axis=0, dtype=np.float64), columns, axis=1)
    sizes = np.outer(np.diff(np.append(rows, heat.shape[0])), np.diff(np.append(columns, heat.shape[1])))
    return np.asarray(sums / sizes, np.float32)


def highest(heat: NDArray[np.float32]) -> float:
    """Mean of the highest hundredth of a map's cells."""
    count = max(1, -(-heat.size // 100))
    return float(np.partition(heat, heat.size - count, axis=None)[-count:].mean(dtype=np.float64))


def probability(logit: float) -> float:
    """The logistic function."""
    return float(1 / (1 + np.exp(-np.clip(logit, -LIMIT, LIMIT))))


__all__ = ["SegmentationDetector", "highest", "log_odds", "probability", "shrink"]

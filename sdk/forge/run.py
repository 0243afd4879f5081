"""Forges a set: which scene gets which kinds, the files, the manifest, and going on after a stop."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tellsign.errors import SettingError

from .align import aligned, jpeg96, png
from .errors import ForgeError
from .labels import KINDS, TRUTH, Extent
from .manifest import FIELDS, NAME, ONES, PROVENANCE, ForgedRow, append, line, mend
from .masks import check_shares
from .photos import FACTORS, SIDES, Photo, Sized, scan
from .render import Forged, render
from .scene import Scene, World, draw_scene
from .tools import NEEDS, Tools

SETTINGS = "forge.json"
SHARES: Mapping[str, float] = {"rectangle": 1.0, "freeform": 1.0, "sam": 1.0}
"""Equal parts of each shape; SAM's part goes to the others where there is no SAM."""
Progress = Callable[[str, int, int], None]


@attrs.frozen(kw_only=True)
class Report:
    """What a run did."""

    counts: dict[str, int]
    """Kind -> pictures in the folder, those of earlier runs included."""
    made: int
    """Pictures that this run made."""
    left_out: list[tuple[str, str]]
    """Name of a picture, or of a forgery, and why there is none."""


def forge(
    photos: Sequence[Photo],
    out: Path,
    kinds: Mapping[str, int | None] | Sequence[str],
    *,
    tools: Tools | None = None,
    scenes: int | None = None,
    shares: Mapping[str, float] = SHARES,
    history: str = "erase",
    container: str = "png",
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Make forgeries of photographs.

    The same photos, settings and seed give the same files. A run that was stopped goes on where it was when it is
    called again; more kinds and larger counts may be asked for then.

    Parameters
    ----------
    photos : sequence of Photo
        Real ones are bases and donors; generated ones (`fake`) are used whole and spliced in.
    out : Path
        Receives `pictures/`, `masks/`, `manifest.csv`, `provenance.jsonl` and `forge.json`; made where it is not there.
    kinds : mapping from kind to count, or sequence of kinds
        Kinds of `labels.KINDS`; a count of None is one per scene.
    tools : Tools, optional
        Networks and masks; without them only kinds that need none can be made.
    scenes : int, optional
        How many scenes (a base and a region) the forgeries are made of; by default as many as there are bases.
    shares : mapping from shape to share
        Of the regions, see `masks.SHAPES`; "annotation" must be named to be used.
    history : {"erase", "keep"}, default "erase"
        "erase": windows of 224 to 384 px, scaled down with a random phase, so that a forgery and an untouched picture
        have one history. "keep": whole pictures; untouched ones keep their bytes, forged ones become JPEG 96 (GAMMA).
    container : {"png", "jpeg"}, default "png"
        Of windows, whatever their kind; JPEG is quality 96 with full colour.
    seed : int, default 0
        Non-negative.
    progress : callable of (what, done, total), optional

    Returns
    -------
    Report

    Raises
    ------
    SettingError
        A parameter is not allowed.
    ForgeError
        A kind lacks its tool, no base is left, `out` cannot be written or is full, or holds forgeries that were made
        with other settings. What was made stays.
    """
    counts = _counts(kinds)
    tools = tools or Tools()
    if history not in ("erase", "keep"):
        raise SettingError("history", "erase or keep", history)
    if container not in ("png", "jpeg"):
        raise SettingError("container", "png or jpeg", container)
    if seed < 0:
        raise SettingError("seed", "an integer of at least 0", seed)
    if scenes is not None and scenes < 1:
        raise SettingError("scenes", "an integer of at least 1", scenes)
    shares = check_shares(shares)
    _check_tools(counts, photos, tools)
    tell = progress or (lambda what, done, total: None)
    left_out: dict[str, str] = {}
    keep = history == "keep"

    def leave_out(photo: Photo, why: str) -> None:
        left_out.setdefault(photo.name, why)

    sized = _scanned(photos, keep, leave_out, tell)
    world = World(
        real=[s for s in sized if not s.photo.fake],
        generated=[s for s in sized if s.photo.fake],
        tools=tools,
        shares=shares,
        keep=keep,
        left_out=leave_out,
    )
    if not world.real:
        raise ForgeError(_why_none(left_out, "real picture"))
    if not world.generated and {"generated", "aisplice"} & set(counts):
        raise ForgeError(_why_none(left_out, "generated picture"))
    total = scenes or len(world.real)
    settings = {
        "seed": seed,
        "scenes": total,
        "history": history,
        "container": container,
        "shares": shares,
        "tools": {k: list(tools.of(k)) for k in KINDS if tools.of(k) and k != "enhanced"}
        | {"sam": tools.sam is not None},
        "photos": hashlib.sha256("\n".join(p.name for p in photos).encode()).hexdigest()[:16],
    }
    with _told(out):
        store = Store(out, settings, container)
        jobs = plan(counts, total, seed)
        return _work(world, jobs, store, seed, left_out, tell)


def plan(counts: Mapping[str, int | None], scenes: int, seed: int) -> dict[int, list[str]]:
    """Scene -> kinds made of it. A larger count adds scenes to a kind and takes none away."""
    jobs: dict[int, list[str]] = {}
    for kind in KINDS:
        if kind in counts:
            order = np.random.default_rng([seed, zlib.crc32(kind.encode())]).permutation(scenes)
            count = counts[kind]
            for index in order[: scenes if count is None else count]:
                jobs.setdefault(int(index), []).append(kind)
    return dict(sorted(jobs.items()))


def _work(
    world: World,
    jobs: Mapping[int, Sequence[str]],
    store: Store,
    seed: int,
    left_out: dict[str, str],
    tell: Progress,
) -> Report:
    total = sum(len(kinds) for kinds in jobs.values())
    done = made = 0
    for index, kinds in jobs.items():
        missing = [kind for kind in kinds if (_id(index, kind)) not in store.have]
        done += len(kinds) - len(missing)
        tell("forging", done, total)
        if not missing:
            continue
        try:
            scene = draw_scene(world, np.random.default_rng([seed, index]))
        except ForgeError as error:
            left_out[f"scene {index}"] = str(error)
            done += len(missing)
            continue
        for kind in missing:
            try:
                forged = render(kind, scene, world, np.random.default_rng([seed, index, zlib.crc32(kind.encode())]))
            except ForgeError as error:
                left_out[_id(index, kind)] = str(error)
            else:
                store.save(_id(index, kind), kind, forged, scene, seed=seed, keep=world.keep)
                made += 1
            done += 1
            tell("forging", done, total)
    return Report(counts=dict(Counter(r.kind for r in store.have.values())), made=made, left_out=list(left_out.items()))


class Store:
    """The folder that is written to."""

    def __init__(self, out: Path, settings: dict[str, Any], container: str) -> None:
        self.out, self.container = out, container
        for name in ("pictures", "masks"):
            (out / name).mkdir(parents=True, exist_ok=True)
        file = out / SETTINGS
        if file.is_file():
            before = json.loads(file.read_text(encoding="utf-8"))
            other = [f"{k} was {before.get(k)}, now {v}" for k, v in settings.items() if before.get(k) != v]
            if other:
                raise ForgeError(
                    f"{out} holds forgeries made with other settings ({'; '.join(other)}): take another folder, or "
                    "these settings again to go on"
                )
        else:
            _write(file, (json.dumps(settings, indent=1) + "\n").encode())
        self.have = {row.id: row for row in mend(out)}
        if not self.have and not (out / NAME).is_file():
            append(out / NAME, ",".join(FIELDS) + "\n")

    def save(self, name: str, kind: str, forged: Forged, scene: Scene, *, seed: int, keep: bool) -> None:
        """Write one forgery's files, then its lines."""
        base, truth = forged.base, TRUTH[kind]
        if keep and kind in ("untouched", "generated"):
            data, suffix = aligned(base.photo.path, forged.pixels, fake=base.photo.fake)
        elif keep:
            data, suffix = jpeg96(forged.pixels), ".jpg"
        elif self.container == "jpeg":
            data, suffix = jpeg96(forged.pixels, full_colour=True), ".jpg"
        else:
            data, suffix = png(forged.pixels), ".png"
        path = f"pictures/{name}{suffix}"
        _write(self.out / path, data)
        region = scene.region
        share = {"untouched": 0.0, "generated": 1.0, "enhanced": 1.0}.get(kind, float(region.mask.mean()))
        row = ForgedRow(
            id=name,
            path=path,
            cls=truth.cls,
            kind=kind,
            tool=forged.tool,
            ai_mask=self._mask(f"{name}-ai", truth.ai, region.mask),
            ma_mask=self._mask(f"{name}-ma", truth.ma, region.mask),
            ai_loss=int(truth.ai_loss),
            ma_loss=int(truth.ma_loss),
            base=base.photo.name,
            donor=forged.donor.photo.name if forged.donor else "",
            group=base.photo.group,
            source=base.photo.source,
            seed=seed,
            share=round(share, 6),
        )
        told: dict[str, Any] = {
            "id": name,
            "kind": kind,
            "base": {"name": base.photo.name, "window (top, left, side)": base.box, "size": list(forged.pixels.shape)},
        }
        if truth.ma == "region":
            told["region"] = {"shape": region.shape, "dilation": region.dilation, "share": row.share}
        if forged.inside:
            told["inside"] = forged.inside
        append(self.out / PROVENANCE, json.dumps(told) + "\n")
        append(self.out / NAME, line(row))
        self.have[name] = row

    def _mask(self, name: str, extent: Extent, region: NDArray[np.bool_]) -> str:
        if extent == "none":
            return ""
        if extent == "ones":
            return ONES
        file = f"masks/{name}.png"
        temporary = self.out / f"{file}.part"
        Image.fromarray(region.astype(np.uint8) * 255).save(temporary, "PNG")
        os.replace(temporary, self.out / file)
        return file


def _write(file: Path, data: bytes) -> None:
    temporary = file.with_name(file.name + ".part")
    temporary.write_bytes(data)
    os.replace(temporary, file)


class _told:  # noqa: N801 - a context manager, used like a function
    """Turns what the disk says into one sentence; what was written stays."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, OSError):
            return
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ForgeError(
                f"the disk of {self.out} is full; what was made is there, and the same command goes on from it"
            ) from error
        why = error.strerror or type(error).__name__
        raise ForgeError(f"{self.out} cannot be written: {why}") from error


def _id(index: int, kind: str) -> str:
    return f"{index:05d}-{kind}"


def _counts(kinds: Mapping[str, int | None] | Sequence[str]) -> dict[str, int | None]:
    counts = dict(kinds) if isinstance(kinds, Mapping) else dict.fromkeys(kinds)
    wrong = [k for k in counts if k not in TRUTH]
    if wrong or not counts:
        raise SettingError("kinds", f"some of {', '.join(KINDS)}", ", ".join(wrong) or "none")
    for kind, count in counts.items():
        if count is not None and count < 1:
            raise SettingError(f"the count of {kind}", "an integer of at least 1", count)
    return counts


def _check_tools(counts: Mapping[str, int | None], photos: Sequence[Photo], tools: Tools) -> None:
    for kind in counts:
        if kind in ("generated", "aisplice"):
            there = any(p.fake for p in photos)
        else:
            there = kind not in NEEDS or bool(tools.of(kind))
        if not there:
            raise ForgeError(f"the kind {kind} needs {NEEDS[kind]}")


def _scanned(
    photos: Sequence[Photo], keep: bool, leave_out: Callable[[Photo, str], None], tell: Progress
) -> list[Sized]:
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        tell("reading headers", done, len(photos))

    minimum = 64 if keep else int(np.ceil(SIDES[0] / FACTORS[1])) + 2
    return scan(photos, minimum=minimum, left_out=leave_out, step=step)


def _why_none(left_out: Mapping[str, str], what: str) -> str:
    if not left_out:
        return f"there is no {what} to forge"
    name, why = next(iter(left_out.items()))
    more = f", and {len(left_out) - 1} more were left out" if len(left_out) > 1 else ""
    return f"there is no {what} left to forge: of {name}, {why}{more}"

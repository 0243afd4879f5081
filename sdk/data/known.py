"""Forgeries with what is known of them for certain: what a text about a picture may say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.forge import load, read_manifest
from tellsign.forge.manifest import ONES


@attrs.frozen(kw_only=True, eq=False)
class KnownPicture:
    """One picture of a forged folder."""

    pixels: NDArray[np.uint8]
    """uint8 (H, W, 3)."""
    region: NDArray[np.bool_]
    """bool (H, W): what was forged; nothing for untouched and wholly generated pictures."""
    label: int
    """1 where some pixels are synthesised."""
    kind: str
    """One of `tellsign.forge.KINDS`."""
    share: float
    """Of the region; as the manifest has it."""
    group: str
    source: str
    """As `read_forged` gives it."""


def known_pictures(folder: Path, *, count: int, seed: int = 0) -> Iterator[KnownPicture]:
    """Pictures of a forged folder, their kinds in turn.

    Parameters
    ----------
    folder : Path
        What `tellsign forge` filled.
    count : int
        At most so many.
    seed : int

    Raises
    ------
    ForgeError
        There is no manifest, or a mask is missing.
    """
    rows = read_manifest(folder)
    order = np.random.default_rng(seed).permutation(len(rows))
    queues = {k: [rows[i] for i in order if rows[i].kind == k] for k in sorted({r.kind for r in rows})}
    turns = [q[i] for i in range(max(map(len, queues.values()), default=0)) for q in queues.values() if i < len(q)]
    for one in turns[:count]:
        pixels, ai, moved = load(folder, one)
        part = moved if one.ai_mask in ("", ONES) else ai
        yield KnownPicture(
            pixels=pixels,
            region=part,
            label=int(bool(one.ai_mask)),
            kind=one.kind,
            share=one.share,
            group=one.group,
            source=f"{one.kind}/{one.tool}" if one.ai_mask else one.source,
        )

"""What is true of each kind of forgery: the class and both masks.

The first five kinds are Table 1 of GAMMA, cell by cell. The others are not in it and follow the same questions: does
the picture hold pixels that a neural network made (class), which ones (AI mask), and which were changed, moved or put
there by an edit (manipulation mask)? Moved and pasted pixels of photographs are real ones, so that copy-move and
splicing are class 0; the paper's Table 5 measured that this serves best.
"""

from __future__ import annotations

from typing import Literal

import attrs
import numpy as np
from numpy.typing import NDArray

Extent = Literal["none", "region", "ones"]
"""How far a mask goes: nowhere, over the forged region, over the whole picture."""


@attrs.frozen(kw_only=True)
class Truth:
    """Class and masks of one kind."""

    cls: int
    """1 where pixels are synthesised by a neural network, else 0."""
    ma: Extent
    """Manipulation mask. In the table's terms "bg/fg": none is 0/0, region is 0/1, ones is 1/1."""
    ai: Extent
    """AI mask, likewise."""
    ma_loss: bool = True
    """Whether the manipulation mask counts in training."""
    ai_loss: bool = True
    """Whether the AI mask counts in training."""
    in_table: bool = False
    """Whether the kind is in GAMMA's Table 1."""


TRUTH: dict[str, Truth] = {
    "untouched": Truth(cls=0, ma="none", ai="none", in_table=True),
    # The generator wrote every pixel, those outside the hole too: all ones, and only the hole counts as manipulated.
    "inpaint": Truth(cls=1, ma="region", ai="ones", in_table=True),
    "blend": Truth(cls=1, ma="region", ai="region", in_table=True),
    "copymove": Truth(cls=0, ma="region", ai="none", in_table=True),
    "splice": Truth(cls=0, ma="region", ai="none", in_table=True),
    # Beyond the table. Nothing in a fully generated picture was there before, so "manipulated where?" has no answer.
    "generated": Truth(cls=1, ma="none", ai="ones", ma_loss=False),
    "aisplice": Truth(cls=1, ma="region", ai="region"),
    "roundtrip": Truth(cls=1, ma="region", ai="region"),
    "upscale": Truth(cls=1, ma="region", ai="region"),
    # Filled or smoothed by arithmetic: without these the AI mask would learn "smooth".
    "classical": Truth(cls=0, ma="region", ai="none"),
    # A photograph that was up-scaled, denoised or compressed by a network is no AI picture; what its masks should say
    # has no answer, so that neither is trained.
    "enhanced": Truth(cls=0, ma="none", ai="none", ma_loss=False, ai_loss=False),
}
"""Kind -> what is true of it."""

KINDS = tuple(TRUTH)


def masks(kind: str, region: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The AI mask and the manipulation mask of a picture.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    region : bool array of (H, W)
        The forged region.

    Returns
    -------
    ai, ma : bool arrays of (H, W)
    """
    truth = TRUTH[kind]
    extents = {"none": np.zeros_like(region), "region": region, "ones": np.ones_like(region)}
    return extents[truth.ai], extents[truth.ma]

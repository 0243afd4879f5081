"""TrustMark, through its authors' package, with weights that are already here and never fetched.

A TrustMark carries a number that leads to a manifest kept elsewhere. It says that somebody marked the picture, and not
that a generator made it, so it never moves a probability.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tellsign.plugins.provenance.claim import Claim, Unchecked, unknown

VARIANTS = ("Q", "P", "B", "C")

BITS = 100
"""Of an answer: 96 of payload and check, and four of which the last two name the schema."""

_CODES = {0: (8, 56), 1: (5, 35), 2: (4, 28), 3: (3, 21)}
"""Schema -> how many wrong bits its BCH code repairs, and its check bits (trustmark 0.9.2)."""


def by_chance(schema: object) -> float:
    """Share of random answers that name a schema and pass its check: what can be repaired is taken for a mark.

    The decoder's answers on unmarked pictures are not random bits, so this is no false-positive rate, but none is
    below it for reasons of the code alone. 1.0 for a schema that is not known.
    """
    if not isinstance(schema, int) or schema not in _CODES:
        return 1.0
    repaired, check = _CODES[schema]
    return float(sum(math.comb(BITS - 4, k) for k in range(repaired + 1)) / 2**check)


def _models() -> Path | None:
    """The folder in which the package keeps its weights; None without the package, which is not imported."""
    spec = find_spec("trustmark")
    return Path(spec.origin).parent / "models" if spec is not None and spec.origin else None


class TrustMarks:
    """One variant of the decoder.

    Parameters
    ----------
    variant : "Q", "P", "B" or "C"
    """

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self._decoder: Any = None

    def missing(self) -> str:
        """What is not here, "" where the decoder can work."""
        folder = _models()
        if folder is None:
            return "TrustMark was asked for and is not installed: pip install 'tellsign[trustmark]'"
        names = (f"trustmark_{self.variant}.yaml", f"decoder_{self.variant}.ckpt", f"encoder_{self.variant}.ckpt")
        gone = [name for name in names if not (folder / name).is_file()]
        return f"TrustMark's weights are not here: {', '.join(gone)} belong into {folder}" if gone else ""

    def look(self, pixels: NDArray[np.uint8]) -> Iterator[Claim | Unchecked]:
        """What the decoder reads in RGB uint8 (H, W, 3) pixels, nothing where there is no mark."""
        if why := self.missing():
            yield Unchecked(why, library="trustmark")
            return
        try:
            secret, there, schema = self.read(pixels)
        except Exception as error:
            yield unknown("TrustMark", "watermark", error)
            return
        if there:
            yield Claim(
                claim="a TrustMark is in the pixels",
                claimant="whoever marked the picture",
                carrier="watermark",
                detail=f"variant {self.variant}, schema {schema}, payload {secret}; "
                f"{by_chance(schema):.2g} of random answers pass this schema's check",
            )

    def read(self, pixels: NDArray[np.uint8]) -> tuple[str, bool, object]:
        """The payload's bits, whether the check passes, and the schema, of RGB uint8 (H, W, 3) pixels."""
        from PIL import Image

        secret, there, schema = self._loaded().decode(Image.fromarray(pixels), MODE="binary")
        return str(secret), bool(there), schema

    def hide(self, pixels: NDArray[np.uint8], payload: str) -> NDArray[np.uint8]:
        """The picture with a payload of up to 61 bits hidden in it, to measure what becomes of it."""
        from PIL import Image

        return np.asarray(self._loaded().encode(Image.fromarray(pixels), payload, MODE="binary").convert("RGB"))

    def _loaded(self) -> Any:
        if self._decoder is None:
            from trustmark import TrustMark

            self._decoder = TrustMark(verbose=False, model_type=self.variant, device="cpu", loadRemover=False)
        return self._decoder


__all__ = ["BITS", "VARIANTS", "TrustMarks", "by_chance"]

"""TrustMark, through its authors' package, with weights that are already here and never fetched.

A TrustMark carries a number that leads to a manifest kept elsewhere. It says that somebody marked the picture, and not
that a generator made it, so it never moves a probability.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tellsign.plugins.provenance.claim import Claim, Unchecked, unknown

VARIANTS = ("Q", "P", "B", "C")


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
            secret, there, schema = self._read(pixels)
        except Exception as error:
            yield unknown("TrustMark", "watermark", error)
            return
        if there:
            yield Claim(
                claim="a TrustMark is in the pixels",
                claimant="whoever marked the picture",
                carrier="watermark",
                detail=f"variant {self.variant}, schema {schema}, payload {secret}",
            )

    def _read(self, pixels: NDArray[np.uint8]) -> tuple[str, bool, object]:
        from PIL import Image
        from trustmark import TrustMark

        if self._decoder is None:
            self._decoder = TrustMark(verbose=False, model_type=self.variant, device="cpu", loadRemover=False)
        secret, there, schema = self._decoder.decode(Image.fromarray(pixels), MODE="binary")
        return str(secret), bool(there), schema


__all__ = ["VARIANTS", "TrustMarks"]

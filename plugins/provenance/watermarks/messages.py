"""The fixed messages that open generators hide in every picture, as their published code has them."""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray


@attrs.frozen
class Message:
    """What one program hides."""

    program: str
    bits: tuple[int, ...]

    @property
    def array(self) -> NDArray[np.bool_]:
        """The bits as a bool array."""
        return np.array(self.bits, bool)


def _text(text: str) -> tuple[int, ...]:
    return tuple(np.unpackbits(np.frombuffer(text.encode(), np.uint8)).tolist())


def _number(number: int) -> tuple[int, ...]:
    """As the programs themselves do it, which drops leading zeros: the FLUX message has 46 bits."""
    return tuple(int(bit) for bit in bin(number)[2:])


MESSAGES = (
    Message("Stable Diffusion 1", _text("StableDiffusionV1")),
    Message("Stable Diffusion 2", _text("SDV2")),
    Message("Stable Diffusion XL", _number(0b101100111110110010010000011110111011000110011110)),
    Message("FLUX.1", _number(0b001010101111111010000111100111001111010100101110)),
    Message("InvokeAI", _text("InvokeAI")),
)

__all__ = ["MESSAGES", "Message"]

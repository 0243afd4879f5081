"""Subnormal numbers flushed to zero, for as long as a training runs and no longer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def flushing() -> Iterator[None]:
    """Activations that are nearly zero would cost a hundred times what others cost.

    The mode is the whole thread's, so it is left again: numbers of whoever called must not change.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


__all__ = ["flushing"]

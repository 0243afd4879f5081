"""Statements that a verdict may borrow: each was embedded once, and measured before it was allowed to speak."""

from __future__ import annotations

import json
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from tellsign.schemas import Category

PRECISION = 0.8
"""Least share of right retrievals, on pictures where the fact is known, that a statement needs to reach a verdict."""


@attrs.frozen(kw_only=True)
class Entry:
    """One statement with what was measured of it."""

    text: str
    threshold: float
    """Least similarity, a cosine, at which it is retrieved."""
    precision: float
    """Share of right retrievals on held-out pictures: the support that evidence carries."""
    retrieved: int
    """On how many retrievals that rests."""
    category: Category | None = None
    """X-AIGD's, where the statement is about an artifact that has one."""


class Bank:
    """Statements by their place in the image's space.

    Parameters
    ----------
    entries : sequence of Entry
    vectors : float tensor of (S, dim)
        Unit vectors.

    Raises
    ------
    ValueError
        There are not as many vectors as entries, or an entry was measured below `PRECISION`.
    """

    def __init__(self, entries: Sequence[Entry], vectors: Tensor) -> None:
        if vectors.ndim != 2 or len(vectors) != len(entries):
            raise ValueError(f"vectors takes shape ({len(entries)}, dim), got {tuple(vectors.shape)}")
        for entry in entries:
            if entry.precision < PRECISION:
                raise ValueError(
                    f"entries take a precision of at least {PRECISION}, got {entry.precision}: {entry.text}"
                )
        self.entries, self.vectors = tuple(entries), vectors.float()

    def __len__(self) -> int:
        return len(self.entries)

    @classmethod
    def empty(cls, dim: int) -> Bank:
        """A bank that says nothing."""
        return cls((), torch.zeros(0, dim))

    def retrieve(self, v: Tensor) -> list[list[Entry]]:
        """The statements that apply to each unit vector of (B, dim), the surest first; none where nothing is near."""
        if not self.entries:
            return [[] for _ in range(len(v))]
        near = v.float().cpu() @ self.vectors.T.cpu()
        above = near - torch.tensor([e.threshold for e in self.entries])
        return [
            sorted((e for e, a in zip(self.entries, row, strict=True) if a >= 0), key=lambda e: -e.precision)
            for row in above.tolist()
        ]

    def told(self) -> str:
        """The entries as JSON, for a weights file's notes."""
        lines = [attrs.asdict(e) | {"category": e.category.value if e.category else None} for e in self.entries]
        return json.dumps(lines, sort_keys=True)

    @classmethod
    def read(cls, told: str, vectors: Tensor) -> Bank:
        """The bank of a weights file.

        Raises
        ------
        ValueError
            The notes do not describe one.
        """
        try:
            entries = [
                Entry(**(line | {"category": Category(line["category"]) if line["category"] else None}))
                for line in json.loads(told)
            ]
        except (KeyError, TypeError) as error:
            raise ValueError(f"told takes a list of statements, got {told[:80]!r}") from error
        return cls(entries, vectors)

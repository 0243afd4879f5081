"""What a bundle or a table says of where its numbers come from."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping
from typing import Any

from tellsign.schemas import Declaration

from .features import FeatureColumn


def scored_by(declarations: Mapping[str, Declaration] | None, columns: Iterable[FeatureColumn]) -> dict[str, Any]:
    """Version and weights' hashes of every declared plugin that one of the columns belongs to, by its name."""
    used = {c.plugin for c in columns}
    return {
        name: {"version": d.version, "weights": {w.file: w.sha256 for w in d.weights}}
        for name, d in sorted((declarations or {}).items())
        if name in used
    }


def libraries() -> dict[str, str]:
    """Versions of the libraries that train a fusion."""
    return {name: importlib.metadata.version(name) for name in ("numpy", "scikit-learn", "xgboost")}


__all__ = ["libraries", "scored_by"]

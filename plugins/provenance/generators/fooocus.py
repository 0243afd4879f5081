"""Fooocus: JSON under `parameters` with `fooocus_scheme` beside it; in JPEG and WebP the scheme is the maker note."""

from __future__ import annotations

from collections.abc import Mapping

from tellsign.plugins.provenance.claim import Claim

from .read import first, generated, parsed


def read(texts: Mapping[str, str]) -> Claim | None:
    """The claim, None where there is none. Its other scheme is the web UI's text, which names Fooocus too."""
    for key in ("parameters", "EXIF UserComment", "comment"):
        found = parsed(texts.get(key))
        names = first(found, "version", "Version", "software")
        own = "fooocus" in names.lower() or "fooocus_scheme" in texts
        if found and own and ("base_model" in found or "base_model_name" in found or "prompt" in found):
            return generated(
                "RuinedFooocus" if "ruined" in names.lower() else "Fooocus",
                key=key,
                model=first(found, "base_model", "base_model_name"),
                prompt=first(found, "prompt", "Prompt"),
                seed=first(found, "seed"),
                detail=names,
            )
    return None


__all__ = ["read"]

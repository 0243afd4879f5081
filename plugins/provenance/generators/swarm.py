"""SwarmUI: `parameters` (in JPEG the user comment) holds JSON with `sui_image_params`."""

from __future__ import annotations

from collections.abc import Mapping

from tellsign.plugins.provenance.claim import Claim

from .read import first, generated, parsed


def read(texts: Mapping[str, str]) -> Claim | None:
    """The claim, None where there is none."""
    for key in ("parameters", "EXIF UserComment"):
        found = parsed(texts.get(key)).get("sui_image_params")
        if isinstance(found, dict):
            return generated(
                "SwarmUI",
                key=key,
                model=first(found, "model"),
                prompt=first(found, "prompt"),
                seed=first(found, "seed"),
                detail=first(found, "swarm_version"),
            )
    return None


__all__ = ["read"]

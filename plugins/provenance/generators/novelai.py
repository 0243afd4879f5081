"""NovelAI: `Software` says so, `Source` names the model, `Comment` holds the parameters."""

from __future__ import annotations

from collections.abc import Mapping

from tellsign.plugins.provenance.claim import Claim

from .read import first, generated, parsed


def read(texts: Mapping[str, str]) -> Claim | None:
    """The claim, None where there is none."""
    if texts.get("Software", "") != "NovelAI" and not texts.get("Source", "").startswith("NovelAI"):
        return None
    found = parsed(texts.get("Comment"))
    return generated(
        "NovelAI",
        key="Comment" if found else "Software",
        model=texts.get("Source", ""),
        prompt=first(found, "prompt") or texts.get("Description", ""),
        seed=first(found, "seed"),
    )


__all__ = ["read"]

"""InvokeAI: `invokeai_metadata` (3 and later), `sd-metadata` (2), and `Dream`, the command line of its first days."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tellsign.plugins.provenance.claim import Claim

from .read import first, generated, parsed

NAME = "InvokeAI"


def read(texts: Mapping[str, str]) -> Claim | None:
    """The claim, None where there is none."""
    found = parsed(texts.get("invokeai_metadata"))
    if found:
        model = found.get("model")
        name = first(model, "name", "model_name", "key") if isinstance(model, dict) else ""
        return generated(
            NAME,
            key="invokeai_metadata",
            model=name,
            prompt=first(found, "positive_prompt"),
            seed=first(found, "seed"),
            detail=first(found, "app_version", "generation_mode"),
        )
    if any(texts.get(key, "").lstrip().startswith("{") for key in ("invokeai_graph", "invokeai_workflow")):
        return generated(NAME, key="invokeai_graph")
    found = parsed(texts.get("sd-metadata"))
    image = found.get("image")
    if isinstance(image, dict):
        prompt = image.get("prompt")
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], dict):
            prompt = prompt[0].get("prompt")
        return generated(
            NAME,
            key="sd-metadata",
            model=first(found, "model_weights", "model"),
            prompt=prompt if isinstance(prompt, str) else "",
            seed=first(image, "seed"),
            detail=first(found, "app_version"),
        )
    dream = re.match(r'"([^"]{0,4000})"(?=[^"]{0,400}\s-S\s?(\d+))(?=[^"]{0,400}\s-s\s?\d+)', texts.get("Dream", ""))
    if dream:
        return generated(NAME, key="Dream", prompt=dream[1], seed=dream[2])
    return None


__all__ = ["read"]

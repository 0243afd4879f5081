"""The text of AUTOMATIC1111's web UI, which many programs write: prompt, negative prompt, and a line of parameters.

a lighthouse
Negative prompt: blurry
Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model: v1-5, Version: v1.6.0
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tellsign.plugins.provenance.claim import Claim

from .read import LONGEST, generated

KEYS = ("parameters", "EXIF UserComment", "comment", "Comment", "EXIF ImageDescription", "Description")

_PAIR = re.compile(r"([A-Z][A-Za-z0-9 _/-]{0,40}): (\"(?:[^\"\\]|\\.){0,5000}\"|[^,\n]{0,500})")
_NEEDED = ("Sampler", "Seed", "CFG scale", "Size", "Model")
_LINE = 50_000
"""Characters of the line of parameters; ControlNet and Civitai make it long."""


def read(texts: Mapping[str, str]) -> Claim | None:
    """The claim, None where no text has the form."""
    for key in KEYS:
        text = texts.get(key, "")
        # "Steps:" opens the line of parameters; at least two more must follow, or a recipe for soup would count.
        at = text.rfind("Steps: ", 0, LONGEST)
        if at < 0 or (at > 0 and text[at - 1] not in "\n, "):
            continue
        line = text[at : at + _LINE]
        pairs = {k.strip(): v.strip().strip('"') for k, v in _PAIR.findall(line)}
        if not pairs.get("Steps", "").isdigit() or sum(name in pairs for name in _NEEDED) < 2:
            continue
        prompt = text[:at].split("\nNegative prompt: ", 1)[0].removeprefix("Negative prompt: ")
        return generated(
            program(pairs, text),
            key=key,
            model=pairs.get("Model") or pairs.get("Model hash", ""),
            prompt=prompt,
            seed=pairs.get("Seed", ""),
            detail=", ".join(f"{k} {pairs[k]}" for k in ("Steps", "Sampler", "CFG scale", "Size") if k in pairs),
        )
    return None


def program(pairs: Mapping[str, str], text: str) -> str:
    """Which of the programs that share the form wrote it."""
    version, app = pairs.get("Version", ""), pairs.get("App", "")
    if "Fooocus" in version:
        return "Fooocus"
    if app == "SD.Next" or "vladmandic" in version or "SD.Next" in version:
        return "SD.Next"
    if version == "ComfyUI" or app == "ComfyUI":
        return "ComfyUI"
    if re.match(r"f\d|neo", version):
        return "Stable Diffusion WebUI Forge"
    if "Civitai resources" in pairs or "Civitai metadata" in pairs or "Civitai resources:" in text:
        return "Civitai"
    return "Stable Diffusion web UI"


__all__ = ["program", "read"]

"""Services and smaller programs: a sentence, a credit or a label, rather than parameters.

Firefly, Gemini, Image Creator, GPT-4o and others write Content Credentials or an IPTC source type besides, which other
modules read; here are the words that remain where those are lost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tellsign.plugins.provenance.claim import Claim

from .read import first, generated, parsed

_JOB = re.compile(r"Job ID: ([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")

CREDITS = {
    "made with google ai": ("generated", "Google AI"),
    "created with google ai": ("generated", "Google AI"),
    "edited with google ai": ("edited", "Google AI"),
    "imagined with ai": ("generated", "Meta AI"),
    "made with ai": ("generated", "an AI system"),
    "apple image playground": ("generated", "Apple Image Playground"),
}
"""Credit lines (IPTC 2:110, photoshop:Credit) by their words in lower case."""

SOFTWARE = {
    "adobe firefly": "Adobe Firefly",
    "dall-e": "DALL-E",
    "dall\N{MIDDLE DOT}e": "DALL-E",
    "midjourney": "Midjourney",
    "bing image creator": "Bing Image Creator",
    "image creator from designer": "Bing Image Creator",
    "ideogram": "Ideogram",
    "dreamstudio": "DreamStudio",
    "leonardo.ai": "Leonardo.Ai",
    "recraft": "Recraft",
    "stable diffusion": "Stable Diffusion",
    "novelai": "NovelAI",
    "fooocus": "Fooocus",
    "draw things": "Draw Things",
    "easy diffusion": "Easy Diffusion",
    "apple image playground": "Apple Image Playground",
}
"""Programs that do nothing but generate, by how their name starts in a Software or CreatorTool field."""

_SOFTWARE_KEYS = ("Software", "EXIF Software", "XMP CreatorTool", "EXIF Make", "EXIF Model")


def midjourney(texts: Mapping[str, str]) -> Claim | None:
    """Midjourney's description: the prompt, its flags, and the job's number."""
    for key in ("Description", "EXIF ImageDescription", "XMP description"):
        text = texts.get(key, "")
        if match := _JOB.search(text[:20_000]):
            prompt = text[: match.start()].strip()
            model = re.search(r"--(v|niji) ([\d.]{1,6})", prompt)
            return generated(
                "Midjourney",
                key=key,
                model=f"{'niji ' if model[1] == 'niji' else 'v'}{model[2]}" if model else "",
                prompt=prompt,
                detail=f"job {match[1]}; by {texts['Author']}" if texts.get("Author") else f"job {match[1]}",
            )
    return None


def openai(texts: Mapping[str, str]) -> Claim | None:
    """DALL-E 2's EXIF: a user comment, and a maker note with the generation's number."""
    comment, note = texts.get("EXIF UserComment", ""), texts.get("EXIF MakerNote", "")
    if comment == "Made with OpenAI Labs" or note.startswith("OpenAI--ImageGeneration--"):
        key = "EXIF UserComment" if comment else "EXIF MakerNote"
        return generated("OpenAI", key=key, detail=note if note.startswith("OpenAI") else "")
    return None


def easy_diffusion(texts: Mapping[str, str]) -> Claim | None:
    """Easy Diffusion: a text for each parameter, or one JSON of them."""
    found: Mapping[str, object] = texts if "use_stable_diffusion_model" in texts else {}
    for key in ("EXIF UserComment", "parameters"):
        told = parsed(texts.get(key))
        found = found or (told if "use_stable_diffusion_model" in told else {})
    if not found:
        return None
    return generated(
        "Easy Diffusion",
        key="use_stable_diffusion_model",
        model=first(found, "use_stable_diffusion_model"),
        prompt=first(found, "prompt", "original_prompt"),
        seed=first(found, "seed"),
        carrier="text",
    )


def draw_things(texts: Mapping[str, str]) -> Claim | None:
    """Draw Things: JSON in XMP's user comment, with the prompt as "c"."""
    for key in ("XMP UserComment", "EXIF UserComment"):
        found = parsed(texts.get(key))
        if {"c", "model", "sampler"} <= set(found):
            return generated(
                "Draw Things",
                key=key,
                model=first(found, "model"),
                prompt=first(found, "c"),
                seed=first(found, "seed"),
                carrier="xmp" if key.startswith("XMP") else "exif",
            )
    return None


def aigc_label(texts: Mapping[str, str]) -> Claim | None:
    """The label that GB 45438-2025 asks of services in China: 1 generated, 2 perhaps, 3 suspected."""
    for key in ("AIGC", "XMP AIGC", "EXIF UserComment"):
        found = parsed(texts.get(key))
        inner = found.get("AIGC", found)
        if not isinstance(inner, dict) or "Label" not in inner:
            continue
        label = first(inner, "Label")
        who = first(inner, "ContentProducer", "ContentPropagator")
        return Claim(
            claim=f"AIGC label {label}: "
            + {"1": "generated", "2": "perhaps generated", "3": "suspected of being generated"}.get(
                label, "of no known kind"
            ),
            claimant=who or f"{key} text",
            carrier="xmp" if key.startswith("XMP") else "exif" if key.startswith("EXIF") else "text",
            meaning="generated" if label == "1" else "other",
            generator=who,
            detail=first(inner, "ProduceID"),
        )
    return None


def credit(texts: Mapping[str, str]) -> Claim | None:
    """A credit line that says so."""
    for key in ("IPTC Credit", "XMP Credit"):
        line = texts.get(key, "").strip()
        known = CREDITS.get(line.casefold()[:100])
        if known:
            return Claim(
                claim=f"credit line {line!r}",
                claimant=f"{key} line",
                carrier=key.split()[0].lower(),
                meaning=known[0],
                generator=known[1],
            )
    return None


def software(texts: Mapping[str, str]) -> Claim | None:
    """A program's name that is a generator's."""
    for key in _SOFTWARE_KEYS:
        name = texts.get(key, "").strip()
        low = name.casefold()[:100]
        for start, generator in SOFTWARE.items():
            if low.startswith(start):
                return Claim(
                    claim=f"made with {name[:80]}",
                    claimant=f"{key} field",
                    carrier="xmp" if key.startswith("XMP") else "exif" if key.startswith("EXIF") else "text",
                    meaning="generated",
                    generator=generator,
                )
    return None


__all__ = [
    "CREDITS",
    "SOFTWARE",
    "aigc_label",
    "credit",
    "draw_things",
    "easy_diffusion",
    "midjourney",
    "openai",
    "software",
]

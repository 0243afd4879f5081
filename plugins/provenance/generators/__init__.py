"""Texts that generators leave in files: one reader per family, tried in order, and what they found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tellsign.plugins.provenance.claim import Claim, unknown

from . import comfy, fooocus, invoke, novelai, services, swarm, webui

Reader = Callable[[Mapping[str, str]], Claim | None]

READERS: tuple[Reader, ...] = (
    swarm.read,
    fooocus.read,
    invoke.read,
    novelai.read,
    webui.read,
    comfy.read,
    services.midjourney,
    services.openai,
    services.easy_diffusion,
    services.draw_things,
    services.aigc_label,
    services.credit,
    services.software,
)
"""Each takes the file's texts by key and answers with one claim or none. Where several programs share a key, the one
whose form is the most particular comes first."""


def look(texts: Mapping[str, str]) -> Iterator[Claim]:
    """Claims of every reader that finds its own text; what breaks a reader is unknown."""
    named: set[str] = set()
    for reader in READERS:
        try:
            claim = reader(texts)
        except Exception as error:  # a text that looks like a generator's and is not
            yield unknown("a generator's text", "text", error)
            return
        if claim is not None and claim.generator not in named:
            named.add(claim.generator)
            yield claim


__all__ = ["READERS", "look"]

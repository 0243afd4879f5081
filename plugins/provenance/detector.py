"""The provenance plugin: asks every reader what the file says, and says what could not be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tellsign.errors import SettingError
from tellsign.plugin import DetectorPlugin
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import Declaration, Evidence, Facts, ProvenanceView, View
from tellsign.views import quiet_pillow

from . import camera, container, generators, xmp
from .claim import Claim, Unchecked, unknown
from .credentials import Credentials
from .watermarks import dwtdct
from .watermarks.trustmark import VARIANTS, TrustMarks

SETTINGS = ("trust_anchors", "watermarks", "trustmark")
LARGEST_PIXELS = 4_500_000
"""Pixels above which no watermark is looked for: the generators that hide one make pictures of one to four million."""
_NO_FILE = "the picture came without a file, so there is nothing that says where it is from"


class ProvenanceDetector(DetectorPlugin):
    """Reads what the file says of its own origin. It looks at no network and follows no link.

    Settings
    --------
    trust_anchors : path
        Certificates (PEM, one after the other) of those whose signatures count. Without it a signature shows that the
        file is unchanged since it was signed, and nobody's name is believed.
    watermarks : bool
        Look for the open generators' invisible watermarks; default yes.
    trustmark : "Q", "P", "B" or "C"
        Look for TrustMarks of this variant too; needs the extra `trustmark` and its weights. Default no.
    """

    def __init__(self, declaration: Declaration, settings: Mapping[str, object]) -> None:
        super().__init__(declaration, settings)
        for name in settings:
            if name not in SETTINGS:
                raise SettingError(f"settings of {declaration.name}", ", ".join(SETTINGS), name)
        watermarks = settings.get("watermarks", True)
        if not isinstance(watermarks, bool):
            raise SettingError("watermarks", "true or false", watermarks)
        variant = settings.get("trustmark")
        if variant is not None and variant not in VARIANTS:
            raise SettingError("trustmark", f"one of {', '.join(VARIANTS)}", variant)
        self._credentials = Credentials(_anchors(settings.get("trust_anchors")))
        self._watermarks = watermarks
        self._trustmarks = TrustMarks(str(variant)) if variant is not None else None

    def detect(self, views: Sequence[View], runtime: DeviceRuntime) -> Sequence[Sequence[Evidence]]:
        """What each file says; to a picture without a file the plugin does not apply."""
        return [self._look(view) for view in views]

    def _look(self, view: View) -> list[Evidence]:
        if not isinstance(view, ProvenanceView):
            raise TypeError("the provenance plugin takes ProvenanceView only")
        if view.original is None or view.facts is None:
            return [self.not_applicable(_NO_FILE)]
        with quiet_pillow():
            said = list(dict.fromkeys(self._said(view.original, view.facts)))
        found: list[Evidence] = [self._evidence(one) for one in said]
        return found or [
            self.not_applicable("the file says nothing of where it is from, which says nothing either way")
        ]

    def _evidence(self, said: Claim | Unchecked) -> Evidence:
        if isinstance(said, Unchecked):
            return self.unavailable(said.reason, model=said.library)
        return self.provenance(**said.fields())

    def _said(self, original: bytes, facts: Facts) -> Iterator[Claim | Unchecked]:
        yield from file_says(self._credentials, original, facts)
        yield from self._marks(original, facts)

    def _marks(self, original: bytes, facts: Facts) -> Iterator[Claim | Unchecked]:
        asked = self._watermarks or self._trustmarks is not None
        if not asked or facts.width * facts.height > LARGEST_PIXELS:
            return
        enough = facts.width * facts.height >= dwtdct.SMALLEST
        if not (enough or self._trustmarks is not None):
            return
        try:
            pixels = stored_pixels(original, facts)
        except Exception as error:
            yield unknown("watermarks", "watermark", error)
            return
        if self._watermarks:
            # One at most: messages that are texts resemble each other, so a mark half fits its neighbours.
            best = max(dwtdct.matches(pixels), key=lambda match: match.deviations, default=None)
            if best is not None and best.found:
                yield watermark_claim(best)
        if self._trustmarks is not None:
            yield from self._trustmarks.look(pixels)


def file_says(credentials: Credentials, original: bytes, facts: Facts) -> Iterator[Claim | Unchecked]:
    """What the file says beside its pixels."""
    file = container.read(original, facts)
    yield from credentials.look(original, file.xmp)
    properties, trouble = xmp.look(file.xmp)
    yield from trouble
    yield from xmp.claims(properties)
    texts = {**file.texts, **{f"XMP {key}": values[0] for key, values in properties.items()}}
    yield from generators.look(texts)
    if file.trouble:
        yield unknown("EXIF", "exif", file.trouble)
    if (taken := camera.claim(file, facts, original)) is not None:
        yield taken


def file_claims(credentials: Credentials, original: bytes, facts: Facts) -> list[Claim]:
    """The claims among it."""
    return [one for one in file_says(credentials, original, facts) if isinstance(one, Claim)]


def watermark_claim(match: dwtdct.Match) -> Claim:
    """The claim of a watermark that fits. The code that hides it is public, so it counts as unsigned."""
    return Claim(
        claim=f"the invisible watermark of {match.message.program}",
        claimant="the pixels",
        carrier="watermark",
        meaning="generated",
        generator=match.message.program,
        detail=f"{match.deviations:.1f} standard deviations above chance, {dwtdct.ASKED} are asked for",
    )


def stored_pixels(original: bytes, facts: Facts) -> NDArray[np.uint8]:
    """RGB uint8 (H, W, 3) as stored: not turned and no colour profile applied, where a watermark is."""
    with container.opened(original, facts) as image:
        return np.asarray(image.convert("RGB"))


def _anchors(given: object) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str | Path):
        raise SettingError("trust_anchors", "the path of a PEM file", given)
    try:
        text = Path(given).read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise SettingError(
            "trust_anchors", f"the path of a PEM file that can be read ({error.strerror})", given
        ) from error
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise SettingError("trust_anchors", "a file with certificates in PEM", given)
    return text


__all__ = ["ProvenanceDetector", "file_claims", "file_says", "stored_pixels", "watermark_claim"]

"""Content Credentials: the one place that calls c2pa-python, offline, and turns all that it raises into "unknown"."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from .claim import Claim, Unchecked, clip, unknown
from .manifest import claim_of

LARGEST = 64_000_000
"""Bytes of a file whose signature is checked: every one is hashed."""

LARGEST_STORE = 16_000_000
"""Bytes of a manifest store's JSON that is read."""

WHAT = "Content Credentials"

_REMOTE = re.compile(r"provenance\s*=\s*[\"'](https?://[^\"'<>\s]{1,300})[\"']")


def present(original: bytes) -> bool:
    """Whether a manifest store can be in the file: JUMBF boxes name themselves in plain bytes."""
    return b"jumb" in original and b"c2pa" in original


def installed() -> bool:
    """Whether c2pa-python is here."""
    return find_spec("c2pa") is not None


class Credentials:
    """Reads manifest stores with one trust list.

    Parameters
    ----------
    anchors : str or None
        Certificates (PEM) of those whose signatures count; None trusts nobody.
    """

    def __init__(self, anchors: str | None = None) -> None:
        self.anchors = anchors
        self._context: Any = None

    def look(self, original: bytes, xmp: str) -> Iterator[Claim | Unchecked]:
        """What the file's manifest store says, nothing where it has none.

        Parameters
        ----------
        original : bytes
            The file.
        xmp : str
            Its XMP, which may say that the manifest is kept elsewhere; it is not fetched.
        """
        if not present(original):
            if match := _REMOTE.search(xmp[:1_000_000]):
                yield Claim(
                    claim=f"{WHAT} are kept elsewhere: unknown",
                    claimant="XMP",
                    carrier="content_credentials",
                    verification="unknown",
                    detail=f"they were not fetched from {match[1]}",
                )
            return
        if not installed():
            yield unknown(WHAT, "content_credentials", "c2pa-python is not installed")
            yield Unchecked(
                f"{WHAT} are there and were not checked: pip install 'tellsign[provenance]'", library="c2pa-python"
            )
            return
        if len(original) > LARGEST:
            yield unknown(WHAT, "content_credentials", f"files above {LARGEST / 1e6:.0f} MB are not checked")
            return
        try:
            claim = self._read(original)
        except Exception as error:  # the library raises a dozen types, and none of them says anything of the picture
            yield unknown(WHAT, "content_credentials", clip(error, 160) or type(error).__name__)
            return
        if claim is not None:
            yield claim

    def _read(self, original: bytes) -> Claim | None:
        from c2pa import Reader

        reader = Reader.try_create(None, io.BytesIO(original), context=self._settings())
        if reader is None:
            return None
        with reader:
            text = reader.json()
        if len(text) > LARGEST_STORE:
            raise ValueError(f"the manifest store is larger than {LARGEST_STORE / 1e6:.0f} MB as JSON")
        return claim_of(json.loads(text), asked=self.anchors is not None)

    def _settings(self) -> Any:
        """Settings of our own, and never the library's: by default it fetches manifests and asks for revocation."""
        if self._context is None:
            from c2pa import Context

            settings: dict[str, Any] = {
                "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True}
            }
            if self.anchors is not None:
                settings["trust"] = {"trust_anchors": self.anchors}
            self._context = Context.from_dict(settings)
        return self._context


__all__ = ["WHAT", "Credentials", "installed", "present"]

"""What forging raises on purpose."""

from __future__ import annotations

from tellsign.errors import TellsignError


class ForgeError(TellsignError):
    """Forgeries could not be made; the message is one sentence that says why and what would help."""

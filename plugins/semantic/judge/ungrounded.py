"""What a judge of meaning cannot know (`tellsign.towers.grounds`)."""

from __future__ import annotations

from tellsign.towers.grounds import ungrounded

__all__ = ["ungrounded"]

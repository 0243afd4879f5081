"""What the verdict would be if a plugin had not been there: an ablation, at the price of a second fusion."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs

from tellsign.errors import SettingError
from tellsign.schemas import Evidence, Verdict

if TYPE_CHECKING:
    from .kept import Concluding


@attrs.frozen(kw_only=True)
class Without:
    """Stands among the peers: the same detector, a plugin's evidence left out of its fusion."""

    plugin: str
    detector: Concluding

    def __attrs_post_init__(self) -> None:
        known = sorted(self.detector.declarations)
        if self.plugin not in known:
            raise SettingError("--without", f"plugins that take part: {', '.join(known)}", self.plugin)

    @property
    def name(self) -> str:
        """What tables print."""
        return f"without {self.plugin}"

    @property
    def where(self) -> str:
        """What the report says of its origin."""
        return f"the same fusion, {self.plugin}'s evidence left out"

    def verdict(self, evidence: Iterable[Evidence], *, width: int, height: int) -> Verdict:
        """The verdict on the evidence of the other plugins; copies of the picture are not looked at."""
        rest = [e for e in evidence if e.plugin != self.plugin]
        return self.detector.conclude(rest, width=width, height=height)

"""A file of verdicts as they come, so that a run that was killed goes on where it was.

One JSON object a line: the content's hash, the condition, a hash of all else that the answer depends on (versions,
settings, peers), and the answer. The report is made from the data set and never from the lines, so a picture that is
there twice in the file is still one picture; a line that was cut off by the kill is left out.
"""

from __future__ import annotations

import attrs

from .lines import Lines, setup_hash
from .outcomes import Outcome
from .shortcuts import Traits


class Journal(Lines):
    """Verdicts on disk, by content, condition and setup."""

    KIND = "tellsign-eval-journal"
    WORDS = "journal of tellsign eval"

    def get(self, content: str, condition: str) -> Outcome | None:
        """The answer on a content under a condition, None where there is none yet."""
        answer = self.find(content, condition)
        if answer is None:
            return None
        hits = answer.pop("hits")
        return Outcome(
            **{
                **answer,
                "hits": None if hits is None else tuple(hits),
                "traits": Traits(**answer["traits"]),
                "notices": tuple(answer["notices"]),
            }
        )

    def add(self, content: str, condition: str, outcome: Outcome) -> None:
        """Write an answer down at once."""
        self.put(content, condition, attrs.asdict(outcome))


__all__ = ["Journal", "setup_hash"]

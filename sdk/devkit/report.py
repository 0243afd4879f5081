"""What a check found."""

from __future__ import annotations

from typing import Literal

import attrs

State = Literal["passed", "failed", "skipped", "expected"]


class CheckFailedError(AssertionError):
    """The plugin does not keep to what is checked; the text says what was seen and what is wanted."""


class CheckSkippedError(Exception):
    """The check has nothing to look at here; the text says why."""


@attrs.frozen(kw_only=True)
class Result:
    """One check of one plugin."""

    name: str
    state: State
    """"expected" is a failure that was announced with a reason."""
    said: str
    """What was done and counted, what was seen instead, or why it was skipped."""
    reason: str = ""
    """Why it was expected to fail."""
    seconds: float = 0.0


@attrs.frozen(kw_only=True)
class Report:
    """All checks of one plugin."""

    plugin: str
    results: tuple[Result, ...]
    unavailable: str = ""
    """Why the plugin cannot speak here, which leaves most of it unchecked; empty where it can."""

    @property
    def passed(self) -> bool:
        """Whether nothing failed but what was expected to, and the plugin could speak at all."""
        return not self.unavailable and all(r.state != "failed" for r in self.results)

    @property
    def counts(self) -> dict[State, int]:
        """Checks by state."""
        states: tuple[State, ...] = ("passed", "failed", "expected", "skipped")
        return {state: sum(r.state == state for r in self.results) for state in states}


def fail_unless(condition: object, words: str) -> None:
    """Raise `CheckFailedError` with the words unless the condition holds."""
    if not condition:
        raise CheckFailedError(words)


def some(things: object, at_most: int = 3) -> str:
    """The first few of several things, for a message."""
    listed = [str(t) for t in things]  # type: ignore[attr-defined]
    more = f" and {len(listed) - at_most} more" if len(listed) > at_most else ""
    return "; ".join(listed[:at_most]) + more


__all__ = ["CheckFailedError", "CheckSkippedError", "Report", "Result", "State", "fail_unless", "some"]

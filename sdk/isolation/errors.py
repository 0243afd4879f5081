"""How a plugin's process can fail, as its parent tells it."""

from __future__ import annotations

from tellsign.errors import TellsignError


class NotLoadedError(TellsignError):
    """The process runs, but the plugin in it could not be loaded."""


class RemoteError(TellsignError):
    """The plugin raised something in its process.

    Attributes
    ----------
    name : str
        Name of the exception's class.
    words : str
        Class and text.
    bad : str
        What it said against a piece of evidence, empty where it was about something else.
    """

    def __init__(self, name: str, words: str, bad: str = "") -> None:
        self.name, self.words, self.bad = name, words, bad
        super().__init__(words)


class ProcessEndedError(TellsignError):
    """The process is gone, or was ended because nothing sensible came from it."""

    code = "plugin_crashed"
    kind = "Crash"


class MemoryLimitError(ProcessEndedError):
    """The process was ended because it filled too much memory."""

    code = "plugin_memory"
    kind = "MemoryLimit"


class HangError(ProcessEndedError):
    """The process was ended because it did not answer in time."""

    code = "plugin_timeout"
    kind = "TimeLimit"


__all__ = ["HangError", "MemoryLimitError", "NotLoadedError", "ProcessEndedError", "RemoteError"]

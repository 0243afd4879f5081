"""Every error that the package raises on purpose; one `except TellsignError` catches them all."""

from __future__ import annotations

from typing import Literal, get_args

DecodeCode = Literal[
    "not_found",
    "not_a_file",
    "not_readable",
    "empty",
    "too_many_bytes",
    "unknown_format",
    "format_not_allowed",
    "too_many_pixels",
    "too_wide",
    "truncated",
    "broken",
    "bad_array",
    "bad_source",
]
"""Why a picture could not be read; stable, for programs."""

DECODE_CODES: tuple[str, ...] = get_args(DecodeCode)


class TellsignError(Exception):
    """Something went wrong that the caller may want to handle."""


class DecodeError(TellsignError):
    """A picture could not be read.

    Attributes
    ----------
    code : str
        Why, for programs: one of `DECODE_CODES`.
    message : str
        Why, for people.
    source : str or None
        The path that was asked for; None for bytes, file objects without a name, and arrays.
    """

    def __init__(self, code: DecodeCode, message: str, source: str | None = None) -> None:
        if code not in DECODE_CODES:
            raise SettingError("DecodeError.code", f"one of {', '.join(DECODE_CODES)}", code)
        self.code: DecodeCode = code
        self.message = message
        self.source = source
        super().__init__(code, message, source)

    def __str__(self) -> str:
        return self.message if self.source is None else f"{self.source}: {self.message}"


class PluginError(TellsignError):
    """A detector plugin did something wrong.

    Attributes
    ----------
    plugin : str
        The plugin's name.
    message : str
        What happened, for people.
    """

    def __init__(self, plugin: str, message: str) -> None:
        self.plugin, self.message = plugin, message
        super().__init__(plugin, message)

    def __str__(self) -> str:
        return f"plugin {self.plugin!r}: {self.message}"


class PluginLoadError(PluginError):
    """A detector plugin could not be loaded."""


class TimeLimitError(TellsignError):
    """Something did not end within its limit.

    Attributes
    ----------
    what : str
        What was waited for.
    limit : float or None
        The limit in seconds, None where several limits played together.
    """

    def __init__(self, what: str, limit: float | None = None) -> None:
        self.what, self.limit = what, limit
        super().__init__(what, limit)

    def __str__(self) -> str:
        return f"{self.what} did not end in time" + ("" if self.limit is None else f" (limit {self.limit:g} s)")


class WeightsError(TellsignError):
    """A weights file is missing, or is not what it should be.

    Attributes
    ----------
    file : str
        The file, by path or by its name in the registry.
    message : str
        What is wrong with it, for people.
    """

    def __init__(self, file: str, message: str) -> None:
        self.file, self.message = str(file), message
        super().__init__(self.file, message)

    def __str__(self) -> str:
        return f"{self.file}: {self.message}"


class SettingError(TellsignError, ValueError):
    """A parameter was given something that it does not allow.

    Attributes
    ----------
    parameter : str
        Name of the parameter.
    allowed : str
        What it takes, in words.
    got : object
        What came.
    """

    def __init__(self, parameter: str, allowed: str, got: object) -> None:
        self.parameter, self.allowed, self.got = parameter, allowed, got
        super().__init__(parameter, allowed, got)

    def __str__(self) -> str:
        text = repr(self.got)
        return f"{self.parameter} takes {self.allowed}, got {text if len(text) <= 120 else text[:117] + '...'}"


__all__ = [
    "DECODE_CODES",
    "DecodeCode",
    "DecodeError",
    "PluginError",
    "PluginLoadError",
    "SettingError",
    "TellsignError",
    "TimeLimitError",
    "WeightsError",
]

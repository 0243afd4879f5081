"""The one error that a fusion bundle raises."""

from __future__ import annotations


class BundleError(ValueError):
    """A bundle's folder cannot be used as it is.

    Attributes
    ----------
    file : str
        Name of the offending file in the bundle's folder, or the folder.
    expected : str
        What should have been there, in words.
    got : object
        What was there.
    """

    def __init__(self, file: str, expected: str, got: object) -> None:
        self.file, self.expected, self.got = file, expected, got
        super().__init__(file, expected, got)

    def __str__(self) -> str:
        text = self.got if isinstance(self.got, str) else repr(self.got)
        return f"fusion bundle: {self.file}: expected {self.expected}, got {text[:200]}"


__all__ = ["BundleError"]

"""What the pages share: escaping, a head that lets nothing in, and writing a file whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path

from . import words
from .style import STYLE


def escaped(value: object) -> str:
    """Anything as HTML text that may also stand in a double-quoted attribute."""
    return escape(words.printable(str(value)), quote=True)


def opening(title: str, *, scripts: Sequence[str] = (), style: str = "") -> str:
    """The page up to and with `<body>`; its policy allows no request, and of scripts those given and no other."""
    # Scripts are allowed by their hash: if a string ever slipped through unescaped, it still could not run.
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{h}'" for h in hashes) or "'none'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f"<title>{escaped(title)}</title><style>{STYLE}{style}</style></head><body>"
    )


def write_whole(path: str | os.PathLike[str], content: str) -> None:
    """Write a file whole or not at all."""
    target = Path(path)
    handle, raw = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.absolute().parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(content)
        os.chmod(raw, 0o644)
        os.replace(raw, target)
    except BaseException:
        Path(raw).unlink(missing_ok=True)
        raise

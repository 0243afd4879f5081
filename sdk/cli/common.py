"""What the subcommands share: one console per stream, one way to end with an error."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console


def console(*, stderr: bool = False) -> Console:
    """A console on the present stdout or stderr. Honours NO_COLOR, TERM and COLUMNS; no markup, no highlighting."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    if hasattr(stream, "reconfigure"):  # a file name that the terminal's encoding does not know must not end the run
        stream.reconfigure(errors="backslashreplace")
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=False)


def fail(message: str, *, code: int = 1) -> NoReturn:
    """Say `message` on stderr and end with `code`: 1 something failed, 2 wrong usage."""
    from tellsign.report.words import printable

    typer.echo(f"tellsign: {printable(message)}", err=True)
    raise typer.Exit(code)


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """No search for garbage in the body: importing torch makes a lot of objects and no garbage."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextlib.contextmanager
def frozen() -> Iterator[None]:
    """What is there at the beginning is left out of the searches for garbage in the body: it stays anyway."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def told_errors() -> Iterator[None]:
    """Errors that the package raises on purpose become one line on stderr; everything else keeps its traceback."""
    from tellsign.errors import SettingError, TellsignError
    from tellsign.fusion.errors import BundleError

    try:
        yield
    except SettingError as error:
        fail(str(error), code=2)
    except (TellsignError, BundleError) as error:
        fail(str(error))
    except BrokenPipeError:
        # The reader has gone (`| head`). Point stdout elsewhere, or the interpreter complains while it closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None

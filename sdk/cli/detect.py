"""`tellsign detect`."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from .common import console, frozen, told_errors, without_collection
from .settings import Settings, parse_settings
from .trust import CommercialOnly, Deny, Isolate, IsolateMemory, Plugin, TimeLimit, trust_options

if TYPE_CHECKING:
    from tellsign.report.page import Page
    from tellsign.schemas import Picture, Verdict

SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".tif",
    ".tiff",
    ".bmp",
    ".gif",
    ".avif",
    ".heic",
    ".heif",
)
"""What counts as a picture inside a folder. A file that is named itself is read whatever it is called."""


@attrs.frozen
class Source:
    """One picture to look at."""

    name: str
    """Shown and written; "-" for stdin."""
    given: str | bytes | None
    """For the detector: a path or a file's bytes. None where there is nothing to read, and `problem` says why."""
    problem: tuple[str, str] | None = None
    """Code and message."""


def _share(value: float | None) -> float | None:
    if value is not None and not 0 < value < 1:
        raise typer.BadParameter(f"takes a number between 0 and 1, got {value:g}")
    return value


def detect(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH...|DIR|-",
            help="Pictures; folders, of which every picture is taken in the order of the names; or - for one picture's "
            "bytes on stdin.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line and picture.")] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write one self-contained HTML page.", metavar="FILE.html", dir_okay=False)
    ] = None,
    prior: Annotated[
        float | None,
        typer.Option(metavar="P", callback=_share, help="Share of AI pictures to assume; .5 unless given."),
    ] = None,
    error_rate: Annotated[
        float | None,
        typer.Option(
            metavar="A",
            callback=_share,
            help="How often the prediction set may miss the truth; the bundle's unless given.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", metavar="D")] = "auto",
    stability: Annotated[
        bool,
        typer.Option(
            "--stability/--no-stability", help="Check that the verdict survives saving the picture again (costs time)."
        ),
    ] = True,
    fusion: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="Folder of a fusion bundle; the shipped one unless given.")
    ] = None,
    plugin: Plugin = None,
    deny: Deny = None,
    commercial_only: CommercialOnly = False,
    isolate: Isolate = None,
    isolate_memory: IsolateMemory = None,
    time_limit: TimeLimit = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Go into the folders inside folders.")] = False,
    files_from_stdin: Annotated[
        bool, typer.Option("--files-from-stdin", help="Read paths from stdin, one per line or separated by NUL.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar; one line per picture.")] = False,
    settings: Settings = None,
) -> None:
    """Say of each picture whether it is authentic, AI-generated, AI-edited or tampered with, how sure that is, and why.

    Ends with 0 when every picture was read, 1 when one was not, 2 on wrong usage.
    """
    if not paths and not files_from_stdin:
        raise typer.BadParameter("name a picture or a folder, or - for stdin", param_hint="PATH")
    if report is not None and not report.absolute().parent.is_dir():
        raise typer.BadParameter(f"the folder {report.absolute().parent} does not exist", param_hint="--report")
    sources = list(find(paths or [], recursive=recursive, files_from_stdin=files_from_stdin))
    started = time.perf_counter()
    counts: Counter[str] = Counter()
    with told_errors():
        page = _page(report, len(sources))
        say = _printer(as_json=as_json, quiet=quiet, many=len(sources) > 1, report=report)
        options: dict[str, Any] = {"device": device, "stability_probe": stability, "error_rate": error_rate}
        options["settings"] = parse_settings(settings)
        if fusion is not None:
            options["fusion"] = fusion
        options |= trust_options(
            plugin=plugin,
            deny=deny,
            commercial_only=commercial_only,
            isolate=isolate,
            isolate_memory=isolate_memory,
            time_limit=time_limit,
        )
        if prior is not None:
            options["prior"] = prior
        with _progress(len(sources), shown=not quiet, as_json=as_json) as step:
            for source, answer in _answers(sources, options):
                counts[say(source, answer)] += 1
                if page is not None:
                    _add(page, source, answer)
                step()
        if page is not None and report is not None:
            page.save(report)
            if not quiet:
                console(stderr=True).print(f"report written to {report}", soft_wrap=True)
        if len(sources) > 1 and not as_json and not quiet:
            from tellsign.report.terminal import summary

            console().print(summary(dict(counts), time.perf_counter() - started))
        sys.stdout.flush()
    if counts["not read"]:
        raise typer.Exit(1)


def find(paths: Sequence[str], *, recursive: bool = False, files_from_stdin: bool = False) -> Iterator[Source]:
    """The pictures that the arguments name, in order.

    A folder gives its pictures (`SUFFIXES`, hidden files left out) sorted by name; one without any is a problem of its
    own. "-" is one picture's bytes on stdin. With `files_from_stdin` stdin holds paths instead, and they come last.

    Raises
    ------
    typer.BadParameter
        When stdin is asked for twice.
    """
    if list(paths).count("-") + files_from_stdin > 1:
        raise typer.BadParameter("stdin can be read once: either - or --files-from-stdin", param_hint="PATH")
    named = list(paths)
    if files_from_stdin:
        listed = sys.stdin.buffer.read()
        separator = b"\0" if b"\0" in listed else b"\n"
        named += [os.fsdecode(line.rstrip(b"\r")) for line in listed.split(separator) if line.strip()]
    for path in named:
        if path == "-" and not files_from_stdin:
            yield Source("-", sys.stdin.buffer.read())
        elif os.path.isdir(path):
            yield from _folder(path, recursive)
        else:
            yield Source(path, path)


def _folder(folder: str, recursive: bool) -> Iterator[Source]:
    empty = True
    for where, below, files in os.walk(folder):
        below[:] = sorted(d for d in below if not d.startswith(".")) if recursive else []
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                empty = False
                path = os.path.join(where, name)
                yield Source(path, path)
    if empty:
        deeper = "" if recursive else "; --recursive looks into the folders inside it"
        yield Source(folder, None, ("no_pictures", f"the folder holds no pictures{deeper}"))


@attrs.frozen
class Problem:
    """A picture without a verdict."""

    code: str
    message: str


def _answers(sources: Sequence[Source], options: dict[str, Any]) -> Iterator[tuple[Source, Verdict | Problem]]:
    readable: list[str | bytes] = [s.given for s in sources if s.given is not None]
    if not readable:
        for source in sources:
            yield source, Problem(*(source.problem or ("bad_source", "nothing to read")))
        return

    with without_collection():
        from tellsign.detector import Detector
        from tellsign.schemas import Verdict

        made = Detector(**options)
    with frozen(), made as detector:
        found = iter(detector.detect_many(readable, on_error="return"))
        for source in sources:
            if source.given is None:
                yield source, Problem(*(source.problem or ("bad_source", "nothing to read")))
                continue
            answer = next(found)
            if isinstance(answer, Verdict):
                yield source, attrs.evolve(answer, source=answer.source or source.name)
            else:
                error = answer.error
                yield (
                    source,
                    Problem(getattr(error, "code", type(error).__name__), getattr(error, "message", str(error))),
                )


def _printer(
    *, as_json: bool, quiet: bool, many: bool, report: Path | None
) -> Callable[[Source, Verdict | Problem], str]:
    """A function that prints one answer and returns the word that the summary counts it under."""
    if as_json:
        import json

        from tellsign.schemas.codec import to_json

        def say_json(source: Source, answer: Verdict | Problem) -> str:
            if isinstance(answer, Problem):
                told: Any = {"source": source.name, "error": {"code": answer.code, "message": answer.message}}
            else:
                told = to_json(answer)
            sys.stdout.write(json.dumps(told, allow_nan=False) + "\n")
            sys.stdout.flush()
            return "not read" if isinstance(answer, Problem) else answer.label.value

        return say_json

    from tellsign.report import terminal, words

    out = console()
    hint = "" if report or many else "--report page.html shows where, --json gives everything to programs"

    def say(source: Source, answer: Verdict | Problem) -> str:
        if isinstance(answer, Problem):
            if quiet:
                out.print(
                    f"{words.printable(source.name)}: not read: {words.printable(answer.message)}", soft_wrap=True
                )
            else:
                out.print(terminal.error_panel(source.name, answer.message))
            return "not read"
        if quiet:
            out.print(terminal.one_line(answer, source.name), soft_wrap=True)
        else:
            out.print(terminal.VerdictPanel(answer, source.name if source.name != "-" else "stdin", hint))
        return words.LABELS[answer.label]

    return say


class _progress:  # noqa: N801 - used as a function
    """A progress bar on stderr for more than one picture.

    Drawn only where it cannot mix with what is printed: stderr is a terminal and stdout is not the same one.
    """

    def __init__(self, total: int, *, shown: bool, as_json: bool) -> None:
        self._bar: Any = None
        if shown and total > 1 and sys.stderr.isatty() and not sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=console(stderr=True), transient=True)
            self._task = self._bar.add_task("pictures", total=total)

    def __enter__(self) -> Callable[[], None]:
        if self._bar is None:
            return lambda: None
        self._bar.start()
        return lambda: self._bar.advance(self._task)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _page(report: Path | None, expected: int) -> Page | None:
    if report is None:
        return None
    from tellsign.report.page import Page

    return Page(expected=expected)


def _add(page: Page, source: Source, answer: Verdict | Problem) -> None:
    if isinstance(answer, Problem):
        page.add_error(source.name, answer.code, answer.message)
    else:
        page.add(answer, _picture(source))


def _picture(source: Source) -> Picture | None:
    """The picture again, for the page: verdicts carry no pixels, and keeping every picture would fill the memory."""
    from tellsign.decoding import decode
    from tellsign.errors import DecodeError

    try:
        return decode(source.given) if source.given is not None else None
    except DecodeError:  # gone or changed since the verdict
        return None

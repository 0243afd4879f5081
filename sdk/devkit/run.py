"""All checks by name, and how they are run."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

from tellsign.errors import SettingError
from tellsign.host import PluginRecord, discover
from tellsign.onefile import is_file
from tellsign.worker import in_words

from . import alignment, answers, declared, manners, steady
from .report import CheckFailedError, CheckSkippedError, Report, Result
from .subject import Subject

Check = Callable[[Subject], str]

CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        declared.declaration,
        declared.weights,
        declared.cheap_listing,
        declared.loads,
        answers.every_picture,
        answers.evidence,
        answers.columns,
        steady.deterministic,
        steady.batch_equals_single,
        steady.threads,
        steady.device_moves,
        manners.failures_isolated,
        manners.globals_untouched,
        manners.offline,
        manners.time,
        manners.memory,
        alignment.task_alignment,
    )
}
"""The checks in the order in which a failure explains the next ones. A check is given the subject, says what it did and
counted, and raises `CheckFailedError`."""


def describe(name: str) -> str:
    """What a check demands, in one sentence."""
    return (inspect.getdoc(CHECKS[name]) or "").splitlines()[0]


def find(plugin: str | os.PathLike[str]) -> PluginRecord:
    """The record of an installed plugin by its name, or of one in a file by its path.

    Raises
    ------
    SettingError
        Nothing of that name is installed.
    """
    if is_file(plugin):
        path = Path(plugin).absolute()
        if not path.is_file():
            raise SettingError("plugin", "the path of a file that is there", os.fspath(plugin))
        return next(r for r in discover(allow=(), files=[path], environ={}) if r.file == path)
    records = discover(environ={})  # whether it is allowed to run here is no question of whether it is sound
    for record in records:
        if record.name == plugin:
            return record
    names = sorted({r.name for r in records})
    near = get_close_matches(str(plugin), names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise SettingError("plugin", f"the name of an installed plugin ({', '.join(names)}) or a path to one{hint}", plugin)


def check(
    plugin: str | os.PathLike[str],
    *,
    settings: Mapping[str, object] | None = None,
    expected: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
    device: str = "cpu",
    tell: Callable[[Result], object] = lambda result: None,
) -> Report:
    """Run the checks on one plugin.

    Parameters
    ----------
    plugin : str or path
        The name of an installed plugin, or a plugin in one file.
    settings : mapping, optional
        The plugin's, as a Detector's `settings` has them under its name.
    expected : mapping of str to str, optional
        Checks that are known to fail, each with the reason. One that passes all the same is a failure.
    only : collection of str, optional
        Names of the checks to run; by default all.
    device : str
        "cpu", "auto", "cuda" or "mps". With an accelerator, `device_moves` compares it with the CPU.
    tell : callable, optional
        Given each result as it comes.

    Raises
    ------
    SettingError
        There is no such plugin or check, or an expected failure has no reason.
    """
    for parameter, names in (("expected", expected or ()), ("only", only or ())):
        for name in names:
            if name not in CHECKS:
                raise SettingError(parameter, f"names of checks, which are {', '.join(CHECKS)}", name)
    subject = Subject(find(plugin), settings or {}, device)
    try:
        results = list(run(subject, expected or {}, [n for n in CHECKS if only is None or n in only], tell))
        return Report(plugin=subject.name, results=tuple(results), unavailable=subject.unavailable)
    finally:
        subject.close()


def run(
    subject: Subject, expected: Mapping[str, str], names: Collection[str], tell: Callable[[Result], object]
) -> Iterator[Result]:
    """One result after the other, each told when it is there."""
    for name in names:
        result = one(subject, name, expected.get(name))
        tell(result)
        yield result


def one(subject: Subject, name: str, expected: str | None = None) -> Result:
    """Run one check; `expected` is the reason why it should fail, None where it should not.

    Raises
    ------
    SettingError
        The reason is empty.
    """
    if expected is not None and not expected.strip():
        raise SettingError("expected", f"a reason why {name} fails", expected)
    began = time.perf_counter()
    state, said = "passed", ""
    try:
        said = CHECKS[name](subject)
    except CheckSkippedError as skip:
        state, said = "skipped", str(skip)
    except CheckFailedError as failure:
        state, said = "failed", str(failure)
    except Exception as error:  # of the plugin's, in a call that had gone well before
        state, said = "failed", f"it raised {in_words(error)}"
    if expected is not None and state == "failed":
        state = "expected"
    elif expected is not None and state == "passed":
        state, said = "failed", f"it passes, but was expected to fail: take the expectation away ({said})"
    return Result(
        name=name,
        state=state,  # type: ignore[arg-type]
        said=said,
        reason=expected or "",
        seconds=time.perf_counter() - began,
    )


__all__ = ["CHECKS", "check", "describe", "find", "one", "run"]

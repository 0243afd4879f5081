"""The checks as a pytest fixture: one test for each check.

    pytest_plugins = ["tellsign.devkit.pytest_plugin"]

    def test_conformance(conformance):
        conformance("smudge")

There is no `pytest11` entry point on purpose: pytest would then rewrite the assertions of every module of this package,
in the tests of everybody who has it installed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping

import pytest

from .run import CHECKS, find, one
from .subject import Subject


@pytest.fixture(scope="session")
def _tellsign_subjects() -> Iterator[Callable[[str | os.PathLike[str], Mapping[str, object], str], Subject]]:
    """Plugins that were loaded already: most checks look at the same answers."""
    made: dict[str, Subject] = {}

    def get(plugin: str | os.PathLike[str], settings: Mapping[str, object], device: str) -> Subject:
        key = repr((os.fspath(plugin), sorted(settings.items()), device))
        if key not in made:
            made[key] = Subject(find(plugin), settings, device)
        return made[key]

    yield get
    for subject in made.values():
        subject.close()


@pytest.fixture(params=list(CHECKS))
def conformance(
    request: pytest.FixtureRequest,
    _tellsign_subjects: Callable[[str | os.PathLike[str], Mapping[str, object], str], Subject],
) -> Callable[..., None]:
    """Function (plugin, settings=, expected=, device=) that runs one check; the test runs once for each of them.

    `expected` maps names of checks that are known to fail to the reason; those are xfailed.
    """
    name: str = request.param

    def run(
        plugin: str | os.PathLike[str],
        *,
        settings: Mapping[str, object] | None = None,
        expected: Mapping[str, str] | None = None,
        device: str = "cpu",
    ) -> None:
        for other in expected or ():
            assert other in CHECKS, f"there is no check {other!r}; there are {', '.join(CHECKS)}"
        result = one(_tellsign_subjects(plugin, settings or {}, device), name, (expected or {}).get(name))
        print(f"{name}: {result.said}")
        if result.state == "skipped":
            pytest.skip(result.said)
        if result.state == "expected":
            pytest.xfail(f"{result.reason} ({result.said})")
        assert result.state == "passed", result.said

    return run

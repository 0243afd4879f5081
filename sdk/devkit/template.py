"""The texts of a new plugin: small, and working as they stand."""

from __future__ import annotations

from string import Template

from tellsign.schemas import Task

PYPROJECT = Template("""\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$distribution"
version = "0.1.0"
description = "A $task detector for tellsign."
readme = "README.md"
requires-python = ">=3.11"
license = "Apache-2.0"
dependencies = ["tellsign", "numpy"]

[project.optional-dependencies]
test = ["pytest"]

[project.entry-points."tellsign.detectors"]
$name = "$package"

[tool.setuptools]
packages = ["$package"]
package-data = { $package = ["tellsign.json"] }

[tool.pytest.ini_options]
testpaths = ["tests"]
addopts = ["--import-mode=importlib"]
""")

README = Template("""\
# $distribution

A detector for tellsign that looks at `$task` views. What it does today is an example; the work is in
`$package/detector.py`, and what it declares is in `$package/tellsign.json`.

    pip install -e ".[test]"
    tellsign plugins list
    tellsign plugins check $name
    pytest
""")

INIT = Template('''\
"""A $task detector for tellsign."""

from tellsign.plugin import hookimpl


@hookimpl
def tellsign_detector():
    """The class; import whatever is heavy in its module and not here."""
    from .detector import $cls

    return $cls
''')

MANIFEST = Template("""\
{
  "name": "$name",
  "version": "0.1.0",
  "api_version": $api_version,
  "task": "$task",
  "detector": "$package.detector:$cls",
  "summary": "$summary",
  "columns": $columns,
  "code_licence": "Apache-2.0",
  "weights_licence": "none",
  "commercial_use": true,
  "time_limit": 10.0
}
""")

TEST = Template('''\
"""What every detector must keep to, and what this one is for."""

import numpy as np

from tellsign import Detector

pytest_plugins = ["tellsign.devkit.pytest_plugin"]


def test_conformance(conformance):
    """One test for each check. What is known to fail goes into expected={"name of the check": "why"}."""
    conformance("$name")


def test_it_answers():
    picture = np.full((300, 400, 3), 255, np.uint8)
    with Detector(plugins=["$name"]) as detector:
        answer = detector.collect(picture)
    assert [e.kind for e in answer] == ["$kind"]
''')

ONE_FILE = Template('''\
"""$summary"""

$imports

DECLARATION = {
    "name": "$name",
    "task": "$task",
    "columns": $columns,
    "code_licence": "Apache-2.0",
    "weights_licence": "none",
    "commercial_use": True,
}


$body''')

_COLUMN = '[{"name": "%s", "evidence": "%s", "statistic": "%s", "direction": 1}]'

_IMPORTS = (
    "from tellsign.plugin import DetectorPlugin",
    "from tellsign.plugin import DetectorPlugin\nfrom tellsign.schemas import Box",
)

_PIXEL = Template('''\
class $cls(DetectorPlugin):
    """Native crops, never resampled: what is in them is what the file has."""

    def detect(self, views, runtime):
        return [self.look(view) for view in views]

    def look(self, view):
        if not view.crops:
            return [self.not_applicable("the picture is too small")]
        steps = np.concatenate([np.diff(crop.astype(np.int16), axis=1).ravel() for crop in view.crops])
        return [self.score("flat", (steps == 0).mean())]
''')

_SEMANTIC = Template('''\
class $cls(DetectorPlugin):
    """The whole picture, small and without its pixel traces: what is left is what it shows."""

    def detect(self, views, runtime):
        return [self.look(view) for view in views]

    def look(self, view):
        bright = (view.image >= 240).all(axis=2)
        return [self.score("glare", bright.mean())]
''')

_SEGMENTATION = Template('''\
class $cls(DetectorPlugin):
    """All native pixels: the answer says where. Larger models cut them with `tellsign.views.tiles`."""

    cell = 16

    def detect(self, views, runtime):
        return [self.look(view.image) for view in views]

    def look(self, image):
        rows, columns = image.shape[0] // self.cell, image.shape[1] // self.cell
        if not rows or not columns:
            return [self.not_applicable("the picture is too small")]
        height, width = rows * self.cell, columns * self.cell
        grey = image[:height, :width].mean(axis=2)
        cells = grey.reshape(rows, self.cell, columns, self.cell)
        still = 1 / (1 + cells.std(axis=(1, 3)))
        return [self.map("still", still, box=Box(0, 0, width, height))]
''')

_PROVENANCE = Template('''\
class $cls(DetectorPlugin):
    """The file: its bytes, and what was read off them. Both are None for a picture that came as an array."""

    def detect(self, views, runtime):
        return [self.look(view.facts) for view in views]

    def look(self, facts):
        if facts is None or not facts.software:
            return [self.not_applicable("the file names no software")]
        return [self.provenance(f"saved by {facts.software[0]}", claimant="the file", verification="unverified")]
''')

_BODIES = {
    Task.PIXEL: (
        _PIXEL,
        "Scores how much of the picture is flatter than a sensor leaves it.",
        ("flat", "logit"),
        "score",
    ),
    Task.SEMANTIC: (_SEMANTIC, "Scores how much of the picture is glaringly bright.", ("glare", "logit"), "score"),
    Task.REASONING: (_SEMANTIC, "Scores how much of the picture is glaringly bright.", ("glare", "logit"), "score"),
    Task.SEGMENTATION: (
        _SEGMENTATION,
        "Maps where the picture is stiller than a sensor leaves it.",
        ("still", "share"),
        "map",
    ),
    Task.PROVENANCE: (_PROVENANCE, "Tells which software the file names.", None, "not_applicable"),
}


def texts(name: str, task: Task, api_version: int) -> dict[str, str]:
    """A package's files by their paths inside its folder.

    Parameters
    ----------
    name : str
        The plugin's, as a declaration allows it.
    task : Task
    api_version : int
        Of the contract with plugins.
    """
    words = _words(name, task) | {"api_version": str(api_version)}
    package = words["package"]
    detector = f'"""{words["summary"]}"""\n\n{words["imports"]}\n\n\n{words["body"]}'
    return {
        "pyproject.toml": PYPROJECT.substitute(words),
        "README.md": README.substitute(words),
        f"{package}/__init__.py": INIT.substitute(words),
        f"{package}/tellsign.json": MANIFEST.substitute(words),
        f"{package}/detector.py": detector,
        f"tests/test_{name.replace('-', '_')}.py": TEST.substitute(words),
    }


def one_file(name: str, task: Task) -> str:
    """The text of a plugin in one file."""
    return ONE_FILE.substitute(_words(name, task))


def _words(name: str, task: Task) -> dict[str, str]:
    body, summary, column, kind = _BODIES[task]
    cls = "".join(part.capitalize() for part in name.replace("-", "_").split("_"))
    numpy = "import numpy as np\n\n" if "np." in body.template else ""
    imports = numpy + _IMPORTS[task is Task.SEGMENTATION]
    return {
        "name": name,
        "distribution": f"tellsign-{name}",
        "package": f"tellsign_{name.replace('-', '_')}",
        "cls": cls,
        "task": task.value,
        "summary": summary,
        "columns": "[]" if column is None else _COLUMN % (column[0], column[0], column[1]),
        "imports": imports,
        "body": body.substitute(cls=cls),
        "kind": kind,
    }


__all__ = ["one_file", "texts"]

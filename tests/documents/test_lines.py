"""Every line of every block in the documents is one that its program understands, also where an extra is missing.

The line is parsed by the command's own parser, which knows each option, how many arguments there are and what kind of
value each takes; nothing is called.
"""

import ast
import importlib
import tomllib

import pytest
import typer
from blocks import ROOT, every_block

from tellsign.cli.app import app

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
UsageError = typer.BadParameter.__base__
"""Of the click that typer uses, which is its own in newer versions."""
SHELL = [b for b in every_block() if b.language == "sh"]
PYTHON = [b for b in every_block() if b.language == "python"]


def command_of(module):
    """The command behind `python -m module`."""
    found = importlib.import_module(module)
    if hasattr(found, "__path__"):
        found = importlib.import_module(f"{module}.__main__")
    if isinstance(getattr(found, "app", None), typer.Typer):
        return typer.main.get_command(found.app)
    alone = typer.Typer(add_completion=False)
    alone.command()(getattr(found, "command", None) or found.main)
    return typer.main.get_command(alone)


def parse(command, words):
    context = None
    while hasattr(command, "get_command") and words:
        context = command.context_class(command, parent=context)
        below = command.get_command(context, words[0])
        assert below is not None, f"{words[0]} is no subcommand"
        command, words = below, words[1:]
    command.make_context(command.name, list(words), parent=context)


def check(words):
    """Whether a line is understood; raises where it is not."""
    if ">" in words:
        words = words[: words.index(">")]
    program, *rest = words
    if program == "tellsign":
        parse(typer.main.get_command(app), rest)
    elif words[:2] == ["python", "-m"] and rest[1].startswith("tellsign."):
        parse(command_of(rest[1]), rest[2:])
    elif words[:2] == ["pip", "install"]:
        wanted = [w for w in rest[1:] if "[" in w]
        for requirement in wanted:
            name, extras = requirement.rstrip("]").split("[")
            assert name in (PROJECT["name"], "."), requirement
            assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"]), requirement
    elif words[:2] == ["hf", "download"]:
        from huggingface_hub.utils import validate_repo_id

        assert len(rest) == 2, words
        validate_repo_id(rest[1])
    elif program not in KNOWN:
        raise AssertionError(f"nobody knows {program}")


KNOWN = ("pip", "python", "pytest", "bash", "git", "cd", "mkdocs", "ruff", "source")
"""Programs of others; blocks with them are run by .ci/run or by a test, or are a person's own affair."""


@pytest.mark.parametrize("block", SHELL, ids=lambda b: b.name)
def test_every_line_parses(block):
    assert block.lines
    for words in block.lines:
        try:
            check(words)
        except UsageError as error:
            raise AssertionError(f"{block.page.name}: {' '.join(words)}: {error.format_message()}") from error


@pytest.mark.parametrize("block", PYTHON, ids=lambda b: b.name)
def test_every_python_block_is_python(block):
    ast.parse(block.code)


@pytest.mark.parametrize(
    "line",
    [
        "tellsign detect photo.jpg --colour",
        "tellsign evaluate DATA",
        "tellsign compare one.json",
        "tellsign tune DATA --out x --seed many",
        "tellsign models fly",
        "python -m tellsign.data.manifest --shared SHARED --out TEST.csv",
        "python -m tellsign.tuning.experiment cook",
        "python -m tellsign.artifacts",
        'pip install "tellsign[smell]"',
        "curl -O somewhere",
    ],
)
def test_a_line_that_is_wrong_is_found(line):
    import shlex

    with pytest.raises((UsageError, AssertionError)):
        check(shlex.split(line))

"""A plugin in one Python file, to try a detector before there is a package.

    from tellsign.plugin import DetectorPlugin

    DECLARATION = {"task": "pixel"}

    class Smudge(DetectorPlugin):
        def detect(self, views, runtime): ...

What the file declares is read off its source and not by running it, as a package's `tellsign.json` is.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import sys
from pathlib import Path

from tellsign.schemas import API_VERSION, Declaration
from tellsign.schemas.codec import from_json

from .errors import TellsignError

VARIABLE = "DECLARATION"
BASE = "DetectorPlugin"
UNSTATED = "LicenseRef-unstated"


class OneFileError(TellsignError):
    """The file is no plugin; the text says why."""


def is_file(plugin: object) -> bool:
    """Whether what a user gave is a file, and not the name of an installed plugin: a path, or text that ends in .py."""
    return isinstance(plugin, os.PathLike) or (isinstance(plugin, str) and plugin.endswith(".py"))


def name_of(path: Path) -> str:
    """The plugin's name unless its declaration says another one: the file's, without .py."""
    return path.stem


def module_of(path: Path) -> str:
    """Name under which the file is imported; one that no package has."""
    return "tellsign_onefile_" + re.sub(r"\W", "_", path.stem)


def declaration_of(path: Path) -> Declaration:
    """Read what the file declares, without running it.

    `DECLARATION`, a dict of plain values at the top of the file, takes the keys of `tellsign.json`. It must say the
    `task`; for the rest there are defaults that suit a trial: the file's name, no columns, licences not stated, no
    commercial use, and the one class that derives from `DetectorPlugin`.

    Raises
    ------
    OneFileError
        The file cannot be read, or it declares no plugin.
    CodecError
        Its declaration says something that is not allowed.
    """
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except OSError as error:
        raise OneFileError(f"{path} cannot be read: {error.strerror or error}") from error
    except (SyntaxError, ValueError, RecursionError) as error:
        raise OneFileError(f"{path} is no Python: {error}") from error
    declared = _declared(tree, path)
    if "task" not in declared:
        raise OneFileError(f'{path} does not say its task: it needs a line such as {VARIABLE} = {{"task": "pixel"}}')
    usual = {
        "name": name_of(path),
        "version": "0",
        "api_version": API_VERSION,
        "summary": (ast.get_docstring(tree) or f"A detector tried from {path.name}.").splitlines()[0],
        "columns": [],
        "code_licence": UNSTATED,
        "weights_licence": UNSTATED,
        "commercial_use": False,
    }
    chosen = declared.pop("detector", None) or _class_of(tree, path)
    said = usual | declared | {"detector": f"{module_of(path)}:{str(chosen).rpartition(':')[2]}"}
    return from_json(said, Declaration)


def _declared(tree: ast.Module, path: Path) -> dict[str, object]:
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(t, ast.Name) and t.id == VARIABLE for t in targets):
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            try:
                value = ast.literal_eval(node.value) if node.value is not None else None
            except (ValueError, TypeError, RecursionError):
                value = None
            if not isinstance(value, dict):
                raise OneFileError(f"{VARIABLE} in {path} must be a dict of plain values, written out")
            return value
    return {}


def _class_of(tree: ast.Module, path: Path) -> str:
    found = [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        and any((b.attr if isinstance(b, ast.Attribute) else getattr(b, "id", "")) == BASE for b in node.bases)
    ]
    if len(found) != 1:
        raise OneFileError(
            f"{path} must have one class that derives from {BASE}, or name one under 'detector' in {VARIABLE}; "
            f"it has {', '.join(found) or 'none'}"
        )
    return found[0]


def load(path: Path, declaration: Declaration) -> object:
    """Run the file and return what its declaration names, normally a class.

    Raises
    ------
    OneFileError
        There is nothing of that name in it. What the file itself raises goes through.
    """
    module_name, _, class_name = declaration.detector.partition(":")
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise OneFileError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # as `import` does, for whatever looks its own module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(module_name, None)
        raise
    if not hasattr(module, class_name):
        raise OneFileError(f"there is no {class_name} in {path}")
    return getattr(module, class_name)


__all__ = ["OneFileError", "declaration_of", "is_file", "load", "module_of", "name_of"]

"""Puts what these tests share where they can import it."""

import importlib.util
import sys
from pathlib import Path


def _helper(name):
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


for _name in ("blocks", "fresh", "driver", "tiny", "recipe", "trainings"):
    _helper(_name)

"""The README.md of each reference plugin, followed word for word in a fresh environment."""

import importlib.util
import os
import runpy
import shutil
import subprocess
import sys

import pytest
from blocks import ROOT, blocks
from fresh import environment

EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="its blocks are for a POSIX shell")


def tiny_classifier(folder):
    """The one that the plugin's own tests make."""
    file = EXAMPLES / "tellsign-hf" / "tests" / "test_hf.py"
    sys.path.insert(0, str(EXAMPLES / "tellsign-hf"))
    try:
        spec = importlib.util.spec_from_file_location("hf_tests", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(EXAMPLES / "tellsign-hf"))
    module.make(folder)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tellsign-noise", ["noise: 17 passed, of 17 checks.", "quiet"]),
        pytest.param("tellsign-hf", ["FOLDER_OR_NAME"], marks=pytest.mark.slow),
    ],
)
def test_the_readme_is_followed(name, words, tmp_path):
    folder = tmp_path / name
    left_out = shutil.ignore_patterns("__pycache__", "build", "*.egg-info", "tests")
    shutil.copytree(EXAMPLES / name, folder, ignore=left_out)
    runpy.run_path(str(ROOT / ".ci" / "photo.py"))["photograph"](400, 300).save(folder / "photo.jpg", quality=90)
    if name == "tellsign-hf":
        tiny_classifier(folder / "FOLDER_OR_NAME")
    (block,) = [b for b in blocks(EXAMPLES / name / "README.md") if b.language == "sh"]
    command = ["bash", "-euo", "pipefail", "-c", block.code]
    env = environment(tmp_path / "venv") | {"COLUMNS": "120"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    for word in words:
        assert word in done.stdout, done.stdout

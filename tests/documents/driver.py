"""Runs a document's blocks in one process of their own, offline, with the weights that ship."""

import os
import subprocess
import sys

from blocks import ROOT

CODE = """
import runpy, sys
from typer.testing import CliRunner
from tellsign.cli.app import app

def tellsign(words):
    out = words[words.index(">") + 1] if ">" in words else None
    done = CliRunner().invoke(app, words[: words.index(">")] if out else words, prog_name="tellsign")
    if out:
        open(out, "w").write(done.stdout)
    return done.exit_code, done.output + repr(done.exception or "")

def module(words):
    before, sys.argv = sys.argv, words
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code or 0, str(end)
    finally:
        sys.argv = before
    return 0, ""

space = {"__name__": "__main__"}
for language, code in BLOCKS:
    if language == "python":
        exec(compile(code, "document", "exec"), space)
        continue
    for words in code:
        if words[0] == "tellsign":
            status, said = tellsign(words[1:])
        elif words[:2] == ["python", "-m"]:
            status, said = module(words[2:])
        elif words[:2] == ["pip", "install"]:
            continue  # extras, which `test_lines.py` looks up; a recipe says which modules it needs
        else:
            sys.exit(f"not a command that runs here: {words}")
        if status not in ALLOWED.get(" ".join(words[1:3]), ALLOWED.get(words[1], (0,))):
            sys.exit(f"{words} ended with {status}\\n{said}")
"""


def run(blocks, folder, home, *, before="", allowed=None):
    """Run blocks in `folder`.

    `before` is Python that runs first, `allowed` has the exit statuses by subcommand ("eval", "fusion diff").
    """
    told = [(b.language, b.code if b.language == "python" else b.lines) for b in blocks]
    env = os.environ | {"TELLSIGN_HOME": str(home), "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests" / "offline"), env.get("PYTHONPATH", "")])
    code = f"BLOCKS = {told!r}\nALLOWED = {allowed or {}!r}\n{before}\n{CODE}"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]

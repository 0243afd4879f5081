"""Runs a document's blocks in one process of their own, offline, with the weights that ship."""

import os
import subprocess
import sys
import sysconfig

from blocks import ROOT
from fresh import environment

CODE = """
import importlib, os, runpy, shlex, site, subprocess, sys
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

def program(words, **more):
    done = subprocess.run(words, env=os.environ | more, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr

def options(words):
    line = " ".join(words)
    return [w for start, more in MORE.items() if line.startswith(start) for w in shlex.split(more)]

def go():
    space = {"__name__": "__main__"}
    for language, code in BLOCKS:
        if language == "python":
            exec(compile(code, "document", "exec"), space)
            continue
        for words in code:
            if words[0] == "tellsign":
                status, said = tellsign(words[1:] + options(words))
                print(said)
            elif words[:2] == ["python", "-m"]:
                status, said = module(words[2:] + options(words))
            elif words[:2] == ["pip", "install"]:
                status, said = program(words, **PIP)
                if "does not provide the extra" in said:
                    sys.exit(said)
                site.addsitedir(SITE)
                importlib.invalidate_caches()
            elif words[0] == "hf":
                status, said = program([sys.executable, "-m", "huggingface_hub.cli.hf", *words[1:]])
            else:
                sys.exit(f"not a command that runs here: {words}")
            if status not in ALLOWED.get(" ".join(words[1:3]), ALLOWED.get(words[1], (0,))):
                sys.exit(f"{words} ended with {status}\\n{said}")

go()
"""


def run(blocks, folder, home, *, before="", allowed=None, more=None):
    """Run blocks in `folder`; returns what they printed.

    `before` is Python that runs first, `allowed` has the exit statuses by subcommand ("eval", "fusion diff"), `more`
    the options that are appended to lines by how they begin. `pip install` installs into a fresh environment that sees
    the packages of this one, finds what is in `folder/index` beside them, and is seen by the commands that follow.
    """
    told = [(b.language, b.code if b.language == "python" else b.lines) for b in blocks]
    env = os.environ | {"TELLSIGN_HOME": str(home), "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests" / "offline"), env.get("PYTHONPATH", "")])
    pip, python, installed = {}, sys.executable, folder.parent / "venv"
    if any(line[0] == "pip" for b in blocks if b.language == "sh" for line in b.lines):
        fresh, python = environment(installed), str(installed / "bin" / "python")
        pip = {k: v for k, v in fresh.items() if k.startswith("PIP_") or k in ("PATH", "VIRTUAL_ENV")}
        pip |= {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": str(folder / "index")}
    known = {"BLOCKS": told, "ALLOWED": allowed or {}, "MORE": more or {}, "PIP": pip}
    known["SITE"] = sysconfig.get_path("purelib", vars={"base": str(installed)})
    code = "".join(f"{name} = {value!r}\n" for name, value in known.items()) + f"{before}\n{CODE}"
    done = subprocess.run([python, "-c", code], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout

"""A fresh virtual environment that sees this one's packages through a .pth file, as CI's only one is seen."""

import os
import sys
import sysconfig
import venv


def environment(folder):
    """Environment variables of a virtual environment in which nothing but this one's packages is installed."""
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    here = sysconfig.get_path("purelib")
    # addsitedir and not the bare path: the packages there may be editable, which is a .pth file of their own.
    see = folder / "lib" / version / "site-packages" / "see.pth"
    see.write_text(f"import site; site.addsitedir({here!r})\n")
    for command in ("tellsign", "pip", "pytest"):
        script = folder / "bin" / command
        script.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -m {command} "$@"\n')
        script.chmod(0o755)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("TELLSIGN_", "PYTEST_"))}
    environ |= {
        "PATH": f"{folder}/bin{os.pathsep}{environ['PATH']}",
        "VIRTUAL_ENV": str(folder),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this one the wrong way round: 0 is no isolation
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "TELLSIGN_HOME": str(folder / "home"),
        "HF_HUB_OFFLINE": "1",
    }
    environ.pop("PYTHONHOME", None)
    return environ

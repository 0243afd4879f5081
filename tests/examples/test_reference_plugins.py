"""The reference plugins as third parties ship them: built as wheels, installed beside tellsign, tested there."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PLUGINS = {"tellsign-noise": {"noise"}, "tellsign-hf": {"hf", "hf-crops"}}
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder into which a distribution's wheel was installed, without its dependencies: they are here already."""
    made = {}

    def install(name):
        if name not in made:
            source, out, target = (tmp_path_factory.mktemp(part) for part in ("source", "wheel", "target"))
            shutil.copytree(
                EXAMPLES / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
            )
            build = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(out)]
            done = subprocess.run([*build, str(source / name)], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            (wheel,) = out.glob("*.whl")
            put = [*PIP, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
            done = subprocess.run(put, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            made[name] = wheel, target
        return made[name]

    return install


def child(target, *command, cwd=None):
    path = os.pathsep.join([str(target), os.environ["PYTHONPATH"]])
    environ = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    environ.pop("TELLSIGN_PLUGINS", None)
    return subprocess.run(
        [sys.executable, *command], cwd=cwd or target, capture_output=True, text=True, env=environ, timeout=600
    )


@pytest.mark.parametrize("name", PLUGINS)
def test_the_wheel_holds_code_and_manifests_and_nothing_else(installed, name):
    wheel, _ = installed(name)
    with zipfile.ZipFile(wheel) as archive:
        shipped = {n for n in archive.namelist() if ".dist-info/" not in n}
    package = name.replace("-", "_")
    tracked = {p.relative_to(EXAMPLES / name).as_posix() for p in (EXAMPLES / name / package).rglob("*.*")}
    assert shipped == {t for t in tracked if t.endswith((".py", ".json"))}


@pytest.mark.parametrize("name", PLUGINS)
def test_it_is_listed_without_being_imported(installed, name):
    _, target = installed(name)
    done = child(target, "-m", "tellsign", "plugins", "list", "--json")
    assert done.returncode == 0, done.stderr
    ours = {r["name"]: r for r in json.loads(done.stdout) if r["distribution"] == name}
    assert set(ours) == PLUGINS[name]
    assert {r["state"] for r in ours.values()} == {"ok"}


@pytest.mark.parametrize("name", ["tellsign-noise", pytest.param("tellsign-hf", marks=pytest.mark.slow)])
def test_its_own_tests_pass(installed, name, tmp_path):
    _, target = installed(name)
    shutil.copytree(EXAMPLES / name / "tests", tmp_path / "tests")
    done = child(
        target, "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", "tests", cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout.splitlines()[-1]


def test_the_one_without_a_model_answers_through_a_worker_process_too(installed, tmp_path):
    _, target = installed("tellsign-noise")
    code = (
        "import numpy as np\nfrom tellsign import Detector\n"
        "picture = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)\n"
        "said = []\n"
        "for isolate in ((), ('noise',)):\n"
        "    with Detector(plugins=['noise'], isolate=isolate) as detector:\n"
        "        said.append(detector.collect(picture))\n"
        "assert said[0] == said[1] and len(said[0]) == 1\n"
        "import sys; print('torch' in sys.modules)\n"
    )
    done = child(target, "-c", code, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


def test_the_licence_filter_leaves_out_what_runs_anybodys_model(installed, tmp_path):
    _, target = installed("tellsign-hf")
    code = (
        "from tellsign.host import discover\n"
        "print(*[r.name for r in discover(commercial_only=True) if r.state == 'disabled'])"
    )
    assert child(target, "-c", code, cwd=tmp_path).stdout == "hf hf-crops\n"

"""What must not be imported before it is needed."""

import json
import subprocess
import sys

import pytest

import tellsign

HEAVY = {"torch", "torchvision", "timm", "open_clip", "transformers", "xgboost", "sklearn"}


@pytest.mark.parametrize(
    "code",
    [
        "import tellsign",
        "import tellsign.host; tellsign.host.discover()",
        "import tellsign; tellsign.Detector; tellsign.Verdict; tellsign.decode; tellsign.__version__",
        "import tellsign.plugin, tellsign.runtime; tellsign.runtime.DeviceRuntime()",
    ],
)
def test_no_heavy_module_is_imported(code):
    code = f"import json, sys\n{code}\nprint(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert set(json.loads(done.stdout)) & HEAVY == set()


def test_importing_the_package_alone_imports_not_even_numpy():
    code = "import sys, tellsign; print('numpy' in sys.modules, 'attrs' in sys.modules, 'PIL' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False False False\n"


@pytest.mark.parametrize("name", tellsign.__all__)
def test_every_public_name_is_there_and_listed(name):
    assert getattr(tellsign, name) is not None
    assert name in dir(tellsign)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'tellsign' has no attribute 'detekt'"):
        _ = tellsign.detekt

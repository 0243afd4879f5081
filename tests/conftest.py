"""No test reaches the network: a socket that is not a local one refuses to connect, here and in child interpreters."""

import os
import sys
from pathlib import Path

import hypothesis
import pytest

OFFLINE = Path(__file__).parent / "offline"

# Before anything is collected, so that neither an import nor a session fixture slips through.
sys.path.insert(0, str(OFFLINE))
import no_network  # noqa: E402

sys.path.remove(str(OFFLINE))
no_network.block()
# Interpreters that tests start read sitecustomize.py from there, which does the same for them.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(OFFLINE), os.environ.get("PYTHONPATH", "")]))

# CI must not fail on one run and pass on the next; at home every run looks at new values.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("home", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "home")


@pytest.fixture(autouse=True)
def _still_offline():
    """A test that puts the real `connect` back fails, rather than letting the next one out."""
    yield
    assert no_network.is_blocked(), "this test took the network block away"

"""When the command looks for garbage: not while it imports, and not at its end."""

import gc
import subprocess
import sys

import pytest

from tellsign.cli.common import frozen, without_collection


@pytest.mark.parametrize("collecting", [True, False])
def test_nothing_is_collected_in_the_body_and_all_is_as_before_after_it(collecting):
    before = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        with without_collection():
            assert not gc.isenabled()
        assert gc.isenabled() == collecting
        with pytest.raises(KeyError), without_collection():
            raise KeyError
        assert gc.isenabled() == collecting
    finally:
        (gc.enable if before else gc.disable)()


def test_what_is_there_already_is_left_alone_in_the_body():
    with frozen():
        during = gc.get_freeze_count()
    # The interpreter may have put some objects there itself.
    assert gc.get_freeze_count() + 1000 < during
    with pytest.raises(KeyError), frozen():
        raise KeyError
    assert gc.get_freeze_count() + 1000 < during


def test_the_command_ends_without_a_last_search(tmp_path):
    code = (
        "import atexit, gc, sys\n"
        "atexit.register(lambda: print('frozen', gc.get_freeze_count()))\n"
        "sys.argv = ['tellsign', '--version']\nfrom tellsign.__main__ import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    word, count = done.stdout.split()[-2:]
    assert word == "frozen"
    assert int(count) > 1000

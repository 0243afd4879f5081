"""`python -m tellsign` and the `tellsign` command."""

from __future__ import annotations

import atexit
import gc


def main() -> None:
    """Run the command line and exit with its status: 0 done, 1 something failed, 2 wrong usage."""
    from tellsign.cli.app import app

    # Python looks for garbage among all that torch imported before it ends: half a second, after the answer is out.
    atexit.register(gc.freeze)
    app(prog_name="tellsign")


if __name__ == "__main__":
    main()

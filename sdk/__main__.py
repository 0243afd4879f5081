"""`python -m tellsign` and the `tellsign` command."""

from __future__ import annotations


def main() -> None:
    """Run the command line and exit with its status: 0 done, 1 something failed, 2 wrong usage."""
    from tellsign.cli.app import app

    app(prog_name="tellsign")


if __name__ == "__main__":
    main()

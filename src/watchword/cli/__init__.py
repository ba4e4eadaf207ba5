"""The command `watchword`."""

import sys

from watchword.cli.app import app
from watchword.cli.failures import explained


def main() -> None:
    """Run the command line; what went wrong is a text on stderr and an exit code."""
    try:
        app()
    except Exception as error:
        known = explained(error)
        if known is None:
            raise
        text, code = known
        sys.stderr.write(f"{text}\n")
        sys.exit(code)


__all__ = ["main"]

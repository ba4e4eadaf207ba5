"""The command `watchword`."""

import sys

from watchword.cli.app import app
from watchword.cli.configuration import printable
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
        for line in text.split("\n"):  # it may quote what somebody else wrote
            sys.stderr.write(f"{printable(line)}\n")
        sys.exit(code)


__all__ = ["main"]

"""What a person reads when a command cannot do what it was asked."""

from watchword.kernel.errors import ConfigurationError, InvalidInput, WatchwordError
from watchword.storage.errors import SchemaBehind, SchemaNewer

FAILED = 1
USAGE = 2  # the command or the settings must be changed


class Usage(Exception):
    """The command line asks for what cannot be; the text says what to write instead."""


def explained(error: Exception) -> tuple[str, int] | None:
    """The text and the exit code; None for what we did not foresee."""
    if isinstance(error, Usage):
        return f"watchword: {error}", USAGE
    if isinstance(error, ConfigurationError):
        return str(error), USAGE
    if isinstance(error, InvalidInput):
        reasons = "\n".join(f"  - {f.field} {f.detail} ({f.code})" for f in error.faults)
        return f"{error.title}:\n{reasons}", FAILED
    if isinstance(error, WatchwordError):
        why = f": {error.note}" if error.note else ""
        return f"{error.detail or error.title} ({error.code}){why}", FAILED
    if isinstance(error, (SchemaBehind, SchemaNewer)):
        return str(error), FAILED
    return None

"""What went wrong, in our words: impossible, or away. Never a key, never a value."""

import re
from typing import Final

from watchword.kernel.errors import StoreUnavailable

# Answers that say "not now" or "not here". Inside a script Redis 6.2 puts them into a sentence.
_AWAY: Final = re.compile(
    r"(?:^|-)(ASK|BUSY|CLUSTERDOWN|CROSSSLOT|LOADING|MASTERDOWN|MISCONF|MOVED|NOAUTH|NOPERM|"
    r"NOREPLICAS|OOM|READONLY|TRYAGAIN|UNKILLABLE|WRONGPASS)\b"
)
# Where the server says no more than that, a command or a script of ours is wrong.
_MISTAKES: Final = ("ResponseError", "DataError", "NoScriptError")


def translated(error: BaseException) -> Exception | None:
    """What to raise instead of the client's error; None if it is a mistake of ours."""
    if isinstance(error, StoreUnavailable):
        return error
    name = type(error).__name__
    if isinstance(error, OSError | EOFError | TimeoutError):
        return StoreUnavailable(name)
    if not _is_the_clients(error):
        return None
    found = _AWAY.search(str(error))
    if found is not None:
        return StoreUnavailable(f"{name}: {found.group(1)}")
    if "would overflow" in str(error):
        return ValueError("a value that the database cannot hold")
    return None if name in _MISTAKES else StoreUnavailable(name)


def is_lost(error: BaseException) -> bool:
    """Did the connection die under a command, so that another one may answer?"""
    if isinstance(error, ConnectionError | EOFError):
        return True
    return _is_the_clients(error) and type(error).__name__ == "ConnectionError"


def _is_the_clients(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == "redis"

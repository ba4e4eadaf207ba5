"""Watchword: authentication and authorization for FastAPI and ASGI."""

from watchword.features.users import CurrentUser, OptionalUser, Own, User, user_fields
from watchword.http.depends import CurrentClaims, CurrentPrincipal, current_user, requires
from watchword.http.limiting import limited
from watchword.kernel.errors import ConfigurationError, WatchwordError
from watchword.kernel.events import Event
from watchword.kernel.principal import Principal
from watchword.presets import Watchword

__all__ = [
    "ConfigurationError",
    "CurrentClaims",
    "CurrentPrincipal",
    "CurrentUser",
    "Event",
    "OptionalUser",
    "Own",
    "Principal",
    "User",
    "Watchword",
    "WatchwordError",
    "__version__",  # pyright: ignore[reportUnsupportedDunderAll]
    "current_user",
    "limited",
    "requires",
    "user_fields",
]


def __getattr__(name: str) -> str:
    # `importlib.metadata` costs as much as a tenth of FastAPI; few ask for the version.
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415

        return version("watchword")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

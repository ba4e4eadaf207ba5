"""Watchword: authentication and authorization for FastAPI and ASGI."""

from importlib.metadata import version as _version

from watchword.features.users import CurrentUser, OptionalUser, Own, User, user_fields
from watchword.http.depends import CurrentPrincipal, current_user, requires
from watchword.kernel.errors import ConfigurationError, WatchwordError
from watchword.kernel.events import Event
from watchword.kernel.principal import Principal
from watchword.presets import Watchword

__version__ = _version("watchword")

__all__ = [
    "ConfigurationError",
    "CurrentPrincipal",
    "CurrentUser",
    "Event",
    "OptionalUser",
    "Own",
    "Principal",
    "User",
    "Watchword",
    "WatchwordError",
    "__version__",
    "current_user",
    "requires",
    "user_fields",
]

"""On what occasion something happens: the request, or the command, that this task serves."""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from watchword.kernel.principal import Client, Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """Who asked for it, from where, and under which id; for limits, audit and logs."""

    kind: Literal["request", "command"]
    request_id: str  # of one request or one command; in every log line and problem of it
    app: str  # the `client_id` of the App that serves it
    client: Client | None
    principal: Principal | None  # who was signed in when it came; None: nobody, or a command
    method: str = ""
    path: str = ""  # without query, at most 256 letters; a command's words


class Occasions(Protocol):
    """Reads occasions from what stands for them: a gate from a request's scope."""

    def occasion_of(self, scope: Mapping[str, Any]) -> Occasion:
        """The occasion."""
        ...


HAPPENING: Final[ContextVar[tuple[Occasions, Mapping[str, Any]] | None]] = ContextVar(
    "watchword_happening", default=None
)
"""What this task serves, unread: the gate sets it at every request, and reading costs more."""


def occasion() -> Occasion | None:
    """The occasion of this task; None for background work, and for code outside any request."""
    happening = HAPPENING.get()
    return None if happening is None else happening[0].occasion_of(happening[1])

"""Protocols by which slices meet without importing one another.

A slice offers what another asks for: `Feature.offers` on one side, `wiring.every(Port)` on the
other. Whoever asks gets all that answer, perhaps none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol, runtime_checkable

from watchword.kernel.principal import Identity


@runtime_checkable
class Opens(Protocol):
    """A service with something to make ready once the store is open."""

    async def open(self) -> None:
        """Make it ready, or raise: then the App does not start."""
        ...


class Authenticator(Protocol):
    """Tells who presents a credential of one carriage."""

    carriage: Literal["bearer", "cookie"]

    async def authenticate(self, presented: str) -> Identity:
        """Read the one row that the credential names (I-02).

        Raises:
            InvalidToken: or a subclass; the same for whatever is wrong with it.
            StoreUnavailable: never a yes.
        """
        ...


class SignInGuard(Protocol):
    """Something that may stand between the right password and a session."""

    async def check(self, user: Any) -> None:
        """Raise what is owed, for example EmailNotVerified."""
        ...


class Credential(Protocol):
    """A way in that a slice keeps for users."""

    method: str  # as RFC 8176 names it: pwd, otp, …

    async def prove(self, user: Any, presented: str) -> bool:
        """Is this what the user knows? Takes the same time for users without one."""
        ...

    async def forget(self, transaction: Any, user_id: str) -> None:
        """Remove it, in the caller's transaction (I-13)."""
        ...


class Registrations(Protocol):
    """Decides what a stranger learns when an address is registered."""

    silent: bool  # answer 202 to everyone, whether the address was known or not


@dataclass(frozen=True, slots=True, kw_only=True)
class MailRequest:
    """What the outbox holds: nothing that opens anything (I-12)."""

    realm: str
    id: str
    purpose: str
    address: str  # normalised, as asked for; may belong to nobody
    challenge: str | None  # an id that the purpose understands; proves nothing
    locale: str
    requested_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposedMail:
    """A mail that is about to leave. `context` may hold a secret; it is sent and forgotten."""

    recipient: str  # the address on record, not the one asked for
    template: str  # `features/<slice>/pages/<template>.{subject,txt,html}`
    package: str  # where the templates are: the slice's package name
    context: Mapping[str, object]


class MailPurpose(Protocol):
    """What one kind of mail says. Mints its token at the moment of sending; a retry mints anew."""

    purpose: str

    async def compose(self, request: MailRequest) -> ComposedMail | None:
        """Look the user up, mint and store the digest, and say what to send; None: send nothing."""
        ...


class Postbox(Protocol):
    """Takes requests for mail into the outbox."""

    def ensure_available(self) -> None:
        """Raise MailUnavailable if no mail can ever leave from here."""
        ...

    async def queue(
        self,
        transaction: Any,
        *,
        purpose: str,
        address: str,
        challenge: str | None = None,
        locale: str = "en",
    ) -> None:
        """Write a request in the caller's transaction."""
        ...


class RefreshTokens(Protocol):
    """Knows which session a refresh token belongs to."""

    async def session_of(self, presented: str) -> str:
        """The id of its session.

        Raises:
            InvalidToken: or a subclass; reuse ends the session as everywhere.
        """
        ...

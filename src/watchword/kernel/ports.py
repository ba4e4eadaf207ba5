"""Protocols by which slices meet without importing one another.

A slice offers what another asks for: `Feature.offers` on one side, `wiring.every(Port)` on the
other. Whoever asks gets all that answer, perhaps none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol, runtime_checkable

from watchword.kernel.errors import SessionBoundElsewhere, WatchwordError
from watchword.kernel.principal import Binding, Client, Identity
from watchword.kernel.quotas import Quota, Standing
from watchword.kernel.secrets import Secret
from watchword.kernel.settings import BindingSettings


@runtime_checkable
class Opens(Protocol):
    """A service with something to make ready once the store is open."""

    async def open(self) -> None:
        """Make it ready, or raise: then the App does not start."""
        ...


class KnownDevices(Protocol):
    """Knows from which devices a user signed in before."""

    async def is_known(self, user_id: str, client: Client, *, epoch: int) -> bool:
        """Has this user signed in, in this epoch, from the device whose cookie this client brings?

        Whatever raised the epoch ended what an older one let in (I-01): a device of then is no
        better than a stranger's.
        """
        ...


class Limiter(Protocol):
    """Counts tries of the app's own."""

    async def admit(
        self, action: str, quotas: Sequence[Quota], given: Mapping[str, str]
    ) -> tuple[Standing, ...]:
        """Count one try at each of these limits, or refuse it; how each stands then.

        Args:
            action: what is tried; part of every key.
            quotas: the limits; where what one counts by is not given, it does not count.
            given: by what it counts, and the value: `{"address": "192.0.2.1"}`.

        Raises:
            TooManyAttempts, StoreUnavailable
        """
        ...


class Authenticator(Protocol):
    """Tells who presents a credential of one carriage."""

    carriage: Literal["bearer", "cookie"]
    prefix: str  # how its credentials begin; the empty one takes what no other takes

    async def authenticate(self, presented: str, client: Client) -> Identity:
        """Read the one row that the credential names (I-02).

        Raises:
            InvalidToken: or a subclass; the same for whatever is wrong with it.
            StoreUnavailable: never a yes.
        """
        ...

    async def believe(self, presented: str) -> Identity | None:
        """What a credential says by itself, no row read (`token_check="stateless"`, I-25).

        None where it says nothing by itself; then `authenticate` is asked.

        Raises:
            InvalidToken: or a subclass.
        """
        ...


class ClientMarks(Protocol):
    """What may be kept of clients, so that services need not know HTTP."""

    @property
    def settings(self) -> BindingSettings:
        """What sessions are bound to."""
        ...

    def hashed(self, address: str) -> str:
        """An address as a keyed hash."""
        ...

    def binding_of(self, client: Client) -> Binding:
        """What a session that this client begins is bound to."""
        ...

    def refusal(self, wanted: Binding, client: Client) -> SessionBoundElsewhere | None:
        """Why a request of this client is not the session's; None if it is."""
        ...

    def new_device(self) -> Secret:
        """A fresh value of the device cookie."""
        ...


class AccessCookie(Protocol):
    """Answered where access tokens may come in a cookie of their own (I-03)."""

    is_pair_on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """What a step still wants: the refusal that says so, and how it names the challenge."""

    error: WatchwordError  # made anew for each answer
    named: str = "challenge"


class Proof(Protocol):
    """A way to show once more, in a session, that one is still there (I-15)."""

    method: str  # `method` of POST /auth/reauthenticate: password, totp, …
    field: str  # the field of its body that holds what is presented
    amr: str  # as RFC 8176 names it

    async def prove(self, user: Any, presented: str) -> bool:
        """Is this what the user knows or has?"""
        ...


class SignInStep(Protocol):
    """Something that may stand between the first factor and a session.

    Steps are asked in the order of `after`, whatever the order in which features come.
    """

    step: str
    after: tuple[str, ...]  # steps that come first, where they exist

    async def owed(
        self, user: Any, *, proven: tuple[str, ...], purpose: Literal["sign_in", "reauthenticate"]
    ) -> Owed | None:
        """What is still owed; None if nothing is.

        Args:
            user: read anew for every try.
            proven: the factors proven so far, as RFC 8176 names them.
            purpose: what the chain is for.
        """
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

    async def session_named(self, presented: str) -> Any:
        """The session whose family it names; nothing is judged, and so nothing ends.

        Raises:
            InvalidToken: it names none.
        """
        ...

    async def session_of(self, presented: str) -> str:
        """The id of its session.

        Raises:
            InvalidToken: or a subclass; reuse ends the session as everywhere.
        """
        ...


class SignedLife(Protocol):
    """Answered by whoever signs with the ring's keys: how long that is believed (I-16)."""

    @property
    def signed_life(self) -> timedelta:
        """The longest, leeway included."""
        ...

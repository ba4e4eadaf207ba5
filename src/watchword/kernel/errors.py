"""Everything that may be refused: a small tree, each class with a code that never changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


class WatchwordError(Exception):
    """What a service raises when it says no.

    A class carries what every occurrence shares (`code`, `status`, `title`); an instance may
    carry more for the one who asked (`detail`, `headers`, `extra`) and a `note` that only logs
    and the audit trail see.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong"

    def __init__(
        self,
        detail: str | None = None,
        *,
        note: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.note = note
        self.headers: Mapping[str, str] = headers or {}
        self.extra: Mapping[str, object] = extra or {}

    def carrying(
        self,
        *,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> "WatchwordError":
        """The same refusal with more in it for this one caller; the original stays as it is."""
        copied = type(self).__new__(type(self), *self.args)
        copied.__dict__.update(self.__dict__)
        copied.headers = {**self.headers, **(headers or {})}
        copied.extra = {**self.extra, **(extra or {})}
        return copied


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with one field."""

    field: str
    code: str
    detail: str


class FieldError(ValueError):
    """One field cannot be what it is: a validator's refusal with a code of its own."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class InvalidInput(WatchwordError):
    """The request names something that cannot be; `faults` says what, field by field."""

    code = "validation_failed"
    status = 422
    title = "The request is not valid"

    def __init__(self, faults: Sequence[Fault], *, detail: str | None = None) -> None:
        super().__init__(
            detail,
            extra={
                "errors": [{"field": f.field, "code": f.code, "detail": f.detail} for f in faults]
            },
        )
        self.faults = tuple(faults)


class MalformedBody(WatchwordError):
    """The body is not what its content type says."""

    code = "malformed_body"
    status = 400
    title = "The body cannot be read"


class UnsupportedMediaType(WatchwordError):
    """The body comes as something this route does not take."""

    code = "unsupported_media_type"
    status = 415
    title = "This content type is not accepted here"


class NotAuthenticated(WatchwordError):
    """Nobody is signed in."""

    code = "not_authenticated"
    status = 401
    title = "Sign in first"


class InvalidToken(WatchwordError):
    """A token that is none of ours, or no longer proves anything."""

    code = "invalid_token"
    status = 401
    title = "The token is not valid"


class ExpiredToken(InvalidToken):
    """A token whose time is over."""

    code = "expired_token"
    title = "The token has expired"


class RevokedToken(InvalidToken):
    """A token whose session was ended."""

    code = "revoked_token"
    title = "The token was revoked"


class RefreshTokenReused(InvalidToken):
    """A refresh token came twice: the session is over for thief and owner."""

    code = "refresh_token_reused"
    title = "The refresh token was already used"


class ConflictingCredentials(InvalidToken):
    """A request brought two credentials that do not stand for the same user."""

    code = "conflicting_credentials"
    title = "The token and the cookie of this request are not of one user"


class SessionBoundElsewhere(WatchwordError):
    """The session is bound to an address that this request does not come from.

    `POST /auth/reauthenticate` moves the binding.
    """

    code = "session_bound_elsewhere"
    status = 403
    title = "This session belongs to another address: sign in again"


class BrowserChanged(SessionBoundElsewhere):
    """The session is bound to a browser that does not look like the one that sends this."""

    code = "browser_changed"
    status = 401
    title = "This session belongs to another browser: sign in again"


class SessionNotFound(WatchwordError):
    """No such session, or another user's: who asks cannot tell."""

    code = "session_not_found"
    status = 404
    title = "No such session"


class InvalidCredentials(WatchwordError):
    """Wrong password or unknown user; never says which."""

    code = "invalid_credentials"
    status = 401
    title = "Incorrect username or password"


class InvalidClient(WatchwordError):
    """The app that sends the password did not show that it may (`passwords.client_secret`)."""

    code = "invalid_client"
    status = 401
    title = "This client may not sign users in"


class EmailNotVerified(WatchwordError):
    """The address still waits for its proof. Said only after the right password."""

    code = "email_not_verified"
    status = 403
    title = "The e-mail address is not verified yet"


class PasswordChangeRequired(WatchwordError):
    """The password is known to others, or an operator asks for another one.

    Said only after the right password. `POST /auth/password/change-required` takes the challenge
    that comes with it; `reason` is common, compromised or operator.
    """

    code = "password_change_required"
    status = 401
    title = "Set another password to sign in"


class AccountDisabled(WatchwordError):
    """The account is switched off. Said only after the right password."""

    code = "account_disabled"
    status = 403
    title = "The account is disabled"


class NotFresh(WatchwordError):
    """Signed in too long ago for what is asked.

    Source: RFC 9470 §3, `insufficient_user_authentication` with `max_age`.
    """

    code = "insufficient_user_authentication"
    status = 401
    title = "Sign in again for this"


class Forbidden(WatchwordError):
    """Known, and not allowed."""

    code = "forbidden"
    status = 403
    title = "Not allowed"


class RefusedByHook(WatchwordError):
    """A gate of the application refused (`@auth.on(SignInProven, gate=True)`)."""

    code = "refused_by_hook"
    status = 403
    title = "This sign-in is refused"


class CsrfRefused(WatchwordError):
    """A cookie came without proof that our own pages sent it."""

    code = "csrf_refused"
    status = 403
    title = "The request does not prove that it comes from this site"


class UserAlreadyExists(WatchwordError):
    """The address is taken."""

    code = "user_already_exists"
    status = 409
    title = "A user with this e-mail address exists"


class UserInUse(WatchwordError):
    """Rows of the application's own point at this user, and its foreign key keeps them."""

    code = "user_in_use"
    status = 409
    title = "Other records of this application belong to this user"


class UserNotFound(WatchwordError):
    """No such user. For operators; a stranger never sees it."""

    code = "user_not_found"
    status = 404
    title = "No such user"


class RegistrationClosed(WatchwordError):
    """Nobody signs up here on their own."""

    code = "registration_closed"
    status = 403
    title = "Registration is closed"


class Busy(WatchwordError):
    """More hashing is asked for than the queue takes."""

    code = "busy"
    status = 503
    title = "Too busy right now"

    def __init__(self, *, retry_after: int) -> None:
        super().__init__(headers={"Retry-After": str(retry_after)})


class TooManyAttempts(WatchwordError):
    """More tries than the limit allows, or too many that failed. Says nothing of the account.

    Source: RFC 6585 §4, 429 with Retry-After.
    """

    code = "too_many_attempts"
    status = 429
    title = "Too many attempts"

    def __init__(
        self,
        *,
        retry_after: int,
        note: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Refuse.

        Args:
            retry_after: whole seconds, rounded up, until the next try is taken.
            note: which limit, for logs and audit.
            headers: further ones, such as RateLimit.
        """
        super().__init__(
            f"Try again in {retry_after} s",
            note=note,
            headers={"Retry-After": str(retry_after), **(headers or {})},
            extra={"retry_after": retry_after},
        )
        self.retry_after = retry_after

    def waiting(self, seconds: int) -> "TooManyAttempts":
        """The same refusal, where something else makes one wait for longer."""
        further = {name: value for name, value in self.headers.items() if name != "Retry-After"}
        return TooManyAttempts(retry_after=seconds, note=self.note, headers=further)


class MailUnavailable(WatchwordError):
    """No way to send mail is configured."""

    code = "mail_unavailable"
    status = 503
    title = "Mail cannot be sent here"


class BreachCheckUnavailable(WatchwordError):
    """Whether a password was breached cannot be had, and `breach_failure` is `deny`."""

    code = "breach_check_unavailable"
    status = 503
    title = "New passwords cannot be checked right now"

    def __init__(self, note: str | None = None) -> None:
        super().__init__(note=note, headers={"Retry-After": "30"})


class StoreUnavailable(WatchwordError):
    """The database is away. Never a yes."""

    code = "store_unavailable"
    status = 503
    title = "The service is not available right now"

    def __init__(self, note: str | None = None) -> None:
        super().__init__(note=note, headers={"Retry-After": "1"})


class ClaimsUnavailable(WatchwordError):
    """What the application adds to access tokens cannot be had, so none is made."""

    code = "claims_unavailable"
    status = 503
    title = "The service is not available right now"


class KeysUnavailable(WatchwordError):
    """No key of the ring can sign right now. The background work of any worker mends it."""

    code = "keys_unavailable"
    status = 503
    title = "The service is not available right now"

    def __init__(self, note: str | None = None) -> None:
        super().__init__(note=note, headers={"Retry-After": "5"})


class KeyNotFound(WatchwordError):
    """No key of the ring has this id. For operators."""

    code = "key_not_found"
    status = 404
    title = "No such key"


class KeyInUse(WatchwordError):
    """The key signs, or settings give it: it cannot change like this. For operators."""

    code = "key_in_use"
    status = 409
    title = "This key is in use"


class HostMalformed(WatchwordError):
    """The request names no host, several, or something that is none."""

    code = "host_malformed"
    status = 400
    title = "The Host header is none"


class HostNotAllowed(WatchwordError):
    """The request names a host that this app does not answer to."""

    code = "host_not_allowed"
    status = 421
    title = "Nothing is served under this host name"


class HttpsRequired(WatchwordError):
    """The request came over plain http, and changes something or cannot be sent on."""

    code = "https_required"
    status = 403
    title = "Come by https"


class OriginNotAllowed(WatchwordError):
    """A script of another origin asked whether it may, and may not."""

    code = "origin_not_allowed"
    status = 403
    title = "Scripts of this origin may not do this"


class BodyTooSlow(WatchwordError):
    """The body of the request did not come in time."""

    code = "body_too_slow"
    status = 408
    title = "The body did not come in time"


class NotInstalled(WatchwordError):
    """A guard was reached by a request that came through no gate."""

    code = "not_installed"
    status = 503
    title = "Authentication is not set up: call auth.install(app)"


class FeatureNotInstalled(AttributeError):
    """A service was asked for whose feature is off."""


class ConfigurationError(Exception):
    """The settings cannot be used. `faults` lists everything wrong, each with its remedy."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        lines = "\n".join(f"  - {fault}" for fault in self.faults)
        super().__init__(f"Watchword cannot start:\n{lines}")

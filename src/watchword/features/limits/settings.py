"""Settings of limits."""

from collections.abc import Sequence
from typing import Annotated, Final, Literal, TypedDict

from pydantic import BeforeValidator, Field, PlainSerializer, field_validator

from watchword.kernel.quotas import Quota, format_quotas, parse_quotas
from watchword.kernel.secrets import Secret
from watchword.kernel.settings import SecretText, Settings

MEMORY: Final = "memory:"
_REDIS: Final = ("redis", "rediss")

Quotas = Annotated[
    tuple[Quota, ...],
    BeforeValidator(parse_quotas),
    PlainSerializer(format_quotas, return_type=str),
]

_GUESSES = parse_quotas("5/5m per account+address, 20/5m per address, 50/1h per account")  # C16
_TOKENS = parse_quotas("30/5m per address")

ACTIONS: Final = (
    *("login", "mfa", "password_reset_request", "verify_email_request", "register", "email_change"),
    *("api_keys", "refresh", "challenge", "password_reset", "verify_email", "other"),
)
"""What has a limit of its own."""

# A pydantic model has a `register` of its own.
_FIELDS: Final = {action: action for action in ACTIONS} | {"register": "registration"}

_OF_NO_ACCOUNT: Final = ("refresh", "challenge", "password_reset", "verify_email")


class LimitSettings(Settings):
    """How often anything may be tried, and by whom: `5/5m per address`, several with commas."""

    enabled: bool = Field(default=True, description="off only where a proxy counts instead")
    store: SecretText | None = Field(
        default=None,
        description=(
            "redis:// to count there instead of the database, in one round trip; memory: counts "
            "in this process alone, for one worker"
        ),
    )
    failure: Literal["refuse", "allow"] = Field(
        default="refuse",
        description=(
            "when it cannot be counted: refuse with 503, or allow, and let who makes the store "
            "fail guess without end"
        ),
    )
    login: Quotas = Field(
        default=_GUESSES,
        description=(
            "passwords tried; account+address is one client at one account, and forgotten after "
            "a right one; account is the ceiling of all clients together"
        ),
    )
    mfa: Quotas = Field(default=_GUESSES, description="codes of second factors tried")
    password_reset_request: Quotas = Field(
        default=_GUESSES, description="mails with a reset link asked for"
    )
    verify_email_request: Quotas = Field(
        default=_GUESSES, description="mails with a verification link asked for"
    )
    registration: Quotas = Field(
        default=parse_quotas("3/1h per address, 3/1h per account"),  # C17
        description="accounts opened; per account, since each try mails the address",
    )
    email_change: Quotas = Field(
        default=parse_quotas("5/1h per account, 20/1h per address"),
        description="changes of address asked for; the new address is the account that counts",
    )
    api_keys: Quotas = Field(default=parse_quotas("20/1h per account"), description="API keys made")
    refresh: Quotas = Field(
        default=parse_quotas("300/1m per address"),
        description="refresh tokens presented; 50 tabs of one browser pass",
    )
    challenge: Quotas = Field(default=_TOKENS, description="steps of a sign-in that go on")
    password_reset: Quotas = Field(default=_TOKENS, description="reset tokens presented")
    verify_email: Quotas = Field(
        default=_TOKENS, description="tokens of verification and of changes of address presented"
    )
    other: Quotas = Field(
        default=_TOKENS, description="each action of somebody else's feature that has none here"
    )

    @field_validator("store")
    @classmethod
    def _is_known(cls, store: Secret | None) -> Secret | None:
        if store is None or store.reveal() == MEMORY:
            return store
        if store.reveal().partition(":")[0].lower() not in _REDIS:
            raise ValueError(
                "must be redis://…, rediss://… or memory:; left out, the database counts"
            )
        return store

    @field_validator(*_FIELDS.values())
    @classmethod
    def _are_no_users(cls, quotas: tuple[Quota, ...]) -> tuple[Quota, ...]:
        if any(quota.by == "user" for quota in quotas):
            raise ValueError("nobody is signed in yet: count per account")
        return quotas

    @field_validator(*_OF_NO_ACCOUNT)
    @classmethod
    def _name_no_account(cls, quotas: tuple[Quota, ...]) -> tuple[Quota, ...]:
        if any(quota.by.startswith("account") for quota in quotas):
            raise ValueError("a token does not say whose it is before it was read: no account here")
        return quotas

    def of(self, action: str) -> tuple[Quota, ...]:
        """The limits of an action."""
        found: tuple[Quota, ...] = getattr(self, _FIELDS.get(action, "other"))
        return found


class LimitOptions(TypedDict, total=False):
    """`LimitSettings` as keyword arguments."""

    enabled: bool
    store: Secret | str | None
    failure: Literal["refuse", "allow"]
    login: str | Sequence[str]
    mfa: str | Sequence[str]
    password_reset_request: str | Sequence[str]
    verify_email_request: str | Sequence[str]
    registration: str | Sequence[str]
    email_change: str | Sequence[str]
    api_keys: str | Sequence[str]
    refresh: str | Sequence[str]
    challenge: str | Sequence[str]
    password_reset: str | Sequence[str]
    verify_email: str | Sequence[str]
    other: str | Sequence[str]

"""Settings of passwords."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Literal, Self, TypedDict

from pydantic import Field, field_validator, model_validator

from watchword.crypto.foreign import signer_id
from watchword.crypto.hashing import cost_fault
from watchword.kernel.secrets import Secret
from watchword.kernel.settings import Duration, SecretText, Settings

_LEAST = 30  # characters of a client's secret
_A_MOMENT, _A_MINUTE, _A_DAY = timedelta(milliseconds=100), timedelta(minutes=1), timedelta(days=1)


class PasswordSettings(Settings):
    """What a password must be, and how it is hashed.

    What counts is length, and that nobody would try it early (ASVS 6.2.5: no composition rules);
    classes are asked for only where an old policy demands them.
    """

    registration: Literal["open", "closed"] = Field(
        default="open", description="may strangers sign up?"
    )
    min_length: int = Field(default=12, ge=8, le=128, description="code points after NFC")
    max_length: int = Field(default=128, ge=64, le=1024, description="code points after NFC")
    require_upper: bool = Field(default=False, description="at least one upper-case letter")
    require_lower: bool = Field(default=False, description="at least one lower-case letter")
    require_digit: bool = Field(default=False, description="at least one digit")
    require_symbol: bool = Field(default=False, description="at least one that is none of these")
    min_score: int = Field(
        default=3,
        ge=0,
        le=4,
        description="of zxcvbn: 3 is 10^8 guesses, 4 is 10^10; 0 does not look",
    )
    min_entropy_bits: float = Field(
        default=0,
        ge=0,
        le=512,
        description="length times log2 of the alphabet, where an old policy demands it",
    )
    check_common: bool = Field(
        default=True, description="refuse what is on the list that comes with the package"
    )
    check_context: bool = Field(
        default=True,
        description="refuse what contains the user's address or name, or the app's",
    )
    context_words: tuple[Annotated[str, Field(min_length=4, max_length=64)], ...] = Field(
        default=(),
        max_length=64,
        description="further words that no password may contain: company, product",
    )
    check_at_login: bool = Field(
        default=True,
        description=(
            "a right password that is common, or breached where that is checked, owes another "
            "before the session"
        ),
    )
    check_breaches: bool = Field(
        default=False,
        description="ask breach_url about new passwords; 5 hex digits of a digest leave",
    )
    breach_url: str = Field(
        default="https://api.pwnedpasswords.com/range/",
        max_length=512,
        pattern=r"^https?://[^\s?#]+/$",
        description="a service with the range API of Have I Been Pwned; https",
    )
    breach_timeout: Duration = Field(
        default=timedelta(seconds=5), description="how long its answer may take"
    )
    breach_cache_ttl: Duration = Field(
        default=timedelta(hours=1), description="how long its answer is believed"
    )
    breach_failure: Literal["allow", "deny"] = Field(
        default="allow",
        description="while it does not answer: take the password, or answer 503",
    )
    hash_scheme: Literal["argon2id", "bcrypt"] = Field(
        default="argon2id", description="of new hashes; others verify and are upgraded at sign-in"
    )
    argon2_time_cost: int = Field(default=3, ge=1, le=16, description="passes")
    argon2_memory_cost: int = Field(
        default=65536, ge=19 * 1024, le=1024 * 1024, description="KiB a hash"
    )
    argon2_parallelism: int = Field(default=4, ge=1, le=16, description="lanes")
    bcrypt_rounds: int = Field(default=12, ge=10, le=16, description="logarithm of the cost")
    firebase_signer_keys: tuple[SecretText, ...] = Field(
        default=(),
        description="`base64_signer_key` of Firebase projects whose users came here, newest first",
    )

    client_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        description="with client_secret: only clients that send both may sign in with a password",
    )
    client_secret: SecretText | None = Field(
        default=None,
        description="of such a client; a browser cannot keep one, so leave it out for pages",
    )

    @field_validator("client_secret")
    @classmethod
    def _is_long(cls, secret: Secret | None) -> Secret | None:
        if secret is not None and len(secret.reveal()) < _LEAST:
            raise ValueError(f"has fewer than {_LEAST} characters: `watchword secret generate`")
        return secret

    @field_validator("firebase_signer_keys")
    @classmethod
    def _signer_keys(cls, keys: tuple[Secret, ...]) -> tuple[Secret, ...]:
        for key in keys:
            signer_id(key)
        return keys

    @model_validator(mode="after")
    def _worth_its_name(self) -> Self:
        fault = cost_fault(
            self.hash_scheme,
            time_cost=self.argon2_time_cost,
            memory_cost=self.argon2_memory_cost,
            parallelism=self.argon2_parallelism,
            bcrypt_rounds=self.bcrypt_rounds,
        )
        if fault is not None:
            raise ValueError(fault)
        if (self.client_id is None) != (self.client_secret is None):
            raise ValueError("client_id and client_secret go together")
        if self.min_length > self.max_length:
            raise ValueError("min_length is over max_length: nobody could sign up")
        if not _A_MOMENT <= self.breach_timeout <= _A_MINUTE:
            raise ValueError("breach_timeout is from 100ms to 1m")
        if not timedelta(0) <= self.breach_cache_ttl <= _A_DAY:
            raise ValueError("breach_cache_ttl is at most 1d")
        return self


class PolicyOptions(TypedDict, total=False):
    """`PasswordSettings` as keyword arguments."""

    registration: Literal["open", "closed"]
    min_length: int
    max_length: int
    require_upper: bool
    require_lower: bool
    require_digit: bool
    require_symbol: bool
    min_score: int
    min_entropy_bits: float
    check_common: bool
    check_context: bool
    context_words: Sequence[str]
    check_at_login: bool
    check_breaches: bool
    breach_url: str
    breach_timeout: timedelta | str
    breach_cache_ttl: timedelta | str
    breach_failure: Literal["allow", "deny"]
    hash_scheme: Literal["argon2id", "bcrypt"]
    argon2_time_cost: int
    argon2_memory_cost: int
    argon2_parallelism: int
    bcrypt_rounds: int
    firebase_signer_keys: Sequence[Secret | str]
    client_id: str | None
    client_secret: Secret | str | None


NIST: PolicyOptions = {"min_length": 15}
"""For a password that is the only factor: `passwords(**NIST)`.

Source: NIST SP 800-63B-4 §3.1.1.2 and ASVS 6.2.1, 15 characters.
"""

THREE_CLASSES_AND_BITS: PolicyOptions = {
    "min_length": 12,
    "require_upper": True,
    "require_lower": True,
    "require_digit": True,
    "min_entropy_bits": 50,
    "min_score": 0,
}
"""An older policy: 12 characters, three classes and 50 bits. The list of common ones counts."""

FOUR_CLASSES: PolicyOptions = {
    "min_length": 8,
    "require_upper": True,
    "require_lower": True,
    "require_digit": True,
    "require_symbol": True,
    "min_score": 0,
}
"""An older policy: 8 characters and four classes. Too short without a second factor."""

SYMBOL_AND_BREACHES: PolicyOptions = {
    "min_length": 12,
    "require_symbol": True,
    "check_breaches": True,
    "min_score": 0,
}
"""An older policy: 12 characters, one symbol, and the look-up of breaches over the network."""

THREE_CLASSES: PolicyOptions = {
    "min_length": 8,
    "max_length": 128,
    "require_upper": True,
    "require_lower": True,
    "require_digit": True,
    "min_score": 0,
}
"""An older policy: 8 to 128 characters and three classes. Too short without a second factor."""

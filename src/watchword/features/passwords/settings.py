"""Settings of passwords."""

from collections.abc import Sequence
from typing import Literal, Self, TypedDict

from pydantic import Field, field_validator, model_validator

from watchword.crypto.foreign import signer_id
from watchword.crypto.hashing import cost_fault
from watchword.kernel.secrets import Secret
from watchword.kernel.settings import SecretText, Settings

_LEAST = 30  # characters of a client's secret


class PasswordSettings(Settings):
    """What a password must be, and how it is hashed.

    Length is what counts (ASVS 6.2.5: no composition rules), so classes are asked for only
    where an old policy demands them.
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
        return self


class PasswordOptions(TypedDict, total=False):
    """`PasswordSettings` as keyword arguments."""

    registration: Literal["open", "closed"]
    min_length: int
    max_length: int
    require_upper: bool
    require_lower: bool
    require_digit: bool
    require_symbol: bool
    hash_scheme: Literal["argon2id", "bcrypt"]
    argon2_time_cost: int
    argon2_memory_cost: int
    argon2_parallelism: int
    bcrypt_rounds: int
    firebase_signer_keys: Sequence[Secret | str]
    client_id: str | None
    client_secret: Secret | str | None


NIST: PasswordOptions = {"min_length": 15}
"""For a password that is the only factor: `passwords(**NIST)`.

Source: NIST SP 800-63B-4 §3.1.1.2 and ASVS 6.2.1, 15 characters.
"""

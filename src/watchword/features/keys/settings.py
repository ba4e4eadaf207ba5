"""Settings of keys."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal, Self, TypedDict

from pydantic import Field, field_validator, model_validator

from watchword.crypto.keys import shared_secret_fault
from watchword.features.keys.given import private, shared
from watchword.kernel.secrets import Secret
from watchword.kernel.settings import Duration, SecretText, Settings

_SHORTEST = timedelta(hours=1)


class KeySettings(Settings):
    """How tokens are signed, and when the key changes."""

    algorithm: Literal["ES256", "RS256", "EdDSA", "HS256"] = Field(
        default="ES256",
        description=(
            "HS256 only where one service verifies: whoever verifies can forge. With a key or "
            "secret of your own it is theirs"
        ),
    )
    private_key: SecretText | None = Field(
        default=None,
        description="a key of your own that signs: PEM or a JWK; none: keys are made here",
    )
    public_key: SecretText | None = Field(
        default=None,
        description="its public half, if you want it compared at the start: PEM or a JWK",
    )
    secret: SecretText | None = Field(
        default=None, description="a secret of your own for HS256, at least 32 random bytes"
    )
    old_secrets: tuple[SecretText, ...] = Field(
        default=(), description="former secrets for HS256: what they signed is still believed"
    )
    rotate_every: Duration = Field(
        default=timedelta(days=30),
        description="a key this old is replaced; 0s: by hand only; never a key of your own",
    )
    jwks_max_age: Duration = Field(
        default=timedelta(minutes=5),
        ge=timedelta(seconds=1),
        le=timedelta(days=1),
        description="how long others keep the JWKS; a new key signs no sooner",
    )
    leeway: Duration = Field(
        default=timedelta(seconds=10),
        ge=timedelta(0),
        le=timedelta(minutes=5),
        description="how far the clocks of workers and verifiers may differ",
    )

    @field_validator("rotate_every")
    @classmethod
    def _not_all_the_time(cls, value: timedelta) -> timedelta:
        if value != timedelta(0) and value < _SHORTEST:
            raise ValueError("is shorter than 1h: write 0s for never, or more")
        return value

    @field_validator("private_key")
    @classmethod
    def _signs(cls, value: Secret | None) -> Secret | None:
        if value is not None:
            private(value)
        return value

    @field_validator("secret")
    @classmethod
    def _is_strong(cls, value: Secret | None) -> Secret | None:
        if value is not None:
            fault = shared_secret_fault(value)
            if fault is not None:
                raise ValueError(fault)
            shared(value)
        return value

    @field_validator("old_secrets")
    @classmethod
    def _are_strong(cls, value: tuple[Secret, ...]) -> tuple[Secret, ...]:
        for each in value:
            cls._is_strong(each)
        return value

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.private_key is not None and self.secret is not None:
            raise ValueError("private_key and secret: one of them signs; keep that one")
        chosen: Any = self.algorithm if "algorithm" in self.model_fields_set else None
        if self.private_key is not None and (chosen or self.public_key):
            key = private(self.private_key)
            if chosen not in (None, key.algorithm):
                raise ValueError(
                    f"private_key is one for {key.algorithm}, algorithm says {chosen}: "
                    "leave algorithm out, or give a key that fits"
                )
            if self.public_key is not None and not key.belongs_to(self.public_key.reveal()):
                raise ValueError(
                    "public_key is not the public half of private_key: derive it with "
                    "`openssl pkey -in private.pem -pubout`, or leave it out"
                )
        if self.secret is not None and chosen not in (None, "HS256"):
            raise ValueError(
                f"secret is for HS256, algorithm says {chosen}: keep one of the two settings"
            )
        return self


class KeyOptions(TypedDict, total=False):
    """`KeySettings` as keyword arguments."""

    algorithm: Literal["ES256", "RS256", "EdDSA", "HS256"]
    private_key: Secret | str | None
    public_key: Secret | str | None
    secret: Secret | str | None
    old_secrets: Sequence[Secret | str]
    rotate_every: timedelta | str
    jwks_max_age: timedelta | str
    leeway: timedelta | str

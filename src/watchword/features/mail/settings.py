"""How mail leaves, and how long it is tried."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, TypeGuard
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from pydantic import BeforeValidator, Field, PlainSerializer, field_validator, model_validator

from watchword.kernel.address import is_one_address
from watchword.kernel.secrets import Secret
from watchword.kernel.settings import Duration, SecretText, Settings

Scheme = Literal["console", "file", "smtp", "smtps", "smtp+plain"]

_PORTS: Mapping[Scheme, int] = {"smtp": 587, "smtps": 465, "smtp+plain": 25}
_FORMS = (
    "write console:, file:DIR, smtp://user:password@host:587 (STARTTLS) or smtps://host:465 (TLS)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MailUrl:
    """Where mail goes. Its text form hides the password."""

    scheme: Scheme
    directory: Path | None = None  # file: only
    host: str = ""
    port: int = 0
    username: str | None = None
    password: Secret | None = field(default=None, repr=False)
    ca: Path | None = None  # trust these authorities instead of the system's

    @property
    def is_plain(self) -> bool:
        """Does it leave readable mail, links included, on this machine?"""
        return self.scheme in ("console", "file")

    def __str__(self) -> str:
        if self.is_plain:
            return f"{self.scheme}:{self.directory or ''}"
        user = "" if self.username is None else quote(self.username, safe="")
        hidden = "" if self.password is None else ":***"
        host = f"[{self.host}]" if ":" in self.host else self.host
        ca = "" if self.ca is None else f"?ca={quote(str(self.ca))}"
        return f"{self.scheme}://{user}{hidden}{'@' if user else ''}{host}:{self.port}{ca}"


def parse_mail_url(value: object) -> MailUrl:
    """Read `WATCHWORD_MAIL`. What it raises never repeats the text: there may be a password."""
    if isinstance(value, MailUrl):
        return value
    if not isinstance(value, str):
        raise ValueError(f"is no address of a mail server: {_FORMS}")
    text = value.strip()
    if text == "console:":
        return MailUrl(scheme="console")
    if text.startswith("file:"):
        path = re.sub(r"^//(localhost)?(?=/)", "", text.removeprefix("file:"))
        if not path or path.startswith("//"):
            raise ValueError("file: needs a directory, for example file:./mail")
        return MailUrl(scheme="file", directory=Path(path))
    try:
        return _parse_server(urlsplit(text))
    except UnicodeError as error:
        raise ValueError(f"is no address of a mail server: {_FORMS}") from error


def _parse_server(parts: SplitResult) -> MailUrl:
    scheme = parts.scheme
    if not _is_server(scheme):
        raise ValueError(f"has a scheme that is not known: {_FORMS}")
    if not parts.hostname or parts.path not in ("", "/") or parts.fragment:
        raise ValueError("is no host: write # / ? @ : in a password as %23 %2F %3F %40 %3A")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if set(query) - {"ca"} or query.get("ca") == "":
        raise ValueError("takes ?ca=FILE after the host and nothing else")
    try:
        port = parts.port or _PORTS[scheme]
    except ValueError:
        raise ValueError("has a port that is no number up to 65535") from None
    if scheme == "smtp+plain" and not _is_loopback(parts.hostname):
        raise ValueError("smtp+plain:// is for a relay on this machine: use smtp:// or smtps://")
    if parts.password is not None and not parts.username:
        raise ValueError("has a password and no user name")
    return MailUrl(
        scheme=scheme,
        host=parts.hostname,
        port=port,
        username=unquote(parts.username) if parts.username else None,
        password=None if parts.password is None else Secret(unquote(parts.password)),
        ca=Path(query["ca"]) if "ca" in query else None,
    )


def _is_server(scheme: str) -> TypeGuard[Scheme]:
    return scheme in _PORTS


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


MailUrlText = Annotated[
    MailUrl, BeforeValidator(parse_mail_url), PlainSerializer(str, return_type=str)
]


class MailSettings(Settings):
    """Settings of `mail`."""

    shorthand: ClassVar[str | None] = "url"

    url: MailUrlText | None = Field(
        default=None,
        description="`console:`, `file:DIR`, `smtp://user:password@host:587` (STARTTLS, always), "
        "`smtps://host:465` (TLS), either with `?ca=FILE`, or `smtp+plain://` to this machine; "
        "unset: console in development, no mail in production. `WATCHWORD_MAIL` sets it",
    )
    password: SecretText | None = Field(
        default=None, description="the mail server's password, where it is not in `url`"
    )
    sender_address: str | None = Field(
        default=None, description="From; unset: `no-reply@` and the host of the public URL"
    )
    sender_name: str = Field(default="", max_length=120, description="the name beside it")
    allow_plain: bool = Field(
        default=False,
        description="let production write mail, with its links, to the console or to files",
    )
    timeout: Duration = Field(
        default=timedelta(seconds=30),
        ge=timedelta(seconds=1),
        le=timedelta(seconds=45),
        description="how long sending one mail may take; less than a worker's lease of 60 s",
    )
    retry_for: Duration = Field(
        default=timedelta(hours=24),
        ge=timedelta(minutes=1),
        le=timedelta(days=7),
        description="how long after the request a mail is still tried",
    )
    attempts: int = Field(
        default=100, ge=1, le=10_000, description="how often at most one mail is tried"
    )
    backoff: Duration = Field(
        default=timedelta(seconds=5),
        ge=timedelta(seconds=1),
        le=timedelta(minutes=30),
        description="wait after the first failure; doubles with each, up to 30 minutes",
    )
    keep_failed_for: Duration = Field(
        default=timedelta(days=30),
        ge=timedelta(0),
        le=timedelta(days=365),
        description="how long a mail that was given up stays listed, without a body",
    )
    parallel: int = Field(default=4, ge=1, le=64, description="mails a worker sends at once")

    @field_validator("sender_address")
    @classmethod
    def _one_sender(cls, value: str | None) -> str | None:
        if value is not None and not is_one_address(value):
            raise ValueError("is not one e-mail address, for example no-reply@example.org")
        return value

    @field_validator("sender_name")
    @classmethod
    def _one_line(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("must be one line of printable text")
        return value

    @model_validator(mode="after")
    def _whole_credentials(self) -> Self:
        username = None if self.url is None else self.url.username
        given = None if self.url is None else self.url.password
        if self.password is not None and given is not None:
            raise ValueError("the password is in mail.url and in mail.password: keep one")
        if self.password is not None and username is None:
            raise ValueError("mail.password needs a user name: smtp://user@host:587 in mail.url")
        if username is not None and self.password is None and given is None:
            raise ValueError("mail.url names a user: set mail.password")
        return self

    @property
    def server_password(self) -> Secret | None:
        """The password, wherever it was given."""
        return self.password or (None if self.url is None else self.url.password)

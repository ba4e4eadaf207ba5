"""Ways for a mail to leave: the console, a folder of files, an SMTP server."""

import asyncio
import itertools
import os
import secrets
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from watchword.features.mail.address import to_send_to
from watchword.features.mail.errors import SendFailed
from watchword.features.mail.message import EmailSender, Message
from watchword.features.mail.settings import MailSettings, MailUrl
from watchword.kernel.clock import Clock
from watchword.kernel.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class ConsoleSender:
    """Prints the text of every mail to stderr, for development."""

    async def send(self, message: Message) -> None:
        """Print it, links and all."""
        lines = [
            "",
            f"---- mail to {to_send_to(message.recipient)} ----",
            f"Subject: {message.subject}",
            "",
            message.text.rstrip(),
            "----",
            "",
        ]
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSender:
    """Writes every mail to a file of its own, readable by this user only."""

    directory: Path
    clock: Clock
    counter: Iterator[int] = field(default_factory=itertools.count, repr=False)

    async def send(self, message: Message) -> None:
        """Write it beside its final name and rename it: whoever lists sees whole mails."""
        now = self.clock.now()
        from watchword.features.mail.wire import to_bytes  # noqa: PLC0415  loads much of `email`

        raw = to_bytes(message, clock=self.clock)
        unique = f"{next(self.counter) % 1_000_000:06d}-{secrets.token_hex(4)}"
        name = f"{now:%Y%m%dT%H%M%S}.{now.microsecond:06d}Z-{unique}"
        try:
            await asyncio.to_thread(self._write, name, raw)
        except OSError as error:
            raise SendFailed(permanent=False, note="the file could not be written") from error

    def _write(self, name: str, raw: bytes) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = self.directory / f".{name}.tmp"
        try:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(descriptor)
            unfinished.rename(self.directory / f"{name}.eml")
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise


def sender_for(settings: MailSettings, *, environment: str, clock: Clock) -> EmailSender | None:
    """What the settings ask for; None where no mail can leave.

    Raises:
        ConfigurationError: plain mail in production, or files that cannot be used.
    """
    url = settings.url
    if url is None:
        if environment == "production":
            return None
        url = MailUrl(scheme="console")
    if url.is_plain and environment == "production" and not settings.allow_plain:
        raise ConfigurationError(
            [
                (
                    f"mail.url is {url.scheme}: and would leave links that sign people in "
                    "readable on this machine: set WATCHWORD_MAIL=smtp://user:password@host:587, "
                    "or mail.allow_plain=true if that is meant"
                )
            ]
        )
    if url.directory is not None:
        return FileSender(directory=_made(url.directory), clock=clock)
    if url.is_plain:
        return ConsoleSender()
    from watchword.features.mail.smtp import SmtpSender  # noqa: PLC0415  large, seldom needed

    return SmtpSender(
        url=url,
        password=settings.server_password,
        tls=None if url.scheme == "smtp+plain" else _trusting(url.ca),
        timeout=settings.timeout,
        clock=clock,
    )


def _made(directory: Path) -> Path:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        fault = f"mail.url: the directory {directory} cannot be made: {error.strerror}"
        raise ConfigurationError([fault]) from error
    return directory.resolve()


def _trusting(ca: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        fault = f"mail.url: ca={ca} is no readable file of PEM certificates"
        raise ConfigurationError([fault]) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context

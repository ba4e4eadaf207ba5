"""Mail over SMTP. Apart from the other senders, for what it imports is large."""

import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import aiosmtplib

from watchword.features.mail.address import to_send_to
from watchword.features.mail.errors import SendFailed
from watchword.features.mail.message import Message
from watchword.features.mail.settings import MailUrl
from watchword.features.mail.wire import to_bytes
from watchword.kernel.clock import Clock
from watchword.kernel.secrets import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpSender:
    """Speaks to one SMTP server, over TLS with its certificate checked, a connection a mail."""

    url: MailUrl
    password: Secret | None
    tls: ssl.SSLContext | None  # None: plain, which only a loopback address may be
    timeout: timedelta
    clock: Clock

    async def send(self, message: Message) -> None:
        """Hand it over.

        What the server says about this one mail (RCPT, DATA) may be final. What it says
        about us (certificate, log-in, MAIL FROM) never is: an operator can mend that, and
        the mails of that hour shall still arrive.
        """
        raw = to_bytes(message, clock=self.clock)
        sender, recipient = to_send_to(message.sender), to_send_to(message.recipient)
        client = self._client(greeting_as=sender.rpartition("@")[2])
        try:
            await _connect(client)
            await _hand_over(client, raw, sender=sender, recipient=recipient)
            await _part(client)
        finally:
            client.close()

    def _client(self, *, greeting_as: str) -> aiosmtplib.SMTP:
        return aiosmtplib.SMTP(
            hostname=self.url.host,
            port=self.url.port,
            username=self.url.username,
            password=None if self.password is None else self.password.reveal(),
            local_hostname=greeting_as,  # else the name of this machine, found by a slow look-up
            timeout=self.timeout.total_seconds(),
            use_tls=self.url.scheme == "smtps",
            start_tls=self.url.scheme == "smtp",
            tls_context=self.tls,
        )


async def _connect(client: aiosmtplib.SMTP) -> None:
    try:
        await client.connect()
    except aiosmtplib.SMTPResponseException as error:
        raise SendFailed(permanent=False, note=f"{error.code} before the mail") from error
    except (aiosmtplib.SMTPException, OSError, ValueError) as error:
        raise SendFailed(permanent=False, note="before the mail") from error


async def _hand_over(client: aiosmtplib.SMTP, raw: bytes, *, sender: str, recipient: str) -> None:
    options = [] if recipient.isascii() and sender.isascii() else ["SMTPUTF8"]
    try:
        await client.sendmail(sender, [recipient], raw, mail_options=options)
    except aiosmtplib.SMTPRecipientsRefused as error:
        code = error.recipients[0].code if error.recipients else 0
        raise SendFailed(permanent=code >= 500, note=f"{code} to RCPT") from error
    except aiosmtplib.SMTPDataError as error:
        raise SendFailed(permanent=error.code >= 500, note=f"{error.code} to DATA") from error
    except aiosmtplib.SMTPNotSupported as error:
        raise SendFailed(permanent=True, note="such addresses are not supported") from error
    except aiosmtplib.SMTPResponseException as error:
        raise SendFailed(permanent=False, note=f"{error.code}") from error
    except (aiosmtplib.SMTPException, OSError, ValueError) as error:
        raise SendFailed(permanent=False) from error


async def _part(client: aiosmtplib.SMTP) -> None:
    """Say goodbye, briefly. The mail is delivered, so nothing here may fail it."""
    with suppress(aiosmtplib.SMTPException, OSError):
        await client.quit(timeout=1)

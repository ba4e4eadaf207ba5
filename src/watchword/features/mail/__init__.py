"""Mail: an outbox that survives crashes, and senders for the console, files and SMTP."""

from collections.abc import Sequence
from datetime import timedelta
from ipaddress import ip_address
from typing import Any, TypedDict, Unpack
from urllib.parse import urlsplit

from watchword.features.mail.errors import SendFailed
from watchword.features.mail.events import MailQueued, MailUndeliverable
from watchword.features.mail.message import EmailSender, Message
from watchword.features.mail.records import OutboxMail
from watchword.features.mail.senders import sender_for
from watchword.features.mail.service import Mail
from watchword.features.mail.settings import MailSettings, MailUrl
from watchword.kernel.feature import Feature, Job
from watchword.kernel.ports import MailPurpose, Postbox
from watchword.kernel.secrets import Secret

__all__ = [
    "EmailSender",
    "Mail",
    "MailSettings",
    "MailUndeliverable",
    "Message",
    "OutboxMail",
    "SendFailed",
    "mail",
]


class MailOptions(TypedDict, total=False):
    """The keyword arguments of `mail`: `MailSettings`, and a sender of one's own."""

    sender: EmailSender
    url: str | MailUrl | None
    password: str | Secret | None
    sender_address: str | None
    sender_name: str
    allow_plain: bool
    timeout: timedelta | str
    retry_for: timedelta | str
    attempts: int
    backoff: timedelta | str
    keep_failed_for: timedelta | str
    parallel: int


def mail(**options: Unpack[MailOptions]) -> Feature[Mail]:
    """Mail with an outbox. `sender=` takes the place of whatever `url` says."""
    own = options.get("sender")
    given = {name: value for name, value in options.items() if name != "sender"}

    def service(wiring: Any) -> Mail:
        settings: MailSettings = wiring.settings
        return Mail(
            store=wiring.store,
            settings=settings,
            clock=wiring.clock,
            sender=own
            or sender_for(settings, environment=wiring.core.environment, clock=wiring.clock),
            sender_address=settings.sender_address or no_reply(wiring.resolved_public_url),
            purposes=wiring.every(MailPurpose),
            tracing=wiring.tracing,
        )

    return Feature(
        name="mail",
        service=service,
        settings=MailSettings,
        given=given,
        records=(OutboxMail,),
        offers=lambda service: {Postbox: service},
        listens=lambda service, events: events.on(MailQueued, service.notice),
        jobs=_jobs,
    )


def no_reply(public_url: str) -> str:
    """The sender's address where none is set."""
    host = urlsplit(public_url).hostname or "localhost"
    try:
        ip_address(host)
    except ValueError:
        return f"no-reply@{host}"
    return "no-reply@localhost"


def _jobs(service: Mail) -> Sequence[Job]:
    every = timedelta(seconds=1)
    return (Job(name="outbox", every=every, run=service.deliver_due, wake=service.bell.wait),)

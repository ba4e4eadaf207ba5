"""A mail in the form that leaves us."""

from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime, make_msgid

from watchword.features.mail.address import to_send_to
from watchword.features.mail.errors import AddressRefused
from watchword.features.mail.message import Message
from watchword.kernel.address import is_one_address
from watchword.kernel.clock import Clock

_LONGEST_LINE = 990  # RFC 5322 §2.1.1: 998 without CRLF


def to_bytes(message: Message, *, clock: Clock) -> bytes:
    """The mail in RFC 5322 form: text and HTML side by side, one recipient.

    Raises:
        AddressRefused: a sender or a recipient that is not one plain address.
    """
    if not is_one_address(message.sender):
        raise AddressRefused
    sender, recipient = to_send_to(message.sender), to_send_to(message.recipient)
    policy = SMTP if sender.isascii() and recipient.isascii() else SMTPUTF8
    mail = EmailMessage(policy=policy)
    mail["From"] = _address(sender, name=message.sender_name)
    mail["To"] = _address(recipient)
    mail["Subject"] = message.subject
    mail["Date"] = format_datetime(clock.now())
    mail["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834 §5: holiday notices stay away
    mail.set_content(message.text, charset="utf-8", cte=_encoding(message.text))
    mail.add_alternative(message.html, subtype="html", charset="utf-8", cte=_encoding(message.html))
    return mail.as_bytes()


def _address(address: str, *, name: str = "") -> Address:
    username, _, domain = address.rpartition("@")
    return Address(name, username, domain)


def _encoding(body: str) -> str:
    """Leave plain ASCII as it is, so that a link in an .eml can be read by eye and by grep."""
    short = all(len(line) <= _LONGEST_LINE for line in body.splitlines())
    return "7bit" if body.isascii() and short else "quoted-printable"

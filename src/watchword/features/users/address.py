"""E-mail addresses: which are taken, and when two are the same."""

import unicodedata
from dataclasses import dataclass

from watchword.kernel.errors import FieldError

MAX_LETTERS = 254  # RFC 5321 §4.5.3.1.3: a path holds 256 octets, two of them brackets


@dataclass(frozen=True, slots=True)
class Address:
    """One address: as it is written to, and as it is compared."""

    email: str
    key: str


def address_of(text: str) -> Address:
    """Read exactly one address.

    Lists, display names, comments, quotes and control characters are refused: `a@x,b@y` must
    never mail to two (CVE row 33).

    Raises:
        FieldError: `email_invalid`.
    """
    # Loaded when the first address comes: it costs a sixth of our import time.
    from email_validator import EmailNotValidError, validate_email  # noqa: PLC0415

    if len(text) > MAX_LETTERS or any(not letter.isprintable() for letter in text):
        raise FieldError("email_invalid", "is no e-mail address")
    try:
        # Names such as `corp.local` are right inside a company; nothing here asks the DNS.
        checked = validate_email(text, check_deliverability=False, globally_deliverable=False)
    except EmailNotValidError as error:
        raise FieldError("email_invalid", "is no e-mail address") from error
    if "." not in checked.domain:
        raise FieldError("email_invalid", "needs a domain with a dot")
    return Address(checked.normalized, key_of(checked.normalized))


def key_of(email: str) -> str:
    """The form in which two addresses are the same: NFKC, case folded, on every database alike."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", email).casefold())

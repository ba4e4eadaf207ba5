"""One plain e-mail address, and when two are the same.

Two rules hold together here: what is accepted can be mailed to, and two addresses are the same
only where mail to them goes to the same mailbox. An account that cannot be mailed could lock its
owner out for good; two mailboxes with one key would be one account with two owners.
"""

import re
import unicodedata
from dataclasses import dataclass

from watchword.kernel.errors import FieldError

# No comments, quotes, routes, groups or lists: every one of them has mailed two people
# where the code in front saw one (CVE row 33).
_PLAIN = re.compile(r"[^\s,;:<>()\[\]\\\"@]{1,64}@[^\s,;:<>()\[\]\\\"@/%!]{1,253}")
_LONGEST = 254  # RFC 5321 §4.5.3.1.3: a path holds 256 octets, two of them brackets


@dataclass(frozen=True, slots=True)
class Address:
    """One address: as it is written to, and as it is compared."""

    email: str
    key: str


def is_one_address(text: str) -> bool:
    """Is this exactly one `local@domain`?

    Letters of other scripts are fine; what turns into another character when a server
    normalises it (a full-width comma), and what is invisible, is not.
    """
    return (
        len(text) <= _LONGEST
        and text.isprintable()
        and _PLAIN.fullmatch(text) is not None
        and unicodedata.normalize("NFKC", text) == text
        and ".." not in f".{text.replace('@', '.@.')}."  # no part begins or ends with a dot
    )


def ascii_domain(domain: str) -> str:
    """The domain as it is looked up.

    IDNA 2008 and never 2003, which sends `straße.example` to the owner of `strasse.example`.

    Raises:
        ValueError: it is no domain.
    """
    if domain.isascii():
        return domain.lower()
    import idna  # noqa: PLC0415  loads large tables, which few addresses need

    return idna.encode(domain.lower(), uts46=False).decode("ascii")


def address_of(text: str) -> Address:
    """Read exactly one address.

    The key is the address with its case dropped and its domain in ASCII. Case is folded letter
    by letter, never `ß` to `ss`: those are two mailboxes.

    Raises:
        FieldError: `email_invalid`.
    """
    # Loaded when the first address comes: it costs a sixth of our import time.
    from email_validator import EmailNotValidError, validate_email  # noqa: PLC0415

    if len(text) > _LONGEST or not is_one_address(unicodedata.normalize("NFC", text)):
        raise FieldError("email_invalid", "is no e-mail address")
    try:
        # Names such as `corp.local` are right inside a company; nothing here asks the DNS.
        checked = validate_email(text, check_deliverability=False, globally_deliverable=False)
        domain = ascii_domain(checked.domain)
    except (EmailNotValidError, ValueError) as error:
        raise FieldError("email_invalid", "is no e-mail address") from error
    if "." not in domain:
        raise FieldError("email_invalid", "needs a domain with a dot")
    if not is_one_address(checked.normalized):
        raise FieldError("email_invalid", "is no e-mail address")
    local = unicodedata.normalize("NFC", checked.local_part.lower())
    return Address(checked.normalized, f"{local}@{domain}")

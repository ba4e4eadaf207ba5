"""One plain address, and nothing that a mail server could read as more than one."""

import re
import unicodedata

from watchword.features.mail.errors import AddressRefused

# No comments, quotes, routes, groups or lists: every one of them has mailed two people
# where the code in front saw one.
_PLAIN = re.compile(r"[^\s,;:<>()\[\]\\\"@]{1,64}@[^\s,;:<>()\[\]\\\"@/%!]{1,253}")
_LONGEST = 254  # RFC 5321 §4.5.3.1.3, less the angle brackets


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


def to_send_to(address: str) -> str:
    """The address as a mail server takes it: the domain in ASCII.

    IDNA 2008 and never 2003, which sends `straße.example` to the owner of `strasse.example`.

    Raises:
        AddressRefused: it is not one plain address.
    """
    if not is_one_address(address):
        raise AddressRefused
    local, _, domain = address.rpartition("@")
    if domain.isascii():
        return address
    import idna  # noqa: PLC0415  loads large tables, which few addresses need

    try:
        return f"{local}@{idna.encode(domain, uts46=False).decode('ascii')}"
    except idna.IDNAError as error:
        raise AddressRefused from error

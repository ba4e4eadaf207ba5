"""An address as a mail server takes it."""

from watchword.features.mail.errors import AddressRefused
from watchword.kernel.address import ascii_domain, is_one_address


def to_send_to(address: str) -> str:
    """The address with its domain in ASCII.

    Raises:
        AddressRefused: it is not one plain address.
    """
    if not is_one_address(address):
        raise AddressRefused
    local, _, domain = address.rpartition("@")
    if domain.isascii():
        return address
    try:
        return f"{local}@{ascii_domain(domain)}"
    except ValueError as error:
        raise AddressRefused from error

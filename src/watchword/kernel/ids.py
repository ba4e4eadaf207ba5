"""Identifiers: 128 bits, ordered by time, meaningless to their reader."""

import secrets
from datetime import datetime
from typing import NewType
from uuid import UUID

UserId = NewType("UserId", str)
SessionId = NewType("SessionId", str)

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case: sorts as bytes


def new_id(now: datetime) -> str:
    """Make an identifier of 26 letters: 48 bits of milliseconds, then 80 random bits.

    An identifier names something and proves nothing: it is never a secret.
    """
    milliseconds = int(now.timestamp() * 1000) & ((1 << 48) - 1)
    number = (milliseconds << 80) | secrets.randbits(80)
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))


def new_uuid(now: datetime) -> str:
    """Make a UUID of version 7 (RFC 9562 §5.7), for tables of others that are keyed by UUIDs."""
    milliseconds = int(now.timestamp() * 1000) & ((1 << 48) - 1)
    number = (milliseconds << 80) | (0x7 << 76) | (secrets.randbits(12) << 64)
    return str(UUID(int=number | (0b10 << 62) | secrets.randbits(62)))

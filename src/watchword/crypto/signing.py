"""Values that leave us readable and come back unaltered, each for one purpose."""

import hmac
import re
from datetime import UTC, datetime, timedelta
from typing import Final, final

from watchword.crypto.base64url import decoded
from watchword.crypto.keys import RootSecrets
from watchword.kernel.errors import WatchwordError
from watchword.kernel.secrets import same, unpadded

_MOST: Final = 8192  # characters; what we sign goes into cookies, links and forms
_SIGNED = re.compile(
    r"(?P<value>[\w-]*)\.(?P<until>[1-9][0-9]{0,15}|)\.(?P<mac>[\w-]{43})", re.ASCII
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class SignatureRefused(WatchwordError):
    """A signed value that is not ours, was altered, or whose time is over."""

    code = "signature_refused"
    status = 400
    title = "The signed value is not valid"


@final
class Signer:
    """Signs for one purpose; what another purpose signed is refused.

    Source: RFC 2104, HMAC with SHA-256, in full length.
    """

    __slots__ = ("_keys",)

    def __init__(self, secrets: RootSecrets, purpose: str) -> None:
        self._keys = secrets.subkeys("signing:" + purpose)

    def sign(self, value: str, *, expires_at: datetime | None = None, context: str = "") -> str:
        """The value, its expiry and the signature as one text; readable by whoever holds it.

        `context` is not in the text: whoever checks must know it (a session, a browser).
        """
        until = "" if expires_at is None else str(_milliseconds(expires_at))
        body = value.encode()
        signed = f"{unpadded(body)}.{until}."
        signed += unpadded(_mac(self._keys[0], _message(body, until, context)))
        if len(signed) > _MOST:
            raise ValueError(f"signed values have at most {_MOST} characters")
        return signed

    def check(self, signed: str, *, now: datetime, context: str = "") -> str:
        """The value that `sign` was given.

        Raises:
            SignatureRefused: the same for whatever is wrong with it.
        """
        found = _SIGNED.fullmatch(signed) if len(signed) <= _MOST else None
        if found is None:
            raise SignatureRefused(note="not a signed value")
        try:
            body = decoded(found["value"])
        except ValueError:
            raise SignatureRefused(note="not a signed value") from None
        if not self._made(_message(body, found["until"], context), found["mac"]):
            raise SignatureRefused(note="wrong signature")
        if found["until"] and _milliseconds(now) >= int(found["until"]):
            raise SignatureRefused(note="expired")
        return body.decode()

    def mac(self, message: bytes) -> str:
        """The bare signature of a message that both sides have."""
        return unpadded(_mac(self._keys[0], b"mac\x00" + message))

    def mac_ok(self, message: bytes, mac: str) -> bool:
        """Is it the signature of the message, under the current secret or an old one?"""
        return self._made(b"mac\x00" + message, mac)

    def _made(self, message: bytes, mac: str) -> bool:
        results = [same(unpadded(_mac(key, message)), mac) for key in self._keys]
        return any(results)


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _message(value: bytes, until: str, context: str) -> bytes:
    """Each part with its length before it, so that none can lend letters to the next."""
    parts = (value, until.encode("ascii"), context.encode("utf-8", "surrogatepass"))
    return b"signed\x00" + b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _milliseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(milliseconds=1)

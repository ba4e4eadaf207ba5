"""Sealing what must be stored and read again: encrypted, and fast at the place it was put."""

import re
import secrets
from typing import Final, final

from watchword.crypto.base64url import decoded
from watchword.crypto.keys import RootSecrets, derived
from watchword.kernel.errors import WatchwordError
from watchword.kernel.secrets import unpadded

_PURPOSE: Final = "sealing"
_NONCE: Final = 12  # bytes
_BY_ROOT = re.compile(
    r"v1\.(?P<key_id>[0-9a-f]{8})\.(?P<nonce>[\w-]{16})\.(?P<rest>[\w-]+)", re.ASCII
)
_BY_KEY = re.compile(r"k1\.(?P<nonce>[\w-]{16})\.(?P<rest>[\w-]+)", re.ASCII)


class SealBroken(WatchwordError):
    """A sealed value was altered, moved to another place, or never was one."""

    code = "seal_broken"
    status = 503
    title = "A stored value cannot be read"


class SealKeyMissing(WatchwordError):
    """A sealed value needs a root secret that is not configured."""

    code = "seal_key_missing"
    status = 503
    title = "A stored value cannot be read"

    def __init__(self, key_id: str) -> None:
        super().__init__(note=f"no secret with key id {key_id}: add it to old_secrets")
        self.key_id = key_id


@final
class Sealer:
    """Encrypts values at rest, each bound to realm, record, key and field.

    A value opens only where it was sealed: swapping two rows, or two fields of one, fails.

    Source: NIST SP 800-38D §8.3, at most 2^32 random nonces under one key: rotate the root
    secret before that many values were sealed.
    """

    __slots__ = ("_secrets",)

    def __init__(self, secrets: RootSecrets) -> None:
        self._secrets = secrets

    def seal(self, plaintext: bytes, *, realm: str, record: str, key: str, field: str) -> str:
        """The value as `v1.<key id>.<nonce>.<ciphertext>`; never the same text twice."""
        key_id = self._secrets.current_id
        place = _place("v1", realm, record, key, field)
        return f"v1.{key_id}." + _sealed(plaintext, under=self._key(key_id), place=place)

    def open(self, sealed: str, *, realm: str, record: str, key: str, field: str) -> bytes:
        """The value that was sealed at this very place.

        Raises:
            SealBroken: it was not sealed here, or not by us.
            SealKeyMissing: its root secret is not configured.
        """
        key_id = key_id_of(sealed)
        place = _place("v1", realm, record, key, field)
        return _opened(_BY_ROOT, sealed, under=self._key(key_id), place=place)

    def is_current(self, sealed: str) -> bool:
        """Is it sealed under the root secret in force? Raises SealBroken."""
        return key_id_of(sealed) == self._secrets.current_id

    def _key(self, key_id: str) -> bytes:
        try:
            return self._secrets.subkey(_PURPOSE, key_id=key_id)
        except KeyError:
            raise SealKeyMissing(key_id) from None


def key_id_of(sealed: str) -> str:
    """Which root secret a sealed value needs.

    Raises:
        SealBroken: it is no sealed value of a `Sealer`.
    """
    found = _BY_ROOT.fullmatch(sealed)
    if found is None:
        raise SealBroken(note="not a sealed value")
    return found["key_id"]


def derive(subkey: bytes, material: bytes, purpose: str) -> bytes:
    """A key that takes both: our subkey, and what only its holder has (I-14)."""
    return derived(
        material, salt=subkey, info=b"watchword derived\x00" + purpose.encode(), length=32
    )


def seal_with_key(
    sealing_key: bytes, plaintext: bytes, *, realm: str, record: str, key: str, field: str
) -> str:
    """Seal under a key of `derive` instead of a root secret: `k1.<nonce>.<ciphertext>`.

    It names no root secret, so resealing passes it by; it lives for seconds.
    """
    place = _place("k1", realm, record, key, field)
    return "k1." + _sealed(plaintext, under=sealing_key, place=place)


def open_with_key(
    sealing_key: bytes, sealed: str, *, realm: str, record: str, key: str, field: str
) -> bytes:
    """Open what `seal_with_key` sealed at this very place.

    Raises:
        SealBroken: another key, another place, or altered.
    """
    place = _place("k1", realm, record, key, field)
    return _opened(_BY_KEY, sealed, under=sealing_key, place=place)


def _sealed(plaintext: bytes, *, under: bytes, place: bytes) -> str:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  as in keys

    nonce = secrets.token_bytes(_NONCE)
    return f"{unpadded(nonce)}.{unpadded(AESGCM(under).encrypt(nonce, plaintext, place))}"


def _opened(form: re.Pattern[str], sealed: str, *, under: bytes, place: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415  as in keys
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  as in keys

    found = form.fullmatch(sealed)
    if found is None:
        raise SealBroken(note="not a sealed value")
    try:
        return AESGCM(under).decrypt(decoded(found["nonce"]), decoded(found["rest"]), place)
    except (InvalidTag, ValueError):
        raise SealBroken(note="altered, or sealed elsewhere") from None


def _place(*parts: str) -> bytes:
    """Each part with its length before it, so that no two places read the same."""
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)

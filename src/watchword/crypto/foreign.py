"""Stored passwords as other systems write them: recognised, bounded, and checked.

Nothing here is ever written for a new password: whoever signs in with one of these gets a hash
of the configured scheme. Primitives come from `hashlib`, `bcrypt` and `cryptography`.
"""

import base64
import hashlib
import hmac
import re
from binascii import Error as NotBase64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from watchword.kernel.secrets import Secret, unpadded

# As for argon2: one row must not be able to take all memory, or a thread for minutes.
_MOST_ITERATIONS: Final = 5_000_000  # of PBKDF2: seconds; Django's default grows by a fifth a year
_MOST_BLOCKS: Final = 1 << 23  # N * r * p of scrypt: at most 1 GiB, and seconds
_MOST_ROUNDS: Final = 16  # of bcrypt
_SIGNER_ID: Final = b"watchword firebase signer"

_PBKDF2_SIZES: Final = {"sha1": 20, "sha256": 32, "sha512": 64}
_PBKDF2_KINDS: Final = {
    "sha1": "pbkdf2-sha1",
    "sha256": "pbkdf2-sha256",
    "sha512": "pbkdf2-sha512",
}


class TooDear(Exception):
    """A form that is known, at a cost that is not run."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one stored password was made."""

    kind: str  # for counts: `scrypt`, `pbkdf2-sha256`, `bcrypt-sha256`, `firebase-scrypt`
    expected: bytes
    make: Callable[[bytes], bytes]

    def matches(self, password: bytes) -> bool | None:
        """Run one hash and compare; None if the library finds nothing to run."""
        try:
            return hmac.compare_digest(self.make(password), self.expected)
        except (ValueError, OverflowError, MemoryError):
            return None


@dataclass(frozen=True, slots=True)
class FirebaseScrypt:
    """A password of Firebase: scrypt, whose result encrypts the project's signer key.

    The key is a secret of the whole project and never stands in a row; `signer` names it.
    """

    signer: str
    memory: int  # logarithm of N
    rounds: int  # r
    salt: bytes
    separator: bytes
    result: bytes

    def __str__(self) -> str:
        """The stored form."""
        parts = (_written(part) for part in (self.salt, self.separator, self.result))
        return f"$firebase-scrypt$k={self.signer},m={self.memory},r={self.rounds}${'$'.join(parts)}"


def signer_id(key: Secret) -> str:
    """The short name of a signer key, which tells nothing of it.

    Raises:
        ValueError: it is no base64 of at least 32 bytes.
    """
    data = _read(key.reveal().strip())
    if data is None or len(data) < 32:
        raise ValueError("is no base64 of a signer key, as the Firebase console shows it")
    return unpadded(hmac.digest(data, _SIGNER_ID, "sha256"))[:10]


def signers(keys: Sequence[Secret]) -> dict[str, bytes]:
    """Signer keys by their short names."""
    return {signer_id(key): _read(key.reveal().strip()) or b"" for key in keys}


def unwrapped(stored: str) -> str:
    """What Django put its own name in front of: `argon2$argon2id$…`, `bcrypt$$2b$…`."""
    for wrapper, inside in (("argon2$argon2", "$argon2"), ("bcrypt$$2", "$2")):
        if stored.startswith(wrapper):
            return inside + stored.removeprefix(wrapper)
    return stored


def recipe_of(stored: str, signers: Mapping[str, bytes]) -> Recipe | None:
    """How a stored password was made; None if it is in no form that is known here.

    Raises:
        TooDear
    """
    for pattern, read in _FORMS:
        if found := pattern.fullmatch(stored):
            return read(found, signers)
    return None


def is_without_signer(stored: str, signers: Mapping[str, bytes]) -> bool:
    """Is it a password of Firebase whose signer key is not configured?"""
    found = _FIREBASE.fullmatch(stored)
    return found is not None and found["signer"] not in signers


def _scrypt(
    salt: bytes | None, expected: bytes | None, *, n: int, r: int, p: int, kind: str = "scrypt"
) -> Recipe | None:
    # A result cut short would be matched by the beginning of the right one.
    if salt is None or expected is None or len(expected) not in (32, 64):
        return None
    if n < 2 or n & (n - 1):
        return None
    if n * r * p > _MOST_BLOCKS:
        raise TooDear

    def make(password: bytes) -> bytes:
        return derived(password, salt, n=n, r=r, p=p, size=len(expected))

    return Recipe(kind, expected, make)


def derived(password: bytes, salt: bytes, *, n: int, r: int, p: int, size: int) -> bytes:
    """Run scrypt. Its memory is bounded by whoever bounds n, r and p."""
    most = 128 * r * (n + p + 2) + (1 << 16)
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=most, dklen=size)


def _scrypt_phc(found: re.Match[str], _: Mapping[str, bytes]) -> Recipe | None:
    """As passlib writes it."""
    logarithm = int(found["ln"])
    if logarithm > 30:
        raise TooDear
    return _scrypt(
        _read(found["salt"]),
        _read(found["hash"]),
        n=1 << logarithm,
        r=int(found["r"]),
        p=int(found["p"]),
    )


def _scrypt_werkzeug(found: re.Match[str], _: Mapping[str, bytes]) -> Recipe | None:
    return _scrypt(
        found["salt"].encode(),
        bytes.fromhex(found["hash"]),
        n=int(found["n"]),
        r=int(found["r"]),
        p=int(found["p"]),
    )


def _scrypt_django(found: re.Match[str], _: Mapping[str, bytes]) -> Recipe | None:
    return _scrypt(
        found["salt"].encode(),
        _read(found["hash"]),
        n=int(found["n"]),
        r=int(found["r"]),
        p=int(found["p"]),
    )


def _pbkdf2(
    name: str, salt: bytes | None, expected: bytes | None, iterations: int
) -> Recipe | None:
    if salt is None or expected is None or len(expected) != _PBKDF2_SIZES[name]:
        return None
    if iterations > _MOST_ITERATIONS:
        raise TooDear

    def make(password: bytes) -> bytes:
        return hashlib.pbkdf2_hmac(name, password, salt, iterations)

    return Recipe(_PBKDF2_KINDS[name], expected, make)


def _pbkdf2_passlib(found: re.Match[str], _: Mapping[str, bytes]) -> Recipe | None:
    name = (found["name"] or "-sha1").removeprefix("-")
    salt, expected = (_read(found[part].replace(".", "+")) for part in ("salt", "hash"))
    return _pbkdf2(name, salt, expected, int(found["rounds"]))


def _pbkdf2_werkzeug(found: re.Match[str], _: Mapping[str, bytes]) -> Recipe | None:
    salt, expected = found["salt"].encode(), bytes.fromhex(found["hash"])
    return _pbkdf2(found["name"], salt, expected, int(found["rounds"]))


def _pbkdf2_django(found: re.Match[str], _: Mapping[str, bytes]) -> Recipe | None:
    salt, expected = found["salt"].encode(), _read(found["hash"])
    return _pbkdf2(found["name"], salt, expected, int(found["rounds"]))


def _bcrypt(settings: str, result: str, key: Callable[[bytes], bytes]) -> Recipe | None:
    """Bcrypt over a digest, so that it sees all of a long password."""
    rounds = int(settings[4:6])
    if rounds < 4:
        return None
    if rounds > _MOST_ROUNDS:
        raise TooDear

    def make(password: bytes) -> bytes:
        import bcrypt  # noqa: PLC0415  a library, needed at the first hash

        return bcrypt.hashpw(key(password), settings.encode("ascii"))

    return Recipe("bcrypt-sha256", (settings + result).encode("ascii"), make)


def _bcrypt_django(found: re.Match[str], _: Mapping[str, bytes]) -> Recipe | None:
    return _bcrypt(
        found["settings"],
        found["hash"],
        lambda password: hashlib.sha256(password).hexdigest().encode("ascii"),
    )


def _bcrypt_passlib(found: re.Match[str], _: Mapping[str, bytes]) -> Recipe | None:
    salt = found["salt"]
    if found["version"]:  # 2: the digest is keyed with the salt

        def key(password: bytes) -> bytes:
            return base64.b64encode(hmac.digest(salt.encode("ascii"), password, "sha256"))

    else:

        def key(password: bytes) -> bytes:
            return base64.b64encode(hashlib.sha256(password).digest())

    rounds = found["rounds"]
    return _bcrypt(f"$2{found['letter']}${rounds:0>2}${salt}", found["hash"], key)


def _firebase(found: re.Match[str], signers: Mapping[str, bytes]) -> Recipe | None:
    salt, separator, expected = (_read(found[part]) for part in ("salt", "separator", "hash"))
    memory, rounds = int(found["memory"]), int(found["rounds"])
    if salt is None or separator is None or expected is None or not memory:
        return None
    if memory > 30 or (rounds << memory) > _MOST_BLOCKS:
        raise TooDear
    signer = signers.get(found["signer"])

    def make(password: bytes) -> bytes:
        if signer is None:
            raise ValueError("its signer key is not configured")
        # Loaded when it is needed: few have passwords of this kind.
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # noqa: PLC0415

        key = derived(password, salt + separator, n=1 << memory, r=rounds, p=1, size=32)
        encryptor = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
        return encryptor.update(signer) + encryptor.finalize()

    return Recipe("firebase-scrypt", expected, make)


def _read(text: str) -> bytes | None:
    """Base64 of either alphabet, padded or not."""
    try:
        data = text.rstrip("=").translate(_STANDARD)
        return base64.b64decode(data + "=" * (-len(data) % 4), validate=True)
    except (NotBase64, ValueError):
        return None


def read_base64(text: str) -> bytes | None:
    """What base64 of either alphabet, padded or not, holds; None if it is none."""
    return _read(text)


def _written(data: bytes) -> str:
    return base64.b64encode(data).rstrip(b"=").decode("ascii")


_STANDARD: Final = str.maketrans("-_", "+/")
_NUMBER: Final = r"[1-9][0-9]{0,8}"
_B64: Final = r"[A-Za-z0-9+/]{1,700}={0,2}"
_BCRYPT64: Final = r"[./A-Za-z0-9]"
_SALT: Final = r"[\x21-\x23\x25-\x7e]{1,256}"  # anything but the dollar that ends it
_FIREBASE: Final = re.compile(
    r"\$firebase-scrypt\$k=(?P<signer>[A-Za-z0-9_-]{10}),m=(?P<memory>[0-9]{1,2}),"
    rf"r=(?P<rounds>{_NUMBER})\$(?P<salt>{_B64})\$(?P<separator>(?:{_B64})?)\$(?P<hash>{_B64})"
)
_FORMS: Final[
    tuple[
        tuple[re.Pattern[str], Callable[[re.Match[str], Mapping[str, bytes]], Recipe | None]], ...
    ]
] = (
    (
        re.compile(
            rf"\$scrypt\$ln=(?P<ln>{_NUMBER}),r=(?P<r>{_NUMBER}),p=(?P<p>{_NUMBER})"
            rf"\$(?P<salt>{_B64})\$(?P<hash>{_B64})"
        ),
        _scrypt_phc,
    ),
    (
        re.compile(
            rf"scrypt:(?P<n>{_NUMBER}):(?P<r>{_NUMBER}):(?P<p>{_NUMBER})"
            rf"\$(?P<salt>{_SALT})\$(?P<hash>(?:[0-9a-f]{{2}}){{1,64}})"
        ),
        _scrypt_werkzeug,
    ),
    (
        re.compile(
            rf"scrypt\$(?P<n>{_NUMBER})\$(?P<salt>{_SALT})\$(?P<r>{_NUMBER})\$(?P<p>{_NUMBER})"
            rf"\$(?P<hash>{_B64})"
        ),
        _scrypt_django,
    ),
    (
        re.compile(
            rf"\$pbkdf2(?P<name>|-sha256|-sha512)\$(?P<rounds>{_NUMBER})"
            r"\$(?P<salt>[A-Za-z0-9./]{1,700})\$(?P<hash>[A-Za-z0-9./]{1,700})"
        ),
        _pbkdf2_passlib,
    ),
    (
        re.compile(
            rf"pbkdf2:(?P<name>sha1|sha256|sha512):(?P<rounds>{_NUMBER})"
            rf"\$(?P<salt>{_SALT})\$(?P<hash>(?:[0-9a-f]{{2}}){{1,64}})"
        ),
        _pbkdf2_werkzeug,
    ),
    (
        re.compile(
            rf"pbkdf2_(?P<name>sha1|sha256)\$(?P<rounds>{_NUMBER})"
            rf"\$(?P<salt>{_SALT})\$(?P<hash>{_B64})"
        ),
        _pbkdf2_django,
    ),
    (
        re.compile(
            rf"bcrypt_sha256\$(?P<settings>\$2[aby]\$[0-9]{{2}}\${_BCRYPT64}{{22}})"
            rf"(?P<hash>{_BCRYPT64}{{31}})"
        ),
        _bcrypt_django,
    ),
    (
        re.compile(
            r"\$bcrypt-sha256\$(?P<version>v=2,t=)?2(?P<letter>[aby]),(?(version)r=)"
            rf"(?P<rounds>[0-9]{{1,2}})\$(?P<salt>{_BCRYPT64}{{22}})\$(?P<hash>{_BCRYPT64}{{31}})"
        ),
        _bcrypt_passlib,
    ),
    (_FIREBASE, _firebase),
)

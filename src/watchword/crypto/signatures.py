"""Keys that sign and verify: the only importer of the JOSE library.

Loaded when the ring is opened, not before: it costs a sixth of what `import fastapi` does.
"""

import secrets
from base64 import b64decode
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NoReturn, Self, final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_der_public_key,
)
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from watchword.crypto.jose import Algorithm, is_kid

_RSA_MADE: Final = 3072  # bits
_RSA_LEAST: Final = 2048  # bits
_HMAC_LEAST: Final = 32  # bytes

# Of the library only its signatures. Ed25519 is what EdDSA means here (RFC 9864 §2.2): the header
# says EdDSA, which readers know, and no key of another curve gets in.
_REGISTRY = JWSRegistry(algorithms=["ES256", "RS256", "Ed25519", "HS256"])
_MODELS: Final = {
    "ES256": _REGISTRY.get_alg("ES256"),
    "RS256": _REGISTRY.get_alg("RS256"),
    "EdDSA": _REGISTRY.get_alg("Ed25519"),
    "HS256": _REGISTRY.get_alg("HS256"),
}


@final
@dataclass(frozen=True, slots=True, repr=False, eq=False)
class SigningKey:
    """A key that signs and verifies with one algorithm, parsed once."""

    kid: str
    algorithm: Algorithm
    _key: ECKey | RSAKey | OKPKey | OctKey

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid!r}, algorithm={self.algorithm!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SigningKey is not pickled")

    @classmethod
    def generate(cls, algorithm: Algorithm) -> Self:
        """A fresh key. `kid` is its thumbprint; random for HS256. RS256 takes up to a second.

        Source: RFC 7638 §3. An HS256 thumbprint would be a digest of the secret itself.
        """
        match algorithm:
            case "ES256":
                key = ECKey.import_key(ec.generate_private_key(ec.SECP256R1()))
            case "RS256":
                key = RSAKey.import_key(rsa.generate_private_key(65537, _RSA_MADE))
            case "EdDSA":
                key = OKPKey.import_key(ed25519.Ed25519PrivateKey.generate())
            case "HS256":
                return cls(secrets.token_hex(16), algorithm, _octets(secrets.token_bytes(32)))
        return cls(key.thumbprint(), algorithm, key)

    @classmethod
    def from_private_bytes(cls, kid: str, algorithm: Algorithm, data: bytes) -> Self:
        """Read what `private_bytes` wrote. RS256 takes 0.1 s: keep the key, do not read it again.

        Raises:
            ValueError: another kind of key, one that is too short, or for HS256 one that others
                know: text short enough to be a password, or a public key in any of its forms.
        """
        if not is_kid(kid):
            raise ValueError("a kid has 1 to 128 printable ASCII characters")
        return cls(kid, algorithm, _key_from(algorithm, data))

    def private_bytes(self) -> bytes:
        """The key itself: PKCS #8 in DER, or the octets of HS256. To be sealed at once."""
        if isinstance(self._key, OctKey):
            return self._key.raw_value
        private = self._key.private_key
        assert private is not None  # whichever way the key was made
        return private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def public_jwk(self) -> dict[str, object] | None:
        """What the JWKS publishes; None for HS256, of which nothing is public."""
        if isinstance(self._key, OctKey):
            return None
        jwk = self._key.as_dict(private=False)
        return {**jwk, "kid": self.kid, "alg": self.algorithm, "use": "sig"}

    def signature(self, message: bytes) -> bytes:
        """Sign, in the form that RFC 7515 puts into a token."""
        return _MODELS[self.algorithm].sign(message, self._key)

    def signed(self, message: bytes, signature: bytes) -> bool:
        """Did this key sign the message?"""
        try:
            return _MODELS[self.algorithm].verify(message, signature, self._key)
        except (JoseError, ValueError):
            return False


def _octets(data: bytes) -> OctKey:
    return OctKey.import_key(data)


def _key_from(algorithm: Algorithm, data: bytes) -> ECKey | RSAKey | OKPKey | OctKey:
    if algorithm == "HS256":
        if fault := _hmac_fault(data):
            raise ValueError(f"this is no HS256 secret: {fault}")
        return _octets(data)
    try:
        parsed = load_der_private_key(data, password=None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("this is no private key in PKCS #8") from error
    match algorithm, parsed:
        case "ES256", ec.EllipticCurvePrivateKey() if isinstance(parsed.curve, ec.SECP256R1):
            return ECKey.import_key(parsed)
        case "RS256", rsa.RSAPrivateKey() if parsed.key_size >= _RSA_LEAST:
            return RSAKey.import_key(parsed)
        case "EdDSA", ed25519.Ed25519PrivateKey():
            return OKPKey.import_key(parsed)
        case _:
            raise ValueError(f"this is no key for {algorithm}, or one that is too short")


def _hmac_fault(data: bytes) -> str | None:
    """What makes octets unfit as a secret that only we know.

    Source: RFC 7518 §3.2, at least 256 bits; RFC 8725 §3.5, no passwords. Public keys are refused
    in each form they travel in: others hold them (CVE row 1).
    """
    if len(data) < _HMAC_LEAST:
        return "at least 32 bytes"
    # Only of text: of our own random keys one in 256 begins with a brace.
    written = data.isascii() and data.lstrip().startswith((b"{", b"ssh-", b"ecdsa-", b"sk-"))
    if b"-----BEGIN" in data or written:
        return "it looks like a key that others may have"
    for form in (data, _from_base64(data)):
        with suppress(ValueError, UnsupportedAlgorithm):
            load_der_public_key(form)
            return "it is a public key"
    # 43 letters of base64url hold 256 bits; any text that is shorter may be a password.
    if len(set(data)) < 8 or (len(data) < 43 and all(32 <= byte < 127 for byte in data)):
        return "a text this short may be guessed"
    return None


def _from_base64(data: bytes) -> bytes:
    try:
        return b64decode(data)
    except ValueError:
        return b""

"""Keys that sign and verify: the only importer of the JOSE library.

Loaded when the ring is opened, not before: it costs a sixth of what `import fastapi` does.
"""

import json
import re
import secrets
from base64 import b64decode
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Self, cast, final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from watchword.crypto.base64url import decoded
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

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """The Ed25519 key of 32 bytes that are as good as random: a subkey of a root secret.

        Source: RFC 8032 §5.1.5.
        """
        key = OKPKey.import_key(ed25519.Ed25519PrivateKey.from_private_bytes(seed))
        return cls(key.thumbprint(), "EdDSA", key)

    @classmethod
    def given(cls, text: str) -> Self:
        """Read a private key that somebody made elsewhere: PEM (PKCS #8, SEC 1, PKCS #1) or a JWK.

        The algorithm is the one that fits it; `kid` is its thumbprint, whatever a JWK says.

        Source: RFC 7517 §4, RFC 7638 §3; RFC 7518 §3.3, RSA has at least 2048 bits.

        Raises:
            ValueError: why it will not do and what to do; nothing of the key is in the text.
        """
        private = _private_jwk(text) if _is_json(text) else _private_pem(text)
        key: ECKey | RSAKey | OKPKey
        match private:
            case ec.EllipticCurvePrivateKey() if isinstance(private.curve, ec.SECP256R1):
                algorithm, key = "ES256", ECKey.import_key(private)
            case ec.EllipticCurvePrivateKey():
                raise ValueError(
                    f"is a key on the curve {private.curve.name}: ES256 takes P-256 (prime256v1)"
                )
            case rsa.RSAPrivateKey() if _is_guessable(private):
                raise ValueError("is an RSA key that can be computed (ROCA): make another")
            case rsa.RSAPrivateKey() if private.key_size >= _RSA_LEAST:
                algorithm, key = "RS256", RSAKey.import_key(private)
            case rsa.RSAPrivateKey():
                raise ValueError(_short(private.key_size))
            case ed25519.Ed25519PrivateKey():
                algorithm, key = "EdDSA", OKPKey.import_key(private)
            case _:
                raise ValueError("is of a kind that signs no tokens: P-256, RSA or Ed25519 do")
        return cls(key.thumbprint(), cast("Algorithm", algorithm), key)

    def private_bytes(self) -> bytes:
        """The key itself: PKCS #8 in DER, or the octets of HS256. To be sealed at once."""
        if isinstance(self._key, OctKey):
            return self._key.raw_value
        private = self._key.private_key
        assert private is not None  # whichever way the key was made
        return private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def belongs_to(self, public: str) -> bool:
        """Is this PEM or JWK the public half of this key?

        Raises:
            ValueError: it is no public key; the text says what to do.
        """
        if isinstance(self._key, OctKey):
            return False
        return _public_der(self._key.public_key) == _public_der(_public(public))

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


_KEY_BLOCK: Final = re.compile(r"-----BEGIN ([A-Z ]*KEY)-----.*?-----END \1-----", re.DOTALL)


def _is_json(text: str) -> bool:
    return text.lstrip().startswith("{")


def _pem(text: str) -> bytes:
    # Where a setting is one line, line ends are written `\\n`.
    written = text.strip()
    written = written if "\n" in written else written.replace("\\n", "\n")
    found = _KEY_BLOCK.search(written)  # openssl may put the parameters of a curve before it
    return (written if found is None else found[0]).encode()


def _private_pem(text: str) -> object:
    try:
        return load_pem_private_key(_pem(text), password=None)
    except TypeError:
        raise ValueError(
            "is encrypted: give it without a passphrase, in a file that only the server reads"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        is_public = b"PUBLIC KEY-----" in _pem(text)
        raise ValueError(_IS_PUBLIC if is_public else _IS_NONE) from None


_IS_PUBLIC: Final = "is a public key: give the private one; the public one goes to public_key"
_IS_NONE: Final = "is no private key: give PEM (PKCS #8, SEC 1 or PKCS #1) or a JWK"


def _jwk(text: str) -> dict[str, Any]:
    try:
        jwk = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is no JSON") from None
    if "keys" in jwk:
        raise ValueError("is a set of keys: give one of them")
    if jwk.get("use", "sig") != "sig":
        raise ValueError("is a JWK for something else than signatures (`use`)")
    wanted = "sign" if "d" in jwk else "verify"
    operations = jwk.get("key_ops", [wanted])
    if not isinstance(operations, list) or wanted not in operations:
        raise ValueError(f"is a JWK for something else (`key_ops` has no {wanted})")
    # One algorithm a key (RFC 8725 §3.1): one that was made for another stays with it.
    if "alg" in jwk and jwk["alg"] not in _ALGORITHMS_OF.get(str(jwk.get("kty")), ()):
        raise ValueError("is a JWK for another algorithm (`alg`): ES256, RS256 or EdDSA")
    return cast("dict[str, Any]", jwk)


_ALGORITHMS_OF: Final = {"EC": ("ES256",), "RSA": ("RS256",), "OKP": ("EdDSA", "Ed25519")}


def _imported(jwk: dict[str, Any]) -> ECKey | RSAKey | OKPKey:
    kinds: dict[object, type[ECKey | RSAKey | OKPKey]] = {
        "EC": ECKey,
        "RSA": RSAKey,
        "OKP": OKPKey,
    }
    named = jwk.get("kty")
    kind = kinds.get(named) if isinstance(named, str) else None
    if kind is None:
        raise ValueError("is a JWK of another kind: EC, RSA and OKP sign; a secret goes to secret")
    # What else a JWK says (its `kid`) is not what decides here.
    members = ("kty", "crv", "x", "y", "n", "e", "d", "p", "q", "dp", "dq", "qi")
    if kind is RSAKey and 0 < _bits_of(jwk.get("n")) < _RSA_LEAST:
        raise ValueError(_short(_bits_of(jwk.get("n"))))  # before the library warns on the screen
    try:
        return kind.import_key({name: jwk[name] for name in members if name in jwk})
    except (JoseError, ValueError, TypeError, KeyError, UnsupportedAlgorithm):
        raise ValueError("is a JWK that cannot be read") from None


def _bits_of(modulus: object) -> int:
    """0 for what is no number; that is refused where it is read."""
    try:
        return int.from_bytes(decoded(modulus)).bit_length() if isinstance(modulus, str) else 0
    except ValueError:
        return 0


def _short(bits: int) -> str:
    return f"is an RSA key of {bits} bits: make one of at least {_RSA_LEAST}"


def _is_guessable(key: rsa.RSAPrivateKey) -> bool:
    """Was it made by the library whose primes can be computed from the modulus (ROCA)?

    Source: CVE-2017-15361. Modulo small primes such a modulus is always a power of 65537; of
    sound ones, one in 2^28 is.
    """
    modulus = key.public_key().public_numbers().n
    return all(
        modulus % prime in {pow(65537, power, prime) for power in range(prime)}
        for prime in _TELLING
    )


_TELLING: Final = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)


def _private_jwk(text: str) -> object:
    jwk = _jwk(text)
    if "d" not in jwk and jwk.get("kty") in ("EC", "RSA", "OKP"):
        raise ValueError(_IS_PUBLIC)
    private = _imported(jwk).private_key
    public = _imported({name: jwk[name] for name in jwk if name in _PUBLIC_MEMBERS}).public_key
    if private is None or _public_der(private.public_key()) != _public_der(public):
        raise ValueError("is a JWK whose public half is not that of its private half")
    return private


_PUBLIC_MEMBERS: Final = frozenset({"kty", "crv", "x", "y", "n", "e"})


def _public(text: str) -> object:
    if _is_json(text):
        jwk = _jwk(text)
        if "d" in jwk:
            raise ValueError("is a private key: give the public one")
        return _imported(jwk).public_key
    try:
        return load_pem_public_key(_pem(text))
    except (ValueError, UnsupportedAlgorithm):
        is_private = b"PRIVATE KEY-----" in _pem(text)
        raise ValueError(
            "is a private key: give the public one"
            if is_private
            else "is no public key: give PEM or a JWK"
        ) from None


def _public_der(public: object) -> bytes:
    written: bytes = cast("Any", public).public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    return written


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
    for form in (data, _from_base64(data), _from_hex(data)):
        with suppress(ValueError, UnsupportedAlgorithm):
            load_der_public_key(form)
            return "it is a public key"
    # 43 letters of base64url hold 256 bits; any text that is shorter may be a password.
    if len(set(data)) < 8 or (len(data) < 43 and all(32 <= byte < 127 for byte in data)):
        return "a text this short may be guessed"
    return None


def _from_base64(data: bytes) -> bytes:
    """Of either alphabet, with its padding or without."""
    plain = data.translate(_STANDARD, b"=")
    try:
        return b64decode(plain + b"=" * (-len(plain) % 4))
    except ValueError:
        return b""


_STANDARD: Final = bytes.maketrans(b"-_", b"+/")


def _from_hex(data: bytes) -> bytes:
    try:
        return bytes.fromhex(data.decode("ascii"))
    except ValueError:
        return b""

"""Tokens bent by hand: whatever an attacker who can read the specifications would try."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
)
from cryptography.x509.oid import NameOID

from tests.told import Story
from watchword.crypto.signatures import SigningKey

Bent = tuple[str, str | bytes]
"""What was done to it, and the token."""

Signs = Callable[[bytes], bytes]

EVIL = "https://evil.example"


def b64(data: bytes | str | dict[str, Any]) -> str:
    """Base64url without padding, of octets, a text, or an object as JSON."""
    if isinstance(data, dict):
        data = json.dumps(data)
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class Forge:
    """One good token of one algorithm, and what can be made of it."""

    key: SigningKey  # the one that signs for real
    token: str
    issuer: str
    now: int
    jwk: dict[str, Any] | None  # as published

    @classmethod
    async def of(cls, story: Story) -> "Forge":
        """Take the newest token of the story."""
        token = (await story.log_in())["access_token"]
        keys = (await story.client.get("/.well-known/jwks.json")).json()["keys"]
        return cls(
            key=story.auth.keys.active(),
            token=token,
            issuer=json.loads(unb64(token.split(".")[1]))["iss"],
            now=int(story.clock.now().timestamp()),
            jwk=keys[0] if keys else None,
        )

    @property
    def header(self) -> dict[str, Any]:
        return json.loads(unb64(self.token.split(".")[0]))  # type: ignore[no-any-return]

    @property
    def claims(self) -> dict[str, Any]:
        return json.loads(unb64(self.token.split(".")[1]))  # type: ignore[no-any-return]

    def signed(
        self,
        claims: bytes | str | dict[str, Any] | None = None,
        header: bytes | str | dict[str, Any] | None = None,
        *,
        key: SigningKey | None = None,
    ) -> str:
        """A token with this header and these claims, whatever they are, and a good signature."""
        message = f"{b64(header or self.header)}.{b64(self.claims if claims is None else claims)}"
        return f"{message}.{b64((key or self.key).signature(message.encode()))}"

    def changed(self, **claims: Any) -> str:
        """Our own token with other claims; None of them checked by whoever signs."""
        return self.signed({**self.claims, **claims})

    def without(self, name: str) -> str:
        """Our own token without one claim."""
        return self.signed({key: value for key, value in self.claims.items() if key != name})

    def headed(self, **header: Any) -> str:
        """Our own claims under a changed header."""
        return self.signed(header={**self.header, **header})

    def mac(self, secret: bytes, **header: Any) -> str:
        """A token with an HMAC under this secret."""
        message = f"{b64({**self.header, **header})}.{b64(self.claims)}"
        return f"{message}.{b64(hmac.new(secret, message.encode(), hashlib.sha256).digest())}"


def flipped_bits(forge: Forge) -> Iterator[Bent]:
    """One bit of every third octet of header, payload and signature."""
    parts = forge.token.split(".")
    for part, name in enumerate(("header", "payload", "signature")):
        octets = unb64(parts[part])
        for place in range(0, len(octets), 3):
            bent = bytearray(octets)
            bent[place] ^= 1 << (place % 8)
            yield (
                f"bit of octet {place} of the {name}",
                ".".join([*parts[:part], b64(bytes(bent)), *parts[part + 1 :]]),
            )


def algorithms(forge: Forge) -> Iterator[Bent]:
    """Other algorithms, none, and other signatures by our very own key."""
    message = f"{b64(forge.header)}.{b64(forge.claims)}"
    signature = forge.token.rpartition(".")[2]
    for name in ("none", "None", "nOnE", "NONE", "", " ", "none ", None, 0, True, ["none"], {}):
        header = b64({**forge.header, "alg": name})
        for tail in ("", b64(b"x" * 64), signature):
            yield f"alg {name!r}", f"{header}.{b64(forge.claims)}.{tail}"
    missing = {key: value for key, value in forge.header.items() if key != "alg"}
    yield "no alg", forge.signed(header=missing)
    lower = forge.key.algorithm.lower()
    for name in (
        *("ES256", "ES384", "ES512", "ES256K", "RS256", "RS384", "RS512", "PS256", "PS384"),
        *("PS512", "EdDSA", "Ed25519", "Ed448", "HS256", "HS384", "HS512", "RSA1_5", lower),
        *("dir", "A256KW", "ECDH-ES", "PBES2-HS256+A128KW"),
    ):
        if name != forge.key.algorithm:
            yield f"alg {name}, our signature", forge.headed(alg=name)
    for name, header, octets in _other_signatures(forge):
        changed = f"{b64({**forge.header, **header})}.{b64(forge.claims)}"
        yield name, f"{changed}.{b64(octets(changed.encode()))}"
    size = len(unb64(signature))
    for name, octets in (
        ("zeros", bytes(size)),
        ("ones", b"\xff" * size),
        ("one octet", b"\x01"),
        ("cut", unb64(signature)[:-1]),
        ("half", unb64(signature)[: size // 2]),
        ("longer", unb64(signature) + b"\x00"),
        ("a zero before", b"\x00" + unb64(signature)),
    ):
        yield f"signature of {name}", f"{message}.{b64(octets)}"


def _other_signatures(forge: Forge) -> Iterator[tuple[str, dict[str, Any], Signs]]:
    private: Any = None
    if forge.key.algorithm != "HS256":
        private = load_der_private_key(forge.key.private_bytes(), password=None)
    if isinstance(private, rsa.RSAPrivateKey):
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        pkcs = padding.PKCS1v15()
        for alg in ("PS256", "RS256"):
            yield (
                f"PSS as {alg}",
                {"alg": alg},
                lambda m: private.sign(m, pss, hashes.SHA256()),
            )
        for alg in ("RS384", "RS256"):
            yield (
                f"PKCS #1 over SHA-384 as {alg}",
                {"alg": alg},
                lambda m: private.sign(m, pkcs, hashes.SHA384()),
            )
        yield "PKCS #1 over SHA-1", {}, lambda m: private.sign(m, pkcs, hashes.SHA1())
    elif isinstance(private, ec.EllipticCurvePrivateKey):
        for alg in ("ES384", "ES256"):
            yield (
                f"ECDSA over SHA-384 as {alg}",
                {"alg": alg},
                lambda m: _raw(private.sign(m, ec.ECDSA(hashes.SHA384()))),
            )
        yield "ECDSA in DER", {}, lambda m: private.sign(m, ec.ECDSA(hashes.SHA256()))
        order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
        for r, s in ((0, 0), (1, 0), (0, 1), (order, order), (1, 1), (order, 1)):
            octets = r.to_bytes(32, "big") + s.to_bytes(32, "big")
            yield "ECDSA that no key makes", {}, _always(octets)
    elif isinstance(private, ed25519.Ed25519PrivateKey):
        yield "EdDSA over a digest", {}, lambda m: private.sign(hashlib.sha512(m).digest())
    else:
        secret = forge.key.private_bytes()
        yield "HMAC of SHA-512", {}, lambda m: hmac.new(secret, m, hashlib.sha512).digest()
        yield "HMAC of SHA-1", {}, lambda m: hmac.new(secret, m, hashlib.sha1).digest()
        yield "cut HMAC", {}, lambda m: hmac.new(secret, m, hashlib.sha256).digest()[:16]
        yield "plain digest", {}, lambda m: hashlib.sha256(secret + m).digest()


def _always(octets: bytes) -> Signs:
    return lambda _: octets


def _raw(der: bytes) -> bytes:
    r, s = decode_dss_signature(der)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def public_keys(forge: Forge) -> Iterator[Bent]:
    """The public key, in each form it travels in, as the secret of an HMAC (CVE row 1)."""
    forms: dict[str, bytes] = {"nothing": b"", "the kid": forge.key.kid.encode(), "x": b"secret"}
    if forge.jwk is not None:
        private: Any = load_der_private_key(forge.key.private_bytes(), password=None)
        public = private.public_key()
        spki = PublicFormat.SubjectPublicKeyInfo
        forms |= {
            "PEM": public.public_bytes(Encoding.PEM, spki),
            "DER": public.public_bytes(Encoding.DER, spki),
            "base64 of DER": base64.b64encode(public.public_bytes(Encoding.DER, spki)),
            "JWK": json.dumps(forge.jwk).encode(),
            "tight JWK": json.dumps(forge.jwk, separators=(",", ":")).encode(),
            "sorted JWK": json.dumps(forge.jwk, separators=(",", ":"), sort_keys=True).encode(),
            "JWKS": json.dumps({"keys": [forge.jwk]}, separators=(",", ":")).encode(),
            "ssh": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
            "certificate": _certificate(private),
        }
        for name in ("x", "y", "n"):
            if name in forge.jwk:
                forms[f"`{name}`"] = forge.jwk[name].encode()
                forms[f"octets of `{name}`"] = unb64(forge.jwk[name])
        if isinstance(public, rsa.RSAPublicKey):
            forms["PKCS #1"] = public.public_bytes(Encoding.PEM, PublicFormat.PKCS1)
        if isinstance(public, ec.EllipticCurvePublicKey):
            point = PublicFormat.UncompressedPoint
            forms["point"] = public.public_bytes(Encoding.X962, point)
    for name, form in forms.items():
        for secret in dict.fromkeys((form, form.strip(), form.strip() + b"\n")):
            for alg in ("HS256", forge.key.algorithm):
                yield f"HMAC as {alg} under {name}", forge.mac(secret, alg=alg)


def _certificate(private: Any) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "evil")])
    algorithm = None if isinstance(private, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .sign(private, algorithm)
    )
    return made.public_bytes(Encoding.PEM)


def foreign_keys(forge: Forge) -> Iterator[Bent]:
    """Keys that come with the token, or that it says where to find."""
    # Every kind is signed for in full: only who made the key is wrong.
    alg = "ES256" if forge.key.algorithm == "HS256" else forge.key.algorithm
    stranger = SigningKey.generate("ES256" if alg == "RS256" else alg)
    private: Any = load_der_private_key(stranger.private_bytes(), password=None)
    chain = _certificate(private)
    body = b"".join(chain.splitlines()[1:-1]).decode()
    jwk = stranger.public_jwk() or {}
    thumb = b64(hashlib.sha256(chain).digest())
    for kid in (stranger.kid, forge.key.kid, "another"):
        for extra in (
            {},
            {"jwk": jwk},
            {"jwk": {**jwk, "kid": kid}},
            {"jwk": json.dumps(jwk)},
            {"jku": f"{EVIL}/jwks.json"},
            {"jku": "http://127.0.0.1:9/jwks.json"},
            {"jku": "file:///dev/null"},
            {"x5u": f"{EVIL}/chain.pem"},
            {"x5u": "http://127.0.0.1:9/chain.pem"},
            {"x5c": [body]},
            {"x5c": []},
            {"x5t": thumb, "x5t#S256": thumb},
        ):
            header = {**forge.header, "alg": stranger.algorithm, "kid": kid, **extra}
            yield f"a stranger's key, {sorted(extra)}", forge.signed(header=header, key=stranger)
            if extra:
                yield f"our own key with {sorted(extra)}", forge.headed(**extra)


def hostile_kids(forge: Forge) -> Iterator[Bent]:
    """`kid` is what a stranger wrote (RFC 8725 §3.10)."""
    for kid in (
        *("../../../../etc/passwd", "/dev/null", "file:///dev/null", "..\\..\\windows\\win.ini"),
        *("' OR 1=1 --", "x' UNION SELECT 'a", '"; DROP TABLE signing_key; --', "{$ne: null}"),
        *(
            "",
            " ",
            "\x00",
            "a\x00b",
            "a\nb",
            "\ud800",
            "ключ",
            "x" * 129,
            "x" * 5000,
            "%00",
            "$(id)",
        ),
        *(None, True, 0, 1.5, [], {}, [forge.key.kid], {"$ne": ""}, forge.key.kid.upper() + "x"),
        *(forge.key.kid + " ", forge.key.kid[:-1], forge.key.kid + "\n", "*", "%", "_" * 43),
    ):
        yield f"kid {str(kid)[:20]!r}", forge.headed(kid=kid)
    yield "kid of a megabyte", forge.headed(kid="x" * 1_000_000)
    missing = {key: value for key, value in forge.header.items() if key != "kid"}
    yield "no kid", forge.signed(header=missing)


def critical_headers(forge: Forge) -> Iterator[Bent]:
    """Parameters that ask for what we do not do: crit, b64, zip, cty."""
    for extra in (
        *({"crit": ["x"], "x": 1}, {"crit": ["x"]}, {"crit": []}, {"crit": ["exp"]}, {"crit": "x"}),
        *({"crit": ["x", "x"], "x": 1}, {"crit": ["alg"]}, {"crit": None}, {"crit": {"b64": True}}),
        *({"crit": ["b64"], "b64": True}, {"crit": ["b64"], "b64": False}, {"b64": False}),
        *({"b64": True}, {"zip": "DEF"}, {"zip": "GZIP"}, {"cty": "JWT"}, {"enc": "A256GCM"}),
        *(
            {"x": 1},
            {"": ""},
            {"p2c": 2**31 - 1},
            {"epk": {}},
            {"nonce": "x"},
            {"iss": forge.issuer},
        ),
    ):
        yield f"header with {extra}", forge.headed(**extra)
    raw = json.dumps(forge.claims).replace(".", "")
    header = b64({**forge.header, "crit": ["b64"], "b64": False})
    octets = forge.key.signature(f"{header}.{raw}".encode())
    yield "unencoded payload", f"{header}.{raw}.{b64(octets)}"


def claims_of_another_sort(forge: Forge) -> Iterator[Bent]:
    """Times, types, and every claim missing in turn."""
    nan, infinite = float("nan"), float("inf")
    for name in ("exp", "iat", "nbf"):
        for value in (
            *(str(forge.now), forge.now + 60.5, float(forge.now), nan, infinite, -infinite, True),
            *(False, None, [], {}, [forge.now + 60], -1, 0, 10**12, 10**30, 10**2000, 1e300, ""),
        ):
            yield f"{name} = {str(value)[:20]}", forge.changed(**{name: value})
    for name in ("iat", "nbf"):
        yield f"{name} to come", forge.changed(**{name: forge.now + 60})
    for name in forge.claims:
        yield f"no {name}", forge.without(name)
        if name not in ("exp", "iat", "scope"):
            for value in (None, True, 1, [], {}, "", [forge.claims[name], "x"]):
                yield f"{name} = {value!r}", forge.changed(**{name: value})
            other = {key: value for key, value in forge.claims.items() if key != name}
            for twin in (name.upper(), name.title(), f"{name} ", f" {name}", _confusable(name)):
                changed = {**other, twin: forge.claims[name]}
                yield f"{twin!r} for {name}", forge.signed(changed)


def _confusable(name: str) -> str:
    # Letters of another alphabet that look the same.
    return name.translate(str.maketrans("aceiops", "асеіорѕ"))


def issuers_and_audiences(forge: Forge) -> Iterator[Bent]:
    """Substrings, supersets and neighbours of what we are called (CVE row 2)."""
    ours = forge.issuer
    near = (
        *(ours[:-1], ours[1:], ours + "/", ours + "x", f"{ours}.evil.example", ours.upper(), EVIL),
        *(f"{EVIL}/{ours}", f" {ours}", f"{ours} ", f"{ours}\x00", "", "*", ours[:4], [ours, EVIL]),
        *([ours, ours], [[ours]], {"0": ours}, [], [ours, 1], f"{ours},{EVIL}", f'["{ours}"]'),
    )
    for name in ("iss", "aud"):
        for value in near:
            yield f"{name} = {value!r}", forge.changed(**{name: value})
    yield "iss as a list", forge.changed(iss=[ours])
    for client in ("watchwor", "watchword2", "Watchword", "*", EVIL):
        yield f"client_id = {client!r}", forge.changed(client_id=client)


def kinds_of_jwt(forge: Forge) -> Iterator[Bent]:
    """Tokens of our own key that are for something else (RFC 8725 §3.11)."""
    for typ in (
        *("JWT", "jwt", "id+jwt", "logout+jwt", "dpop+jwt", "secevent+jwt", "client-assertion+jwt"),
        *("rt+jwt", "mail+jwt", "state+jwt", "token-introspection+jwt", "oauth-authz-req+jwt"),
        *("at", "at+jwtx", "xat+jwt", " at+jwt", "at+jwt ", "at+jwt\x00", "аt+jwt", "", "*/*"),
        *("application/application/at+jwt", "application/", "text/at+jwt", None, 1, ["at+jwt"], {}),
    ):
        yield f"typ {typ!r}", forge.headed(typ=typ)
    missing = {key: value for key, value in forge.header.items() if key != "typ"}
    yield "no typ", forge.signed(header=missing)
    identity = {key: forge.claims[key] for key in ("iss", "aud", "sub", "iat", "exp")}
    yield "an id token", forge.signed({**identity, "nonce": "n"}, {**forge.header, "typ": "JWT"})
    event = {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}
    yield (
        "a logout token",
        forge.signed({**forge.claims, **event}, {**forge.header, "typ": "logout+jwt"}),
    )


def forms(forge: Forge) -> Iterator[Bent]:
    """One token, one way to write it (RFC 8725 §3.7; CVE row 11)."""
    head, body, tail = forge.token.split(".")
    flat = {"protected": head, "payload": body, "signature": tail}
    general = {"payload": body, "signatures": [{"protected": head, "signature": tail}]}
    for serialised in (flat, general, {**flat, "header": {"kid": forge.key.kid}}):
        yield "JSON serialisation", json.dumps(serialised)
        yield "JSON serialisation, encoded", b64(serialised)
        yield "JSON serialisation in a segment", f"{b64(serialised)}.{body}.{tail}"
    yield "JSON and compact", f'{{"protected":"{head}.{body}.{tail}"}}'
    yield "JSON in the header", f'  {{"{head}":"{body}.{tail}"}}'
    for name, text in (
        ("braces", f"{{{forge.token}}}"),
        ("quotes", f'"{forge.token}"'),
        ("a list", f"[{forge.token}]"),
        ("an angle", f"<{forge.token}>"),
        ("nothing before", f".{forge.token}"),
        ("nothing after", f"{forge.token}."),
        ("two dots", forge.token.replace(".", "..", 1)),
        ("no dots", forge.token.replace(".", "")),
        ("no payload", f"{head}..{tail}"),
        ("no header", f".{body}.{tail}"),
        ("no signature", f"{head}.{body}."),
        ("two segments", f"{head}.{body}"),
        ("a comma", forge.token + ","),
        ("it twice", f"{forge.token}, {forge.token}"),
        ("a semicolon", forge.token + ";x"),
        ("nested", forge.signed(forge.token)),
        ("nested as text", forge.signed(json.dumps(forge.token))),
    ):
        yield name, text
    for place, name in ((0, "header"), (1, "payload"), (2, "signature")):
        parts = [head, body, tail]
        for odd in ("=", "==", "+", "/", "%3D", "~", "!", "A", "é"):
            bent = [*parts]
            bent[place] += odd
            yield f"{odd} after the {name}", ".".join(bent).encode()
        for odd in (" ", "\t", "\x0b", "\x0c", "\xa0", "\x00", "\x7f"):
            for at in (0, 5, len(parts[place])):
                bent = [*parts]
                bent[place] = bent[place][:at] + odd + bent[place][at:]
                text = ".".join(bent)
                # Around a field's value blanks mean nothing (RFC 9110 §5.5).
                if text.strip(" \t") == text:
                    yield f"{odd!r} in the {name}", text.encode("latin-1")
        for text in _not_canonical(parts[place]):
            bent = [*parts]
            bent[place] = text
            yield f"the same octets otherwise in the {name}", ".".join(bent)
    for alien in ("\u2024", "\u3002", "\uff0e"):  # look like dots
        yield "another dot", forge.token.replace(".", alien).encode()
    yield "full-width letters", "".join(chr(ord(each) + 0xFEE0) for each in forge.token).encode()
    yield "not UTF-8", b"\xff\xfe" + forge.token.encode()


def _not_canonical(segment: str) -> Iterator[str]:
    """Other last letters that decoders who do not look give the same octets for."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for letter in letters:
        other = segment[:-1] + letter
        if other != segment and unb64(other) == unb64(segment):
            yield other


def odd_json(forge: Forge) -> Iterator[Bent]:
    """JSON that two readers may read differently, or that hurts one."""
    text = json.dumps(forge.claims, separators=(",", ":"))
    head = json.dumps(forge.header, separators=(",", ":"))
    session = forge.claims["sid"]
    for name, bent in (
        ("sub twice", f'{{"sub":"x",{text[1:]}'),
        ("sub twice, once escaped", f'{{"\\u0073ub":"x",{text[1:]}'),
        ("exp twice", f'{text[:-1]},"exp":{forge.now + 9999}}}'),
        ("a name twice, deep inside", f'{text[:-1]},"x":{{"a":1,"a":2}}}}'),
        ("a byte order mark", "\ufeff" + text),
        ("something after", text + "x"),
        ("a second object", text + text),
        ("a comment", f"{text[:-1]}/**/}}"),
        ("a trailing comma", f"{text[:-1]},}}"),
        ("single quotes", text.replace('"', "'")),
        ("a list", f"[{text}]"),
        ("a text", json.dumps(text)),
        ("a number", "1"),
        ("null", "null"),
        ("nothing", " "),
        ("an empty object", "{}"),
        ("NaN somewhere", f'{text[:-1]},"x":NaN}}'),
        ("1e999 somewhere", f'{text[:-1]},"x":1e999}}'),
        ("a raw control character", text.replace(session, "a\nb")),
        ("nested too deeply", f'{text[:-1]},"x":{"[" * 1000}{"]" * 1000}}}'),
        ("cut nesting", f'{text[:-1]},"x":{"[" * 2000}'),
        ("nested objects", f'{text[:-1]},"x":{"{" + chr(34) + "a" + chr(34) + ":"}'),
    ):
        yield f"claims: {name}", forge.signed(bent)
    yield "claims: not UTF-8", forge.signed(text.encode()[:-1] + b',"x":"\xff"}')
    yield "claims: UTF-16", forge.signed(text.encode("utf-16"))
    yield "claims: overlong UTF-8", forge.signed(text.encode()[:-1] + b',"x":"\xc0\xaf"}')
    yield "claims: raw surrogates", forge.signed(text.encode()[:-1] + b',"x":"\xed\xa0\x80"}')
    for name, bent in (
        ("alg twice", f'{{"alg":"none",{head[1:]}'),
        ("alg twice, the other way", f'{head[:-1]},"alg":"none"}}'),
        ("kid twice, once escaped", f'{{"\\u006bid":"x",{head[1:]}'),
        ("a list", f"[{head}]"),
        ("a text", json.dumps(head)),
        ("nothing", " "),
        ("something after", head + "x"),
        ("a byte order mark", "\ufeff" + head),
        ("nested too deeply", "[" * 2000),
    ):
        yield f"header: {name}", forge.signed(header=bent)


def encrypted(forge: Forge) -> Iterator[Bent]:
    """Five segments: we read none of it, so nothing is derived and nothing inflated."""
    for header in (
        {"alg": "dir", "enc": "A256GCM"},
        {"alg": "dir", "enc": "A256GCM", "zip": "DEF"},
        {"alg": "RSA1_5", "enc": "A128CBC-HS256"},
        {"alg": "ECDH-ES", "enc": "A256GCM", "epk": {"kty": "EC", "crv": "P-256"}},
        {"alg": "PBES2-HS256+A128KW", "enc": "A256GCM", "p2c": 2**31 - 1, "p2s": "c2FsdA"},
        {**forge.header, "enc": "A256GCM", "cty": "JWT"},
    ):
        for middle in ("", b64(b"k" * 32)):
            parts = [b64(header), middle, b64(b"i" * 12), b64(b"c" * 64), b64(b"t" * 16)]
            yield f"encrypted with {header['alg']}", ".".join(parts)
            yield "encrypted, without a tag", ".".join(parts[:4])
            yield "encrypted, three segments of it", ".".join([parts[0], parts[3], parts[4]])
    yield "five segments of ours", f"{forge.token}.{forge.token.partition('.')[2]}"


def oversize(_: Forge) -> Iterator[Bent]:
    """Too long to be ours."""
    yield "10 MB of letters", "x" * 10_000_000
    yield "10 MB of segments", "a." * 5_000_000
    yield "three long segments", f"{'A' * 3_000_000}.{'B' * 3_000_000}.{'C' * 3_000_000}"
    yield "one letter too many", f"{'A' * 4000}.{'B' * 90}.{'C' * 10}"
    yield "a prefix of ours, and 10 MB", "wwr_" + "x" * 10_000_000
    yield "JSON of 5 MB", "{" * 5_000_000
    yield "10 MB of octets", b"\xff" * 10_000_000
    yield "10 MB of blanks", b"x" + b" " * 10_000_000 + b"x"


def headers_of(token: str | bytes) -> list[tuple[bytes, bytes]]:
    """Authorization as it goes over the wire, whatever is in the token."""
    octets = token.encode("utf-8", "surrogatepass") if isinstance(token, str) else token
    return [(b"Authorization", b"Bearer " + octets)]


async def answered(story: Story, token: str | bytes) -> httpx.Response:
    """GET /auth/me with it."""
    return await story.client.get("/auth/me", headers=headers_of(token))

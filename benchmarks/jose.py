"""Which JOSE library verifies our tokens fastest, on the whole way from text to judged claims.

    python -m benchmarks jose [--rounds 30] [--json FILE]

Rounds are interleaved, so that a busy moment of the machine hits all alike; medians and the
middle half are printed. authlib and jwcrypto are measured where they can be imported.
"""

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_private_key
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from watchword.crypto import jose, signatures

ISSUER = "https://auth.example.com"
ALGORITHMS: tuple[jose.Algorithm, ...] = ("HS256", "EdDSA", "RS256", "ES256")
REQUIRED = list(jose.USER_TOKEN)
Contender = Callable[[], object]


def claims() -> dict[str, object]:
    now = int(time.time())
    return {
        "iss": ISSUER,
        "aud": ISSUER,
        "sub": "01k2m3n4p5q6r7s8t9v0wxyzab",
        "client_id": "watchword",
        "sid": "01k2m3n4p5q6r7s8t9v0wxyzac",
        "jti": "01k2m3n4p5q6r7s8t9v0wxyzad",
        "iat": now,
        "exp": now + 86400,
        "scope": "posts:read posts:write",
    }


def contenders(algorithm: jose.Algorithm) -> dict[str, Contender]:
    """Each with its key parsed beforehand, told the algorithm, issuer and audience."""
    key = signatures.SigningKey.generate(algorithm)
    token = jose.sign(claims(), key=key, typ="at+jwt")
    data = key.private_bytes()
    native = data if algorithm == "HS256" else load_der_private_key(data, password=None)
    public: Any = native if isinstance(native, bytes) else native.public_key()
    ring = {key.kid: key}
    now = datetime.now(UTC)

    def ours() -> object:
        found = jose.verify(token, keys=ring.get, typ="at+jwt")
        jose.check_claims(
            found, issuer=ISSUER, audience=ISSUER, now=now, leeway=timedelta(seconds=10)
        )
        return found

    def pyjwt() -> object:
        return jwt.decode(
            token,
            public,
            algorithms=[algorithm],
            audience=ISSUER,
            issuer=ISSUER,
            options={"require": REQUIRED},
        )

    joserfc_kind = {"HS256": OctKey, "EdDSA": OKPKey, "RS256": RSAKey, "ES256": ECKey}[algorithm]
    joserfc_key: Any = joserfc_kind.import_key(public)
    registry = joserfc_jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": ISSUER},
        aud={"essential": True, "value": ISSUER},
        exp={"essential": True},
        **{name: {"essential": True} for name in REQUIRED if name not in {"iss", "aud", "exp"}},
    )

    def joserfc() -> object:
        decoded = joserfc_jwt.decode(token, joserfc_key, algorithms=[algorithm])
        registry.validate(decoded.claims)
        return decoded.claims

    found: dict[str, Contender] = {
        "signature alone": signature_alone(algorithm, key, public, token),
        "watchword": ours,
        "joserfc": joserfc,
        "PyJWT": pyjwt,
    }
    if find_spec("authlib"):
        found["authlib"] = authlib(algorithm, public, token)
    if find_spec("jwcrypto"):
        found["jwcrypto"] = jwcrypto(algorithm, key, token)
    return found


def signature_alone(
    algorithm: jose.Algorithm, key: signatures.SigningKey, public: Any, token: str
) -> Contender:
    """What none can undercut: the bare operation of `cryptography` (of hmac for HS256)."""
    text, _, last = token.rpartition(".")
    message, signature = text.encode(), jwt.utils.base64url_decode(last)
    if algorithm == "RS256":
        return lambda: public.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
    if algorithm == "EdDSA":
        return lambda: public.verify(signature, message)
    if algorithm == "HS256":
        return lambda: key.signed(message, signature)
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
    der = encode_dss_signature(r, s)
    return lambda: public.verify(der, message, ec.ECDSA(hashes.SHA256()))


def authlib(algorithm: jose.Algorithm, public: Any, token: str) -> Contender:
    from authlib.jose import JsonWebKey, JsonWebToken  # noqa: PLC0415  a peer that may be missing

    kty = {"HS256": "oct", "EdDSA": "OKP", "RS256": "RSA", "ES256": "EC"}[algorithm]
    peer_key = JsonWebKey.import_key(public, {"kty": kty})
    reader = JsonWebToken([algorithm])
    options: dict[str, dict[str, object]] = {name: {"essential": True} for name in REQUIRED}
    options["iss"]["value"] = options["aud"]["value"] = ISSUER

    def run() -> object:
        found = reader.decode(token, peer_key, claims_options=options)
        found.validate()
        return found

    return run


def jwcrypto(algorithm: jose.Algorithm, key: signatures.SigningKey, token: str) -> Contender:
    from jwcrypto.jwk import JWK  # noqa: PLC0415  a peer that may be missing
    from jwcrypto.jwt import JWT  # noqa: PLC0415

    described = key.public_jwk()
    if described is None:
        octets = jwt.utils.base64url_encode(key.private_bytes()).decode()
        described = {"kty": "oct", "k": octets}
    peer_key = JWK(**described)
    wanted = dict.fromkeys(REQUIRED) | {"iss": ISSUER, "aud": ISSUER}

    def run() -> object:
        found = JWT(jwt=token, key=peer_key, algs=[algorithm], check_claims=wanted)
        return json.loads(found.claims)

    return run


def measured(*, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Microseconds of CPU a token, by algorithm and contender."""
    result: dict[str, dict[str, dict[str, float]]] = {}
    for algorithm in ALGORITHMS:
        entrants = contenders(algorithm)
        samples: dict[str, list[float]] = {name: [] for name in entrants}
        for run in entrants.values():
            for _ in range(50):
                run()
        for _ in range(rounds):
            for name, run in entrants.items():
                began = time.process_time()
                for _ in range(200):
                    run()
                samples[name].append((time.process_time() - began) / 200 * 1e6)
        result[algorithm] = {
            name: {
                "median": median(times),
                "q1": quantiles(times, n=4)[0],
                "q3": quantiles(times, n=4)[2],
            }
            for name, times in samples.items()
        }
    return result


def import_times(*, rounds: int = 7) -> dict[str, float]:
    """Milliseconds that an import adds to an interpreter with `cryptography` in it."""
    base = "import cryptography.hazmat.primitives.serialization"
    lines = {"nothing": base, "joserfc": f"{base}, joserfc.jwt", "PyJWT": f"{base}, jwt"}
    for name, module in (("authlib", "authlib.jose"), ("jwcrypto", "jwcrypto.jwt")):
        if find_spec(name):
            lines[name] = f"{base}, {module}"
    samples: dict[str, list[float]] = {name: [] for name in lines}
    for _ in range(rounds):
        for name, line in lines.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-W", "ignore", "-c", line], check=True)
            samples[name].append((time.perf_counter() - began) * 1e3)
    floor = median(samples["nothing"])
    return {name: median(times) - floor for name, times in samples.items() if name != "nothing"}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks jose", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="of 200 tokens each")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # of peers, about EdDSA's name and about one another
    libraries = [
        f"{name} {version(name)}"
        for name in ("cryptography", "joserfc", "pyjwt", "authlib", "jwcrypto")
        if find_spec("jwt" if name == "pyjwt" else name)
    ]
    print(", ".join(libraries))
    result = measured(rounds=given.rounds)
    names = list(result[ALGORITHMS[0]])
    print("\nCPU microseconds a token verified, median (middle half)\n")
    print(f"{'':16}" + "".join(f"{algorithm:>20}" for algorithm in ALGORITHMS))
    for name in names:
        cells = [result[algorithm][name] for algorithm in ALGORITHMS]
        texts = [f"{c['median']:.1f} ({c['q1']:.0f}-{c['q3']:.0f})" for c in cells]
        print(f"{name:16}" + "".join(f"{text:>20}" for text in texts))
    imports = import_times()
    print("\nimport, ms beyond cryptography: ", end="")
    print(", ".join(f"{name} {ms:.0f}" for name, ms in imports.items()))
    if given.json:
        report = {"libraries": libraries, "verify_us": result, "import_ms": imports}
        given.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""What examples/under_attack.sh does: attack a server of its own and say what got through."""

import base64
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # it may be run from anywhere

from server import Answer, Server  # the file beside this one

ADA, BOB = "ada@example.com", "bob@example.com"  # Bob attacks, where an account is of use
PASSWORD = "seven quiet herons over the weir"
WRONG = "eight noisy herons over the weir"
OWN = "198.51.100.7"  # where Ada lives
CROWD = int(os.environ.get("CROWD", "1000"))
POOL = ThreadPoolExecutor(24)


@dataclass(frozen=True)
class Outcome:
    """One line of the table."""

    attack: str
    tried: int
    looked: int | None  # how often a password was looked at
    through: int
    note: str


def host(first: str, number: int) -> str:
    return str(IPv4Address(int(IPv4Address(first)) + number))


def login(server: Server, email: str, password: str, of: str, **headers: str) -> Answer:
    body = {"email": email, "password": password, "transport": "cookie"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.ask("POST", "/auth/login", of=of, body=body, headers=named)


def all_of(calls: Iterable[Callable[[], Answer]]) -> list[Answer]:
    return [each.result() for each in [POOL.submit(call) for call in calls]]


def passed(answers: Iterable[Answer]) -> int:
    return sum(answer.status == 200 for answer in answers)


def looked(answers: Iterable[Answer]) -> int:
    return sum(answer.status in {200, 401} for answer in answers)


def stuffing(server: Server) -> Outcome:
    """A stolen list, with the right password of Bob in it, from one address."""
    people = [f"user{number}@example.com" for number in range(CROWD - 1)]
    head, tail = people[: CROWD // 2], people[CROWD // 2 :]
    listed = [(email, WRONG) for email in head] + [(BOB, PASSWORD)]
    listed += [(email, WRONG) for email in tail]
    answers = all_of(
        lambda email=email, password=password: login(server, email, password, "203.0.113.1")
        for email, password in listed
    )
    return Outcome(
        f"{CROWD} accounts from one address",
        len(answers),
        looked(answers),
        passed(answers) + max(0, looked(answers) - 20),
        f"20 in 5 minutes; the right password was number {CROWD // 2 + 1}",
    )


def crowd(server: Server, device: str) -> tuple[Outcome, Outcome]:
    """A crowd guesses at Ada's password, and has it at last."""
    answers = all_of(
        lambda number=number: login(server, ADA, WRONG, host("10.20.0.1", number))
        for number in range(CROWD)
    )
    late = login(server, ADA, PASSWORD, "10.30.0.1")
    own = login(server, ADA, PASSWORD, OWN, Cookie=device)
    guesses = Outcome(
        f"one account from {CROWD} addresses",
        len(answers) + 1,
        looked(answers),
        passed([*answers, late]) + max(0, looked(answers) - 50),
        "50 an hour; then even the right password waits",
    )
    weapon = Outcome(
        "… to lock its owner out",
        1,
        None,
        int(own.status != 200),
        "her own device signs in all the same",
    )
    return guesses, weapon


def at_once(server: Server, tries: int = 50) -> Outcome:
    answers = all_of([lambda: login(server, BOB, WRONG, "203.0.113.2")] * tries)
    return Outcome(
        f"{tries} guesses at the same moment",
        len(answers),
        looked(answers),
        passed(answers) + max(0, looked(answers) - 5),
        "counted before anybody looks",
    )


def forged_addresses(server: Server) -> Outcome:
    def forged(number: int) -> Answer:
        lie = host("10.40.0.1", number)
        headers = {"Forwarded": f"for={lie}", "X_Real_IP": lie, "CF_Connecting_IP": lie}
        # As a proxy passes it on: what the client wrote, then where the client is.
        return login(
            server, f"someone{number}@example.com", WRONG, f"{lie}, 203.0.113.3", **headers
        )

    answers = all_of(lambda number=number: forged(number) for number in range(200))
    return Outcome(
        "200 made-up addresses",
        len(answers),
        looked(answers),
        max(0, looked(answers) - 20),
        "only what the proxy says counts",
    )


def enumeration(server: Server) -> Outcome:
    """Does any answer differ between Bob, and somebody who is nobody?"""
    routes = (
        ("/auth/login", lambda email: {"email": email, "password": WRONG}),
        ("/auth/register", lambda email: {"email": email, "password": WRONG}),
        ("/auth/password-reset-request", lambda email: {"email": email}),
        ("/auth/verify-email-request", lambda email: {"email": email}),
    )
    tried = told = 0
    times: tuple[list[float], list[float]] = ([], [])
    for place, (path, body) in enumerate(routes):
        for number in range(10 if place == 0 else 3):
            seen: list[object] = []
            for turn, email in enumerate((BOB, f"nobody{place}-{number}@example.com")):
                of = host("10.50.0.1", 1000 * place + 2 * number + turn)
                began = time.perf_counter()
                seen.append(server.ask("POST", path, of=of, body=body(email)).lasting)
                if place == 0:
                    times[turn].append(time.perf_counter() - began)
                tried += 1
            told += seen[0] != seen[1]
    one, other = (statistics.median(each) * 1000 for each in times)
    return Outcome(
        "who has an account?",
        tried,
        None,
        told,
        f"the same answers; median {one:.0f} and {other:.0f} ms",
    )


def log_lines(server: Server) -> Outcome:
    texts = (
        "a\r\nINFO:     signed in root@example.com",
        "b\nINFO:     forged",
        "\x1b[31mred",
        "c\x00d",
    )
    for number, text in enumerate(texts):
        server.ask(
            "POST",
            "/auth/login",
            of=host("10.60.0.1", number),
            body={"email": f"{text}@example.com", "password": text},
            headers={"User-Agent": text.encode("unicode-escape").decode(), "X-Request-ID": "x y"},
        )
        server.raw(
            b"GET /auth/me HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nUser-Agent: "
            + text.replace("\n", "\x85").replace("\r", "").encode("latin-1")
            + b"\r\n\r\n"
        )
    lines = server.log.splitlines()
    bad = [line for line in lines if "signed in root" in line or "forged" in line or "\x1b" in line]
    return Outcome("lines forged in the log", 2 * len(texts), None, len(bad), "")


def too_much(server: Server) -> Outcome:
    def post(body: bytes, kind: bytes = b"application/json", more: bytes = b"") -> bytes:
        return (
            b"POST /auth/login HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: "
            + kind
            + b"\r\nSec-Fetch-Site: same-origin\r\nContent-Length: "
            + str(len(body)).encode()
            + b"\r\n"
            + more
            + b"\r\n"
            + body
        )

    form = b"application/x-www-form-urlencoded"
    pieces = (
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        post(b"{}", more=b"X-Long: " + b"a" * 200_000 + b"\r\n"),
        post(b"{}", more=b"".join(b"X-%d: a\r\n" % n for n in range(5000))),
        post(b"{}", more=b"Cookie: " + b"a=b; " * 10_000 + b"\r\n"),
        post(b'{"email":"' + b"a" * 20_000_000 + b'"}'),
        post(b'{"email":' + b"[" * 30_000 + b"]" * 30_000 + b"}"),
        post(b'{"email":' + b"9" * 60_000 + b"}"),
        post(b"&".join(b"f%d=a" % n for n in range(7000)), form),
        post(b"username=a&password=b&scope=" + b"a+" * 30_000, form),
        post(b"--x\r\n" * 12_000, b"multipart/form-data; boundary=x"),
        b"\x16\x03\x01" + b"\x00" * 1000,
    )
    answers = [server.raw(piece) for piece in pieces]
    broken = sum(not (answer.status == 0 or 400 <= answer.status < 500) for answer in answers)
    broken += "Traceback" in server.log or server.ask("GET", "/readyz").status != 200
    return Outcome("too much of everything", len(pieces), None, broken, "4xx, or hung up on")


def slow_bodies(server: Server) -> Outcome:
    held = [server.connect() for _ in range(100)]
    for connection in held:
        connection.sendall(
            b"POST /auth/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\n\r\n{"
        )
    began = time.perf_counter()
    answer = login(server, "someone@example.com", WRONG, "192.0.2.77")
    waited = time.perf_counter() - began
    kept = 0
    for connection in held:
        connection.settimeout(30)
        try:
            connection.recv(65536)
        except TimeoutError:
            kept += 1
        except OSError:
            pass
        connection.close()
    return Outcome(
        "100 bodies that never end",
        len(held),
        None,
        kept + int(answer.status != 401),
        f"others waited {waited * 1000:.0f} ms meanwhile",
    )


def other_sites(server: Server, session: str) -> Outcome:
    """Forms of a site that Ada visits: her cookie comes along."""
    tried = done = 0
    signs = (
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    )
    sent = (
        ("application/x-www-form-urlencoded", f"username={BOB}&password={PASSWORD}&csrf_token=x"),
        ("text/plain", json.dumps({"email": BOB, "password": PASSWORD, "x": "="})),
        ("multipart/form-data; boundary=x", "--x--\r\n"),
    )
    paths = (
        "login",
        "register",
        "logout",
        "logout-all",
        "password/change",
        "email/change",
        "refresh",
    )
    for sign in signs:
        for kind, body in sent:
            for path in paths:
                headers = {**sign, "Content-Type": kind, "Cookie": session}
                of = host("10.70.0.1", tried)
                answer = server.ask("POST", f"/auth/{path}", of=of, body=body, headers=headers)
                tried += 1
                done += answer.status < 400 or answer.status >= 500 or bool(answer.cookies)
    still = server.ask("GET", "/auth/me", of=OWN, headers={"Cookie": session})
    return Outcome("forms of other sites", tried, None, done + int(still.status != 200), "")


def every_get(server: Server, session: str) -> Outcome:
    openapi = server.ask("GET", "/openapi.json").json
    before = server.rows()
    tried = 0
    for path, operations in openapi["paths"].items():
        for method in ("GET", "HEAD") if "get" in operations else ("GET",):
            for query in ("", "?token=x&_method=DELETE"):
                filled = path.replace("{", "0").replace("}", "0") + query
                server.ask(method, filled, of=OWN, headers={"Cookie": session})
                tried += 1
    after = server.rows()
    changed = [name for name in after if before.get(name) != after[name]]
    return Outcome("every GET, for what it changes", tried, None, len(changed), " ".join(changed))


def forged_tokens(server: Server) -> Outcome:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    key = server.ask("GET", "/.well-known/jwks.json").json["keys"][0]
    now = int(time.time())
    issuer = f"http://{server.address}"
    claims = part({"iss": issuer, "aud": issuer, "sub": "0" * 26, "exp": now + 900, "iat": now})
    heads = (
        {"alg": "none", "typ": "at+jwt"},
        {"alg": "HS256", "typ": "at+jwt", "kid": key["kid"]},
        {"alg": key["alg"], "typ": "at+jwt", "kid": key["kid"]},
        {"alg": key["alg"], "typ": "at+jwt", "jwk": key},
        {"alg": key["alg"], "typ": "at+jwt", "kid": "../../etc/passwd"},
    )
    tokens = [f"{part(each)}.{claims}.{signed}" for each in heads for signed in ("", "A" * 86)]
    tokens += ["wwc_" + "A" * 43, "wwk_" + "A" * 43, "null", "Bearer", "." * 1000]
    answers = [
        server.ask("GET", "/auth/me", headers={"Authorization": f"Bearer {token}"})
        for token in tokens
    ]
    wrong = sum(answer.status != 401 for answer in answers)
    return Outcome("tokens and keys made up", len(tokens), None, wrong, "")


def attack(server: Server) -> list[Outcome]:
    for email in (ADA, BOB):
        said = server.command("users", "create", email, "--password-stdin", stdin=f"{PASSWORD}\n")
        if email not in said:
            raise SystemExit(f"{email} could not be made:\n{said}")
    entered = login(server, ADA, PASSWORD, OWN)
    if entered.status != 200:
        raise SystemExit(f"Ada cannot sign in: {entered}")
    session = "; ".join(cookie.partition(";")[0] for cookie in entered.cookies)
    device = next(each.partition(";")[0] for each in entered.cookies if "device=" in each)
    return [
        forged_tokens(server),
        enumeration(server),
        other_sites(server, session),
        every_get(server, session),
        at_once(server),
        stuffing(server),
        *crowd(server, device),
        forged_addresses(server),
        log_lines(server),
        too_much(server),
        slow_bodies(server),
    ]


def say(line: str = "") -> None:
    sys.stdout.write(f"{line}\n")


def show(outcomes: list[Outcome]) -> None:
    say(f"{'tried':<34}{'times':>6}{'looked at':>11}{'got through':>13}   ")
    for each in outcomes:
        count = "" if each.looked is None else f"{each.looked}"
        line = f"{each.attack:<34}{each.tried:>6}{count:>11}{each.through:>13}   {each.note}"
        say(line.rstrip())


def main() -> int:
    server = Server(Path(sys.argv[1]))
    began = time.monotonic()
    server.start()
    try:
        outcomes = attack(server)
        show(outcomes)
        say("\nWhat the audit says (watchword audit summary):")
        say(server.command("audit", "summary"))
        say("watchword audit verify:")
        say(server.command("audit", "verify"))
    finally:
        server.stop()
    through = sum(each.through for each in outcomes)
    tried = sum(each.tried for each in outcomes)
    say(f"{tried} tried, {through or 'nothing'} got through, {time.monotonic() - began:.0f} s")
    return int(through > 0)


if __name__ == "__main__":
    sys.exit(main())

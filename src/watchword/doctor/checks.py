"""What the doctor looks at in the settings, one function each.

Rows are those of our checklists (S…) and of OWASP ASVS 5.0. A setting that is refused at the
start needs no check of its own: its fault is a line, under the check that looks at it.
"""

from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_network
from typing import Final
from urllib.parse import urlsplit

from watchword.crypto.keys import secret_fault
from watchword.doctor.lines import (
    Check,
    Configuration,
    Finding,
    Judge,
    fail,
    ok,
    warn,
)
from watchword.doctor.source import hard_coded
from watchword.kernel.settings import format_duration

CHECKS: list[Check] = []

_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_WIDEST: Final = {4: 8, 6: 16}  # a trusted network with a shorter prefix is the world


def _looks_at(name: str, *settings: str, rows: tuple[str, ...]) -> Callable[[Judge], Judge]:
    def added(judge: Judge) -> Judge:
        CHECKS.append(Check(name=name, rows=rows, settings=settings, judge=judge))
        return judge

    return added


# Secrets


@_looks_at("environment", "environment", rows=("ASVS 13.4.2",))
def _environment(c: Configuration) -> Finding:
    if c.is_production:
        return ok("production")
    return warn(
        "development",
        why="weak secrets and plain http are let through; these grades are for production",
        setting="environment",
        remedy="production",
    )


@_looks_at("secret", "secret", rows=("S0-116", "S0-117", "S1-45", "ASVS 11.5.1"))
def _secret(c: Configuration) -> Finding:
    if c.keeps_secret:
        return ok("made by `watchword serve`, kept in its folder")
    secret = c.core.secret
    if secret is not None and secret_fault(secret, development=False) is not None:
        return warn(
            "not made by Watchword",
            why="what people make up is guessed; production refuses it",
            setting="secret",
            remedy="what `watchword secret generate` prints",
        )
    return ok("strong" if secret is not None else "generated and kept")


@_looks_at("old secrets", "old_secrets", rows=("ASVS 11.2.2",))
def _old_secrets(c: Configuration) -> Finding:
    count = len(c.core.old_secrets)
    if count == 0:
        return ok("none")
    return warn(
        f"{count} still accepted",
        why="whoever has one can sign and open as before",
        setting="old_secrets",
        remedy="empty, once `watchword secret reseal` is done and what they signed has expired",
    )


@_looks_at("secrets in code", rows=("S1-45", "S4-02", "ASVS 13.3.1"))
def _in_code(c: Configuration) -> Finding:
    found = hard_coded(c)
    if found is not None:
        key, place = found
        return fail(
            f"{key} stands in {place}",
            why="whoever reads the code, or its history, has it",
            setting=key,
            remedy="a new one, from the environment or a file",
        )
    kept = [each.key for each in c.report if each.value == "***" and each.source.endswith(".toml")]
    if kept:
        return warn(
            f"{', '.join(kept)} in watchword.toml",
            why="such files are committed with the code",
            setting=kept[0],
            remedy="the environment, or a file of its own that the _FILE variable names",
        )
    return ok("none found")


@_looks_at(
    "signing",
    *("keys.algorithm", "keys.secret", "keys.private_key", "keys.old_secrets"),
    rows=("S0-117", "S4-02", "ASVS 9.1.2", "ASVS 11.2.3"),
)
def _signing(c: Configuration) -> Finding | None:
    if not c.has("keys"):
        return None
    if c.of("keys", "secret") is not None or c.of("keys", "algorithm") == "HS256":
        return warn(
            "HS256, one shared secret",
            why="whoever can verify a token can forge one",
            setting="keys.secret" if c.of("keys", "secret") else "keys.algorithm",
            remedy="nothing: ES256 with keys of our own is the default",
        )
    return ok("with private keys")


@_looks_at("key rotation", "keys.rotate_every", rows=("ASVS 11.1.1",))
def _rotation(c: Configuration) -> Finding | None:
    if not c.has("keys") or c.of("keys", "private_key") or c.of("keys", "secret"):
        return None
    every: timedelta = c.of("keys", "rotate_every", timedelta(0))
    if every == timedelta(0):
        return warn(
            "by hand only",
            why="a key that leaked unseen is believed for ever",
            setting="keys.rotate_every",
            remedy="30d",
        )
    return ok(f"every {format_duration(every)}")


# Transport


@_looks_at("public URL", "public_url", rows=("S0-116", "S0-117", "ASVS 12.2.1"))
def _public_url(c: Configuration) -> Finding:
    parts = urlsplit(c.public_url)
    if parts.scheme == "https":
        return ok(c.public_url)
    host = parts.hostname or ""
    if host in ("localhost", "127.0.0.1", "::1") or host.endswith(".localhost"):
        if not c.is_production or c.core.public_url is not None:
            return ok(f"{c.public_url}, this machine only")
        return warn(
            "not set",
            why="only this machine can be served",
            setting="public_url",
            remedy="the https address that people reach this at",
        )
    return fail(
        c.public_url,
        why="passwords and cookies cross the network readable",
        setting="public_url",
        remedy="an https address",
    )


@_looks_at("https", "require_https", "hsts.enabled", rows=("S0-82", "S0-118", "ASVS 3.4.1"))
def _https(c: Configuration) -> Finding | None:
    if not c.public_url.startswith("https:"):
        return None
    if c.is_production and c.core.require_https is False:
        return warn(
            "plain http is answered too",
            why="who comes by http once can be kept there",
            setting="require_https",
            remedy="nothing, or true",
        )
    if not c.of("hsts", "enabled", default=True) or c.of("hsts", "max_age") == timedelta(0):
        return warn(
            "no Strict-Transport-Security",
            why="the first request of each visit may go by http",
            setting="hsts.enabled",
            remedy="true",
        )
    return ok("required, and browsers are told")


@_looks_at("headers", "headers.enabled", rows=("S0-118", "ASVS 3.4.4"))
def _headers(c: Configuration) -> Finding | None:
    if not c.has("headers"):
        return None
    if not c.of("headers", "enabled"):
        return warn(
            "off",
            why="pages may be framed, and types guessed",
            setting="headers.enabled",
            remedy="true, unless your proxy sets them all",
        )
    return ok("on")


@_looks_at("cookies", rows=("S0-116", "S0-117", "S0-118", "ASVS 3.3.1"))
def _cookies(c: Configuration) -> Finding:
    if c.is_production or c.public_url.startswith("https:"):
        return ok("Secure, HttpOnly, __Host-")
    return warn(
        "not Secure",
        why="on plain http in development; whoever shares the network reads them",
        setting="environment",
        remedy="production",
    )


@_looks_at("CSRF", "csrf.enabled", "csrf.exempt", rows=("S0-118", "S4-44", "ASVS 3.5.1"))
def _csrf(c: Configuration) -> Finding:
    if not c.of("csrf", "enabled", default=True):
        return warn(
            "off",
            why="a request by cookie that names no origin is believed",
            setting="csrf.enabled",
            remedy="true",
        )
    exempt: tuple[str, ...] = c.of("csrf", "exempt", ())
    wide = [pattern for pattern in exempt if "**" in pattern]
    if wide:
        return warn(
            f"{', '.join(wide)} exempt",
            why="every route below, and those to come, take requests of other sites",
            setting="csrf.exempt",
            remedy="the paths themselves",
        )
    return ok(f"on, {len(exempt)} paths exempt" if exempt else "on")


@_looks_at("CORS", "cors", "cors.allow_origins", "cors.allow_credentials", rows=("ASVS 3.4.2",))
def _cors(c: Configuration) -> Finding:
    if not c.of("cors", "enabled", default=False):
        return ok("no other origin reads answers")
    origins: tuple[str, ...] = c.of("cors", "allow_origins", ())
    if "*" in origins and c.of("cors", "allow_credentials", default=False):
        return fail(
            "every origin, with credentials",
            why="every site reads what belongs to whoever is signed in",
            setting="cors.allow_origins",
            remedy="the origins of your own pages",
        )
    if "*" in origins:
        return warn(
            "every origin",
            why="every site reads what needs no cookie",
            setting="cors.allow_origins",
            remedy="the origins of your own pages",
        )
    plain = [origin for origin in origins if origin.startswith("http:")]
    if plain and c.is_production:
        return warn(
            f"{', '.join(plain)} by plain http",
            why="whoever sits between can write that page",
            setting="cors.allow_origins",
            remedy="https origins",
        )
    return ok(f"{len(origins)} origins named")


@_looks_at("hosts", "allowed_hosts", "dev_hosts", rows=("ASVS 4.1.3",))
def _hosts(c: Configuration) -> Finding:
    for name in ("allowed_hosts", "dev_hosts"):
        if "*" in getattr(c.core, name, ()):
            return warn(
                "any Host is answered",
                why="a page of somebody else's name may reach this server through DNS",
                setting=name,
                remedy="the names that people use",
            )
    return ok("named")


@_looks_at("proxies", "trusted_proxies", rows=("S0-86", "ASVS 4.1.3"))
def _proxies(c: Configuration) -> Finding:
    for text in c.core.trusted_proxies:
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            continue  # `unix`, or a fault that the start names
        if network.prefixlen == 0:
            return fail(
                f"{text} is everybody",
                why="whoever comes writes the address that limits count",
                setting="trusted_proxies",
                remedy="the networks of your own proxies",
            )
        if network.prefixlen < _WIDEST[network.version]:
            return warn(
                f"{text} is very many",
                why="each of them writes the address that limits count",
                setting="trusted_proxies",
                remedy="the networks of your own proxies",
            )
    binding = c.of("binding", "address", "off")
    if binding != "off" and not c.core.trusted_proxies:
        return warn(
            "sessions are bound to an address, and no proxy is named",
            why="behind a proxy, or a Unix socket, all clients have one address",
            setting="trusted_proxies",
            remedy="your proxy; nothing, if there is none",
        )
    count = len(c.core.trusted_proxies)
    return ok(f"{count} believed" if count else "none believed")


# Tokens and sessions


@_looks_at(
    "access token life",
    "tokens.access_ttl",
    rows=("S0-117", "S1-35", "S4-33", "S4-44", "ASVS 9.2.1"),
)
def _access(c: Configuration) -> Finding | None:
    if not c.has("tokens"):
        return None
    life: timedelta = c.of("tokens", "access_ttl")
    said = format_duration(life)
    why = "who verifies it elsewhere believes a stolen one for that long"
    if life > _HOUR:
        return fail(said, why=why, setting="tokens.access_ttl", remedy="15m")
    if life > 30 * _MINUTE:
        return warn(said, why=why, setting="tokens.access_ttl", remedy="15m; at most 30m")
    return ok(said)


@_looks_at(
    "refresh token life",
    *("tokens.refresh_ttl", "tokens.remember_ttl", "tokens.family_max_age"),
    rows=("S0-116", "S4-33", "S4-44", "ASVS 7.3.2"),
)
def _refresh(c: Configuration) -> Finding | None:
    if not c.has("tokens"):
        return None
    for name in ("refresh_ttl", "remember_ttl", "family_max_age"):
        life: timedelta = c.of("tokens", name)
        key, said = f"tokens.{name}", format_duration(life)
        why = "a stolen one is good for that long, if nobody notices"
        if life > 60 * _DAY:
            return fail(f"{key} is {said}", why=why, setting=key, remedy="7d to 30d")
        if life > 30 * _DAY:
            return warn(f"{key} is {said}", why=why, setting=key, remedy="7d to 30d")
    life = c.of("tokens", "refresh_ttl")
    if life < 7 * _DAY:
        return warn(
            f"tokens.refresh_ttl is {format_duration(life)}",
            why="no danger, but people sign in often, and tire of it",
            setting="tokens.refresh_ttl",
            remedy="7d to 30d",
        )
    return ok(format_duration(life))


@_looks_at("logout", "token_check", rows=("S0-116", "S0-117", "S4-44", "ASVS 7.4.1"))
def _logout(c: Configuration) -> Finding:
    if c.core.token_check == "stateless":  # noqa: S105  no password
        return warn(
            "tokens live on until they expire",
            why="signing out, a ban or a reset do not reach a token that is out",
            setting="token_check",
            remedy="cached: as fast, and it hears of all that ends",
        )
    return ok("ends tokens and cookies at once")


@_looks_at(
    "session life",
    *("sessions.idle_timeout", "sessions.absolute_timeout", "sessions.remember_absolute"),
    rows=("S0-116", "S4-44", "ASVS 7.3.1", "ASVS 7.3.2"),
)
def _sessions(c: Configuration) -> Finding | None:
    if not c.has("sessions"):
        return None
    for name, most, remedy in (
        ("idle_timeout", _HOUR, "30m; at most 1h"),
        ("absolute_timeout", _DAY, "8h; at most 24h"),
        ("remember_absolute", 30 * _DAY, "30d at most"),
    ):
        life: timedelta = c.of("sessions", name)
        if life > most:
            return warn(
                f"sessions.{name} is {format_duration(life)}",
                why="a browser that was left open is signed in for that long",
                setting=f"sessions.{name}",
                remedy=remedy,
            )
    idle, absolute = c.of("sessions", "idle_timeout"), c.of("sessions", "absolute_timeout")
    return ok(f"{format_duration(idle)} unused, {format_duration(absolute)} at most")


# Passwords


@_looks_at(
    "password policy",
    *("passwords.min_length", "passwords.max_length", "passwords.check_common"),
    rows=("S0-118", "ASVS 6.2.1", "ASVS 6.2.4"),
)
def _policy(c: Configuration) -> Finding | None:
    if not c.has("passwords"):
        return None
    least: int = c.of("passwords", "min_length")
    if least < 12:
        return warn(
            f"{least} characters are enough",
            why="short ones are guessed; ASVS asks for 15 where nothing else is asked",
            setting="passwords.min_length",
            remedy="12, or 15",
        )
    if not c.of("passwords", "check_common", default=True):
        return warn(
            "common ones are taken",
            why="they are what is tried first",
            setting="passwords.check_common",
            remedy="true",
        )
    return ok(f"{least} characters at least")


@_looks_at(
    "password hashes",
    *("passwords.hash_scheme", "passwords.argon2_memory_cost", "passwords.argon2_time_cost"),
    *("passwords.bcrypt_rounds", "passwords"),
    rows=("S0-118", "S4-44", "ASVS 11.4.2"),
)
def _hashes(c: Configuration) -> Finding | None:
    if not c.has("passwords"):
        return None
    if c.of("passwords", "hash_scheme") == "bcrypt":
        rounds: int = c.of("passwords", "bcrypt_rounds")
        if rounds < 12:
            return warn(
                f"bcrypt, {rounds} rounds",
                why="graphics cards try very many a second",
                setting="passwords.bcrypt_rounds",
                remedy="12, or argon2id",
            )
        return ok(f"bcrypt, {rounds} rounds")
    memory: int = c.of("passwords", "argon2_memory_cost")
    passes: int = c.of("passwords", "argon2_time_cost")
    # What OWASP has as equal: 46 MiB once, 19 MiB twice.
    if memory * passes < 2 * 19 * 1024:
        return warn(
            f"argon2id, {memory // 1024} MiB, {passes} passes",
            why="cheaper than what is advised",
            setting="passwords.argon2_memory_cost",
            remedy="65536",
        )
    return ok(f"argon2id, {memory // 1024} MiB, {passes} passes")


@_looks_at(
    "known addresses",
    *("verification.email_verification", "passwords.registration"),
    rows=("S4-44", "ASVS 6.3.8"),
)
def _disclosure(c: Configuration) -> Finding | None:
    if not c.has("passwords"):
        return None
    if c.of("passwords", "registration") == "closed":
        return ok("nobody signs up by themselves")
    mode = c.of("verification", "email_verification", "off")
    if mode is None:
        mode = "required" if c.is_production else "optional"
    if mode != "required":
        return warn(
            "signing up tells whether an address is known (409)",
            why="it is the one place that does",
            setting="verification.email_verification",
            remedy="required",
        )
    return ok("not told to anybody")


@_looks_at("failed sign-ins", "sign_in.login_floor", rows=("S4-44", "ASVS 6.3.8"))
def _floor(c: Configuration) -> Finding | None:
    floor = c.of("sign_in", "login_floor", c)
    if floor is c or not c.has("passwords"):
        return None
    if floor == timedelta(0):
        return warn(
            "answered as soon as they can be",
            why="how long it takes may tell who has an account",
            setting="sign_in.login_floor",
            remedy="nothing: it is measured at the start",
        )
    return ok("answered no sooner than the slowest check")


# Under attack


@_looks_at(
    "limits",
    *("limits.enabled", "limits.login", "limits.registration", "limits.failure"),
    rows=("S0-117", "S0-118", "S4-44", "ASVS 6.3.1"),
)
def _limits(c: Configuration) -> Finding | None:
    if not c.has("sign_in"):
        return None
    if not c.is_on("limits"):
        judge = warn if "limiter" in c.core.accept_missing else fail
        return judge(
            "off",
            why="passwords and codes may be tried without end",
            setting="limits.enabled",
            remedy="true",
        )
    for action in ("login", "registration"):
        if c.of("limits", action, default=True) == ():
            return fail(
                f"none on {action}",
                why="it may be tried without end",
                setting=f"limits.{action}",
                remedy="nothing: the default counts",
            )
    if c.of("limits", "failure") == "allow":
        return warn(
            "what cannot be counted is let through",
            why="who makes the store fail guesses without end",
            setting="limits.failure",
            remedy="refuse",
        )
    return ok("on")


@_looks_at("limits of all workers", "limits.store", rows=("S0-86", "ASVS 6.3.1"))
def _shared(c: Configuration) -> Finding | None:
    if not c.is_on("limits"):
        return None
    store = c.of("limits", "store")
    is_memory = store is not None and store.reveal() == "memory:"
    if is_memory and c.workers > 1:
        return fail(
            f"each of {c.workers} workers counts for itself",
            why=f"{c.workers} times as many tries pass as the limits say",
            setting="limits.store",
            remedy="nothing, or redis://…",
        )
    if is_memory:
        return ok("in memory, for the one worker")
    return ok("shared")


@_looks_at("lockout", "lockout.enabled", rows=("S0-118", "ASVS 6.1.1"))
def _lockout(c: Configuration) -> Finding | None:
    if not c.has("passwords"):
        return None
    if not c.is_on("lockout"):
        return warn(
            "off",
            why="who fails again and again waits no longer for it",
            setting="lockout.enabled",
            remedy="true",
        )
    return ok("on")


@_looks_at(
    "audit",
    *("audit.enabled", "audit.failure", "audit.seal", "audit.ip_mode"),
    rows=("S0-116", "S0-117", "S0-118", "ASVS 16.3.1", "ASVS 16.4.2"),
)
def _audit(c: Configuration) -> Finding | None:
    if not c.has("sign_in"):
        return None
    if not c.is_on("audit"):
        judge = warn if "events" in c.core.accept_missing else fail
        return judge(
            "off",
            why="nobody can tell afterwards who did what",
            setting="audit.enabled",
            remedy="true",
        )
    for name, bad, found, why, remedy in (
        ("failure", "log", "may miss entries", "what cannot be written is done anyway", "fail"),
        ("seal", False, "is not sealed", "an entry that is changed later does not show", "true"),
        ("ip_mode", "plain", "keeps addresses readable", "they are personal data", "hash"),
    ):
        if c.of("audit", name) == bad:
            return warn(found, why=why, setting=f"audit.{name}", remedy=remedy)
    return ok("on")


@_looks_at("accepted gaps", "accept_missing", rows=("ASVS 6.1.1",))
def _gaps(c: Configuration) -> Finding:
    if c.core.accept_missing:
        return warn(
            f"{', '.join(c.core.accept_missing)} may be missing",
            why="the start says nothing should one be gone",
            setting="accept_missing",
            remedy="nothing",
        )
    return ok("none")


@_looks_at("addresses of sessions", "sessions.ip_mode", rows=("ASVS 14.2.4",))
def _ip_mode(c: Configuration) -> Finding | None:
    if not c.has("sessions"):
        return None
    mode = c.of("sessions", "ip_mode")
    if mode == "plain":
        return warn(
            "kept as they are",
            why="they are personal data, and whoever reads the database has them",
            setting="sessions.ip_mode",
            remedy="sealed, or hash",
        )
    return ok("sealed" if mode == "sealed" else "hashed")


@_looks_at("probe token", "probe_token", rows=("ASVS 11.5.1",))
def _probe(c: Configuration) -> Finding:
    token = c.core.probe_token
    if token is None:
        return ok("none: figures for this machine only")
    if len(token.reveal()) < 22:
        return warn(
            "short",
            why="who guesses it reads every figure",
            setting="probe_token",
            remedy="22 random characters at least",
        )
    return ok("set")


@_looks_at("mail", "mail.url", "mail.allow_plain", "mail.password", "mail", rows=("ASVS 6.4.3",))
def _mail(c: Configuration) -> Finding | None:
    if not c.has("mail"):
        return None
    url = c.of("mail", "url")
    if c.of("mail", "allow_plain", default=False):
        return warn(
            "may go to console and files",
            why="it holds links that open accounts, readable on this machine",
            setting="mail.allow_plain",
            remedy="false",
        )
    if url is None and c.is_production and not c.sends_mail:
        return warn(
            "not set",
            why="nobody can prove an address or reset a password: such routes answer 503",
            setting="mail.url",
            remedy="smtp://user:password@host:587",
        )
    if url is None:
        return ok("a sender of the app's own" if c.sends_mail else "console")
    return ok(url.scheme)


@_looks_at("logs", "log_level", rows=("ASVS 13.4.2",))
def _logs(c: Configuration) -> Finding:
    if c.is_production and getattr(c.core, "log_level", "info") == "debug":
        return warn(
            "debug",
            why="very many lines, in which the few that matter are lost",
            setting="log_level",
            remedy="info",
        )
    return ok("quiet")

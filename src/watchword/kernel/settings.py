"""What a setting is: frozen models, durations with units, and nothing that is not known."""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, ClassVar, Literal, TypedDict

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

from watchword.kernel.secrets import Secret

_SHORT = re.compile(r"(\d+)\s*(ms|s|m|h|d)")
_ISO = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")
COOKIE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
_COOKIE_NAME = rf"^{COOKIE_NAME.pattern}$"
_HOST = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]|\*")
_ORIGIN = re.compile(
    r"[a-z][a-z0-9+.-]*://([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?"
)
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'+.^_`|~-]+")  # RFC 9110 §5.6.2, without the asterisk
_PROBE = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_PATTERN = re.compile(r"(/(\*\*?|[A-Za-z0-9._~!$&'()+,=:@-]+))+|/")
_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_duration(value: object) -> timedelta:
    """Read `90s`, `15m`, `8h`, `7d`, ISO 8601 (`PT15M`) or a timedelta; never a bare number."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        text = value.strip()
        if short := _SHORT.fullmatch(text):
            return timedelta(**{_UNITS[short[2]]: int(short[1])})
        iso = _ISO.fullmatch(text)
        if iso and any(iso.groups()):
            days, hours, minutes, seconds = (int(part or 0) for part in iso.groups())
            return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    raise ValueError("is no duration: write 90s, 15m, 8h, 7d or ISO 8601, for example PT15M")


def format_duration(value: timedelta) -> str:
    """The shortest of the forms that `parse_duration` reads."""
    milliseconds = value // timedelta(milliseconds=1)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def spoken(value: timedelta) -> str:
    """A duration as a person says it: `15 minutes`, `72 hours`."""
    minutes = int(value.total_seconds()) // 60
    count, unit = (
        (minutes // 60, "hour") if minutes >= 120 and minutes % 60 == 0 else (minutes, "minute")
    )
    return f"{count} {unit}{'' if count == 1 else 's'}"


def _parse_secret(value: object) -> Secret:
    if isinstance(value, Secret):
        return value
    if isinstance(value, str) and value.strip():
        return Secret(value)
    raise ValueError("must be a text that is not empty")


Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration, return_type=str)
]
SecretText = Annotated[
    Secret, BeforeValidator(_parse_secret), PlainSerializer(lambda _: "***", return_type=str)
]


class Settings(BaseModel):
    """The settings of one feature. Each field has its default, unit, range and reason, once."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        defer_build=True,  # at first use: an import that wires no App need not pay for it
    )

    shorthand: ClassVar[str | None] = None
    """The field that the feature's bare name sets: `WATCHWORD_MAIL` is `mail.url`."""


class CoreSettings(Settings):
    """What belongs to no feature. Top level in `watchword.toml`, `WATCHWORD_<NAME>` outside."""

    environment: Literal["production", "development"] = Field(
        default="production",
        description="development generates a missing secret and allows plain http at loopback",
    )
    database: str = Field(
        default="sqlite:///watchword.db",
        description="where records live: sqlite:, postgresql:, mongodb:",
    )
    public_url: str | None = Field(
        default=None,
        description="base of links in mail, the origin that CSRF trusts, and the issuer",
    )
    audience: str | None = Field(default=None, description="`aud` of tokens; the issuer if unset")
    client_id: str = Field(default="watchword", description="this app's slug", min_length=1)
    realm: str = Field(
        default="main", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="whose users these are"
    )
    prefix: str = Field(
        default="/auth", pattern=r"^(/[A-Za-z0-9_-]+)+$", description="where the routes stand"
    )
    secret: SecretText | None = Field(
        default=None, description="the root secret, as `watchword secret generate` prints it"
    )
    old_secrets: tuple[SecretText, ...] = Field(
        default=(), description="former root secrets, still accepted, newest first"
    )
    dev_hosts: tuple[str, ...] = Field(
        default=(), description="further Host names that development answers to"
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description=(
            "further Host names that production answers to, `*.example.com` being its sub-domains "
            "and `*` any; that of public_url and loopback names always are"
        ),
    )
    require_https: bool | None = Field(
        default=None,
        description=(
            "send what comes over plain http to public_url, or refuse it if it changes something; "
            "unset: in production, where public_url is https"
        ),
    )
    probe_paths: tuple[str, ...] = Field(
        default=("/healthz", "/readyz", "/metrics"),
        description="what supervisors read in production under any Host and over plain http",
    )
    accept_missing: tuple[Literal["limiter", "events"], ...] = Field(
        default=(),
        description="safeguards that production may start without: limits, and a sink for events",
    )
    probe_token: SecretText | None = Field(
        default=None, description="who sends it as a bearer token sees the reasons of /readyz"
    )
    trusted_proxies: tuple[str, ...] = Field(
        default=(),
        description=(
            "networks of proxies whose forwarding headers are believed, for example 10.0.0.0/8; "
            "`unix`: whoever comes through a Unix socket; else the peer's own address counts"
        ),
    )
    forwarded: Literal["x-forwarded", "forwarded"] = Field(
        default="x-forwarded",
        description=(
            "which headers of trusted proxies are read: X-Forwarded-For and -Proto, or Forwarded "
            "(RFC 7239); never both"
        ),
    )
    token_check: Literal["cached", "stateful", "stateless"] = Field(
        default="cached",
        description=(
            "bearer tokens: read their session once and hear of changes; read it at every "
            "request; or believe the signature until they expire"
        ),
    )
    max_body: int = Field(
        default=64 * 1024,
        ge=16 * 1024,
        le=2 * 1024 * 1024,
        description="largest body of our routes, bytes",
    )
    body_timeout: Duration = Field(
        default=timedelta(seconds=30),
        ge=timedelta(seconds=1),
        le=timedelta(minutes=10),
        description="how long the body of a request to our routes may take to come",
    )
    cache_size: int = Field(
        default=10_000, ge=0, le=1_000_000, description="identities kept; 0 turns the cache off"
    )
    cache_max_age: Duration | None = Field(
        default=None,
        description=(
            "how long an identity is believed without asking the store, whatever the change "
            "feed says (I-06); at most, and by default, 30s, or 2s with MongoDB or with sessions "
            "in Redis"
        ),
    )
    feed_bound: Duration = Field(
        default=timedelta(seconds=2),
        ge=timedelta(milliseconds=100),
        le=timedelta(seconds=30),
        description="a cache is not believed when the change feed was not read for this long",
    )
    wake: SecretText | None = Field(
        default=None,
        description="redis:// whose pub/sub wakes workers too, where the database's word is lost",
    )
    background: bool = Field(
        default=True,
        description="send mail and tidy up in this process; off where `watchword worker` does it",
    )
    lift_guards: bool = Field(
        default=True,
        description="resolve guards without FastAPI's solver: faster, same answers",
    )
    hook_timeout: Duration = Field(
        default=timedelta(seconds=5),
        ge=timedelta(milliseconds=100),
        le=timedelta(seconds=60),
        description="how long a hook of the app's may take; a gate that takes longer refuses",
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="of the logs of `watchword serve`, `dev` and `worker`"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="from which level on they say what we do"
    )
    tracing: bool = Field(
        default=True,
        description="spans for OpenTelemetry, where your app has set a tracer provider",
    )
    hash_threads: int = Field(
        default=0, ge=0, le=64, description="threads that hash; 0 means one a core"
    )
    hash_queue: int = Field(
        default=64, ge=1, le=10_000, description="hashes that may wait; past that, 503"
    )

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not _HOST.fullmatch(host.lower()):
                raise ValueError(
                    f"{host!r} is no host: write app.example.com, *.example.com or *, without "
                    "scheme and port"
                )
        return tuple(host.lower() for host in hosts)

    @field_validator("probe_paths")
    @classmethod
    def _are_paths(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if not _PROBE.fullmatch(path):
                raise ValueError(f"{path!r} is no path: write /healthz")
        return paths


class CsrfSettings(Settings):
    """How requests that a cookie authenticates show that our own pages sent them."""

    enabled: bool = Field(
        default=True, description="off only where nothing but same-origin pages reaches the app"
    )
    exempt: tuple[str, ...] = Field(
        default=(),
        description="paths that need no token, `*` being one segment and `**` any number",
    )
    rotate: bool = Field(
        default=False, description="give a new token after each request that used one"
    )
    ttl: Duration = Field(
        default=timedelta(hours=1),
        ge=timedelta(minutes=1),
        le=timedelta(days=7),
        description="how long a token fits; pages that are read get a new one in time",
    )

    @field_validator("exempt")
    @classmethod
    def _are_patterns(cls, exempt: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in exempt:
            segments = pattern.split("/")
            if (
                not _PATTERN.fullmatch(pattern)
                or {".", ".."} & set(segments)
                or segments.count("**") > 1
            ):
                raise ValueError(
                    f"{pattern!r} is no pattern: write /hooks/*, a segment being `*`, one `**`, or "
                    "a name"
                )
            if pattern == "/**":
                raise ValueError("/** is every path: say csrf.enabled=false if you mean it")
        return exempt


class CookieSettings(Settings):
    """What our cookies are called, without the `__Host-` or `__Secure-` before it."""

    session: str = Field(default="session", pattern=_COOKIE_NAME, description="session cookie")
    csrf: str = Field(default="csrf", pattern=_COOKIE_NAME, description="readable by scripts")
    refresh: str = Field(default="refresh", pattern=_COOKIE_NAME, description="hybrid and pair")
    access: str = Field(default="access", pattern=_COOKIE_NAME, description="pair only")
    device: str = Field(default="device", pattern=_COOKIE_NAME, description="proves nothing")
    session_same_site: Literal["lax", "strict"] = Field(
        default="lax", description="strict: links from other sites come without the session"
    )

    @property
    def names(self) -> tuple[str, ...]:
        """What all of them are called."""
        return (self.session, self.csrf, self.refresh, self.access, self.device)

    @model_validator(mode="after")
    def _differ(self) -> "CookieSettings":
        if len({name.lower() for name in self.names}) < len(self.names):
            raise ValueError("two cookies have one name: give each its own")
        return self


class BindingSettings(Settings):
    """What else must be as it was at the sign-in."""

    address: Literal["off", "address", "network"] = Field(
        default="off",
        description=(
            "network: the /24 or /64; phones change theirs often. Behind a proxy it needs "
            "trusted_proxies"
        ),
    )
    fingerprint: Literal["off", "warn", "reject"] = Field(
        default="warn", description="of user agent, language and encoding; easily copied"
    )


class HeaderSettings(Settings):
    """Headers of every answer that does not say otherwise itself; `off` sends none."""

    enabled: bool = Field(default=True, description="give answers of the whole app these headers")
    content_type_options: str = Field(default="nosniff", description="X-Content-Type-Options")
    frame_options: str = Field(default="DENY", description="X-Frame-Options")
    referrer_policy: str = Field(
        default="strict-origin-when-cross-origin",
        description="Referrer-Policy of the app; our own routes always say no-referrer",
    )
    permissions_policy: str = Field(
        default="camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        description="Permissions-Policy",
    )
    xss_protection: str = Field(
        default="0", description="X-XSS-Protection; the filters it turned on did harm (C29)"
    )
    opener_policy: str = Field(
        default="same-origin",
        description="Cross-Origin-Opener-Policy of pages; same-origin-allow-popups, if yours opens",
    )
    csp: str = Field(
        default="off",
        description="Content-Security-Policy of the app's pages: only you know what they load",
    )
    csp_data: str = Field(
        default="default-src 'none'; frame-ancestors 'none'",
        description="Content-Security-Policy of the app's JSON",
    )

    @model_validator(mode="after")
    def _are_printable(self) -> "HeaderSettings":
        for name, value in self:
            if isinstance(value, str) and not (value.strip() and value.isascii()):
                raise ValueError(f"{name} must be one line of ASCII; write off for none")
            if isinstance(value, str) and not value.isprintable():
                raise ValueError(f"{name} must be one line of ASCII; write off for none")
        return self


class HstsSettings(Settings):
    """Strict-Transport-Security, sent over https where public_url is https."""

    enabled: bool = Field(default=True, description="tell browsers to come by https only")
    max_age: Duration = Field(
        default=timedelta(days=365),
        ge=timedelta(0),
        le=timedelta(days=3650),
        description="how long they remember it; 0s makes them forget",
    )
    include_subdomains: bool = Field(default=True, description="of every sub-domain too")
    preload: bool = Field(
        default=False,
        description="allow browsers to ship it: a commitment that takes months to take back",
    )

    @model_validator(mode="after")
    def _may_be_preloaded(self) -> "HstsSettings":
        if self.preload and not (self.include_subdomains and self.max_age >= timedelta(days=365)):
            raise ValueError("preload needs include_subdomains and a max_age of 365d at least")
        return self


class CorsSettings(Settings):
    """Which other origins' scripts may read our answers. None, unless they are named."""

    enabled: bool = Field(default=False, description="answer scripts of other origins at all")
    allow_origins: tuple[str, ...] = Field(
        default=(),
        description="origins, exactly: https://app.example.com; `*` is any, without credentials",
    )
    allow_methods: tuple[str, ...] = Field(
        default=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"), description="methods"
    )
    allow_headers: tuple[str, ...] = Field(
        default=("Authorization", "Content-Type", "X-CSRF-Token"), description="request headers"
    )
    expose_headers: tuple[str, ...] = Field(
        default=("Retry-After", "WWW-Authenticate", "X-Request-ID"),
        description="headers of answers that scripts may read",
    )
    allow_credentials: bool = Field(
        default=False,
        description=(
            "let them read with cookies; what changes something by cookie stays refused to them"
        ),
    )
    max_age: Duration = Field(
        default=timedelta(hours=1),
        ge=timedelta(0),
        le=timedelta(days=1),
        description="how long a browser may remember what it was allowed",
    )
    host_routes: bool = Field(
        default=False, description="of the whole app; else of our own routes and /.well-known only"
    )

    @field_validator("allow_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            default = {"http": ":80", "https": ":443"}.get(origin.partition(":")[0], " ")
            if origin != "*" and (not _ORIGIN.fullmatch(origin) or origin.endswith(default)):
                raise ValueError(
                    f"{origin!r} is no origin as browsers send it: write https://app.example.com, "
                    "in small letters, without path, slash, or the port that goes without saying"
                )
        return origins

    @field_validator("allow_methods", "allow_headers", "expose_headers")
    @classmethod
    def _are_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name!r} is no name: name each one, `*` is none")
        return names

    @model_validator(mode="after")
    def _is_safe(self) -> "CorsSettings":
        if "*" in self.allow_origins and self.allow_credentials:
            raise ValueError(
                "allow_origins `*` with allow_credentials would let every site read what belongs "
                "to whoever is signed in: name the origins"
            )
        if "*" in self.allow_origins and len(self.allow_origins) > 1:
            raise ValueError("allow_origins: `*` is any; remove it or the others")
        if self.enabled and not self.allow_origins:
            raise ValueError("enabled lets nobody in without allow_origins: name them")
        return self


SECTIONS: Mapping[str, type[Settings]] = {
    "csrf": CsrfSettings,
    "cookies": CookieSettings,
    "binding": BindingSettings,
    "headers": HeaderSettings,
    "hsts": HstsSettings,
    "cors": CorsSettings,
}
"""Settings of the core in groups of their own: `WATCHWORD_CSRF__TTL`, `[csrf]`."""


class CsrfOptions(TypedDict, total=False):
    """`CsrfSettings` as keyword arguments."""

    enabled: bool
    exempt: Sequence[str]
    rotate: bool
    ttl: timedelta | str


class CookieOptions(TypedDict, total=False):
    """`CookieSettings` as keyword arguments."""

    session: str
    csrf: str
    refresh: str
    access: str
    device: str
    session_same_site: Literal["lax", "strict"]


class BindingOptions(TypedDict, total=False):
    """`BindingSettings` as keyword arguments."""

    address: Literal["off", "address", "network"]
    fingerprint: Literal["off", "warn", "reject"]


class HeaderOptions(TypedDict, total=False):
    """`HeaderSettings` as keyword arguments."""

    enabled: bool
    content_type_options: str
    frame_options: str
    referrer_policy: str
    permissions_policy: str
    xss_protection: str
    opener_policy: str
    csp: str
    csp_data: str


class HstsOptions(TypedDict, total=False):
    """`HstsSettings` as keyword arguments."""

    enabled: bool
    max_age: timedelta | str
    include_subdomains: bool
    preload: bool


class CorsOptions(TypedDict, total=False):
    """`CorsSettings` as keyword arguments."""

    enabled: bool
    allow_origins: Sequence[str]
    allow_methods: Sequence[str]
    allow_headers: Sequence[str]
    expose_headers: Sequence[str]
    allow_credentials: bool
    max_age: timedelta | str
    host_routes: bool


class CoreOptions(TypedDict, total=False):
    """`CoreSettings` as keyword arguments; a test holds the two together."""

    environment: Literal["production", "development"]
    public_url: str | None
    audience: str | None
    client_id: str
    realm: str
    prefix: str
    secret: Secret | str | None
    old_secrets: Sequence[Secret | str]
    dev_hosts: Sequence[str]
    allowed_hosts: Sequence[str]
    require_https: bool | None
    probe_paths: Sequence[str]
    accept_missing: Sequence[Literal["limiter", "events"]]
    probe_token: Secret | str | None
    trusted_proxies: Sequence[str]
    forwarded: Literal["x-forwarded", "forwarded"]
    token_check: Literal["cached", "stateful", "stateless"]
    max_body: int
    body_timeout: timedelta | str
    cache_size: int
    cache_max_age: timedelta | str | None
    feed_bound: timedelta | str
    wake: Secret | str | None
    background: bool
    lift_guards: bool
    hook_timeout: timedelta | str
    log_format: Literal["text", "json"]
    log_level: Literal["debug", "info", "warning", "error"]
    tracing: bool
    hash_threads: int
    hash_queue: int
    csrf: CsrfOptions
    cookies: CookieOptions
    binding: BindingOptions
    headers: HeaderOptions
    hsts: HstsOptions
    cors: CorsOptions

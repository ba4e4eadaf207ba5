"""An App: checks settings, orders features, wires, mounts. It knows no feature by name."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, Unpack, cast
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from watchword.background import Background
from watchword.crypto.hashing import HashPool
from watchword.crypto.keys import RootSecrets, secret_fault
from watchword.crypto.sealing import Sealer
from watchword.crypto.signing import Signer
from watchword.http.body import AuthRoute
from watchword.http.cache import IdentityCache
from watchword.http.client import SOCKET, Clients, trusted_networks
from watchword.http.cookies import LONGEST, cookie_of, cookies_for
from watchword.http.cors import Cors
from watchword.http.csrf import Csrf, origin_of
from watchword.http.gate import Gate, GateSettings
from watchword.http.headers import HeaderSets, hsts_value
from watchword.http.hosts import Hosts
from watchword.http.lift import lift
from watchword.http.problems import Refused, answer_error
from watchword.http.routers import OwnRouter
from watchword.http.shield import Shield, ShieldSettings
from watchword.http.signed import SignedCookie
from watchword.http.wiring import Mounting, Wiring
from watchword.kernel.attempts import AttemptGuard, Attempts
from watchword.kernel.clock import Clock, SystemClock
from watchword.kernel.errors import ConfigurationError, FeatureNotInstalled, WatchwordError
from watchword.kernel.events import Event, Events
from watchword.kernel.feature import Feature, Job, Safeguard, ordered
from watchword.kernel.hooks import Hooks, Registering
from watchword.kernel.occasion import HAPPENING
from watchword.kernel.ports import AccessCookie, Authenticator, Limiter, Opens
from watchword.kernel.secrets import Secret
from watchword.kernel.settings import (
    COOKIE_NAME,
    SECTIONS,
    BindingSettings,
    CookieSettings,
    CoreOptions,
    CorsSettings,
    CsrfSettings,
    HeaderSettings,
    HstsSettings,
    Settings,
    format_duration,
)
from watchword.kernel.tracing import Tracing
from watchword.sources import Loaded, Setting, load
from watchword.starting import driver_of, kept_secret, public_url_of
from watchword.storage.feed import Change, Waker
from watchword.storage.following import Following
from watchword.storage.leases import Lease, Leases
from watchword.storage.record import schema_of
from watchword.storage.store import Driver, Store
from watchword.storage.watching import Watch

_log = logging.getLogger("watchword")

_BATCH = 500  # records deleted at once
_COHERENT_AGE = timedelta(seconds=30)  # I-06
_INCOHERENT_AGE = timedelta(seconds=2)

_MISSING: Mapping[Safeguard, str] = {
    "limiter": (
        "limits.enabled (WATCHWORD_LIMITS__ENABLED): nothing limits how often a password is tried: "
        "add limits() to features and leave it on, or name limiter in accept_missing where a proxy "
        "counts"
    ),
    "events": (
        "audit.enabled (WATCHWORD_AUDIT__ENABLED): what happens is kept nowhere: add audit() to "
        "features and leave it on, or name events in accept_missing"
    ),
}

T = TypeVar("T")
E = TypeVar("E", bound=Event)
S = TypeVar("S", bound=Settings)


class App:
    """One authentication system: features, wired over one database.

    `presets.Watchword` is the one to use; this class takes any features.
    """

    def __init__(
        self,
        database: str | None = None,
        *,
        features: Sequence[Feature[Any]],
        clock: Clock | None = None,
        environ: Mapping[str, str] | None = None,
        served: bool = False,
        **options: Unpack[CoreOptions],
    ) -> None:
        """Check every setting and wire the features; nothing is connected yet.

        Args:
            database: a store's URL; else `WATCHWORD_DATABASE`.
            features: values made by feature functions, in any order.
            clock: for tests.
            environ: instead of the process's environment.
            served: `watchword serve` runs it: plain http is right at a loopback address.
            options: `CoreSettings`, by name.

        Raises:
            ConfigurationError: all that is wrong, at once.
        """
        given: dict[str, object] = dict(options)
        if database is not None:
            given["database"] = database
        self.features = ordered(features)
        self._loaded: Loaded = load(given, self.features, environ=environ)
        self.core = self._loaded.core
        self.clock: Clock = clock or SystemClock()
        self.events = Events()
        self.hooks = Hooks(self.events, timeout=self.core.hook_timeout)
        self._services: dict[str, Any] = {}
        self._wirings: dict[str, Wiring] = {}
        self._answers: dict[type, list[Any]] = {}
        self._background: Background | None = None
        self._inherited: list[object] = []  # from before a fork
        self._listening: asyncio.Task[None] | None = None
        self._starting: asyncio.Lock | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0  # where it was started; a forked child inherits a loop that stands still
        self._installed = False

        development = self.core.environment == "development"
        public_url, faults = public_url_of(self.core, development=development, served=served)
        secret = self._secret(faults, development=development)
        if not development:
            faults.extend(self._missing())
        if faults or secret is None:
            raise ConfigurationError(faults)
        self.public_url = public_url
        self.secrets = RootSecrets(secret, self.core.old_secrets)
        self.tracing = Tracing(enabled=self.core.tracing)
        self.driver: Driver = driver_of(self.core.database)
        self.store = Store(
            driver=self.driver,
            events=self.events,
            realm=self.core.realm,
            apart=self._apart(),
            watch=Watch(self.tracing),
        )
        self.hash_pool = HashPool(
            threads=self.core.hash_threads, queue=self.core.hash_queue, tracing=self.tracing
        )
        self.cache = IdentityCache(
            clock=self.clock, size=self.core.cache_size, max_age=self._cache_max_age()
        )
        self.events.evict_with(self.cache.evict)
        self.events.wake_with(self._hint)
        self._waking = None if self.core.wake is None else self._waker_of(self.core.wake)
        self.following: Following | None = None
        self._secure = not (development and urlsplit(public_url).scheme == "http")
        self.cookies = cookies_for(
            self._section(CookieSettings), prefix=self.core.prefix, secure=self._secure
        )
        self.csrf = Csrf(
            signer=Signer(self.secrets, "csrf"),
            origin=origin_of(public_url),
            settings=self._section(CsrfSettings),
            clock=self.clock,
        )
        self.clients = Clients(
            trusted=trusted_networks(self.core.trusted_proxies),
            device=self.cookies.device,
            settings=self._section(BindingSettings),
            signer=Signer(self.secrets, "address"),
            forwarded=self.core.forwarded,
            trusts_socket=SOCKET in self.core.trusted_proxies,
        )
        self.attempts = Attempts(self.answering(AttemptGuard), tracing=self.tracing)
        self._wire(development=development)

    def _wire(self, *, development: bool) -> None:
        sealer = Sealer(self.secrets)
        for feature in self.features:
            wiring = Wiring(
                core=self.core,
                settings=self._loaded.features[feature.name],
                store=self.store,
                clock=self.clock,
                events=self.events,
                hash_pool=self.hash_pool,
                secrets=self.secrets,
                sealer=sealer,
                cookies=self.cookies,
                csrf=self.csrf,
                clients=self.clients,
                cache=self.cache,
                attempts=self.attempts,
                tracing=self.tracing,
                resolved_public_url=self.public_url,
                issuer=self.public_url,
                audience=self.core.audience or self.public_url,
                development=development,
                service_of=self.service,
                answers_to=self.answering,
            )
            self._wirings[feature.name] = wiring
            service = feature.service(wiring)
            self._services[feature.name] = service
            if feature.offers is not None:
                for port, answer in feature.offers(service).items():
                    several = isinstance(answer, tuple)
                    answers = cast("tuple[Any, ...]", answer if several else (answer,))
                    self._answers.setdefault(port, []).extend(answers)
            if feature.listens is not None:
                feature.listens(service, self.events)
        self.records: tuple[type, ...] = tuple(
            {
                schema_of(kind).name: kind
                for kind in (
                    *(Change, Lease),
                    *(kind for f in self.features for kind in self._records(f)),
                )
            }.values()
        )

    def _section(self, model: type[S]) -> S:
        name = next(name for name, each in SECTIONS.items() if each is model)
        return cast("S", self._loaded.features[name])

    def _apart(self) -> dict[str, Driver]:
        """Drivers of records that a feature keeps outside the database, one a URL."""
        drivers: dict[str, Driver] = {}
        apart: dict[str, Driver] = {}
        for feature in self.features:
            if feature.apart is None:
                continue
            for kind, place in feature.apart(self._loaded.features[feature.name]).items():
                url = place.reveal()
                if url not in drivers:
                    drivers[url] = driver_of(url, setting=f"{feature.name}.store")
                apart[schema_of(kind).name] = drivers[url]
        return apart

    def _are_identities_apart(self) -> bool:
        return any(
            feature.carries_identities and feature.apart(self._loaded.features[feature.name])
            for feature in self.features
            if feature.apart is not None
        )

    def _cache_max_age(self) -> timedelta:
        """How long an identity is believed: longer only where change rows commit with it (I-06)."""
        feed = self.driver.feed
        coherent = feed is not None and feed.is_coherent and not self._are_identities_apart()
        longest = _COHERENT_AGE if coherent else _INCOHERENT_AGE
        asked = self.core.cache_max_age
        if asked is None:
            return longest
        if asked > longest:
            raise ConfigurationError(
                [
                    (
                        f"cache_max_age (WATCHWORD_CACHE_MAX_AGE) is over "
                        f"{format_duration(longest)}, the most that this store allows: what it "
                        "holds changes without word to other workers"
                    )
                ]
            )
        return asked

    def _waker_of(self, url: Secret) -> Waker:
        driver = driver_of(url.reveal(), setting="wake (WATCHWORD_WAKE)")
        make = getattr(driver, "waker", None)
        if make is None:
            raise ConfigurationError(["wake (WATCHWORD_WAKE): only redis:// wakes workers"])
        return cast("Waker", make())

    def _missing(self) -> Iterator[str]:
        """Safeguards that these features want and none of them provides (I-22)."""
        provided: set[Safeguard] = {
            safeguard
            for feature in self.features
            if getattr(self._loaded.features[feature.name], "enabled", True)
            for safeguard in feature.provides
        }
        wanted: set[Safeguard] = {
            safeguard for feature in self.features for safeguard in feature.wants
        }
        accepted: set[Safeguard] = set(self.core.accept_missing)
        for safeguard in sorted(wanted - provided - accepted):
            yield _MISSING[safeguard]

    def _records(self, feature: Feature[Any]) -> tuple[type, ...]:
        records = getattr(self._services[feature.name], "records", None)
        if isinstance(records, tuple):
            return cast("tuple[type, ...]", records)
        return feature.records

    def _secret(self, faults: list[str], *, development: bool) -> Secret | None:
        secret = self.core.secret
        if secret is None and development:
            secret = kept_secret(Path(".watchword") / "secret")
        if secret is None:
            faults.append(
                "secret (WATCHWORD_SECRET) is not set: run `watchword secret generate` and put "
                "what it prints there, or in a file that WATCHWORD_SECRET_FILE names; at your desk "
                "WATCHWORD_ENVIRONMENT=development makes one by itself"
            )
            return None
        checked = (
            secret_fault(each, development=development) for each in (secret, *self.core.old_secrets)
        )
        faults.extend(fault for fault in checked if fault is not None)
        return secret

    # What a caller asks of it

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Every setting in force, and where it came from."""
        return self._loaded.report

    def settings_of(self, feature: str) -> Settings:
        """The settings of one feature."""
        return self._loaded.features[feature]

    def feature(self, service: type[T]) -> T:
        """The service of a feature, by its class; works for third parties' features too.

        Raises:
            FeatureNotInstalled: no feature of this App makes one.
        """
        return self.service(service)

    def service(self, kind: type[T]) -> T:
        """The service of this class."""
        for service in self._services.values():
            if isinstance(service, kind):
                return service
        raise FeatureNotInstalled(
            f"feature {kind.__name__.lower()!r} is not installed: add {kind.__name__.lower()}() "
            "to features=[…]"
        )

    def has(self, feature: str) -> bool:
        """Is this feature installed?"""
        return feature in self._services

    def answering(self, port: type[T]) -> Sequence[T]:
        """All that answer a port, as a live list."""
        return cast("list[T]", self._answers.setdefault(port, []))

    def on(self, event: type[E], *, gate: bool = False) -> Registering[E]:
        """Call the decorated function after the commit of each such event; `async def` or `def`.

        A plain function runs in a thread. What a hook raises, or that it takes longer than
        `hook_timeout`, is logged and changes nothing.

        Args:
            event: which, with all its subclasses.
            gate: ask it before instead: what it raises refuses, and so does silence.

        Raises:
            TypeError: a gate on an event that only tells, or a hook on one that only asks.
        """
        return self.hooks.on(event, gate=gate)

    def signer(self, purpose: str) -> Signer:
        """Sign values of your own: what leaves as a link or a form and must come back unaltered.

        Each purpose has a key of its own, none of which is one of ours; secrets in
        `old_secrets` still count. What is signed is readable.

        Raises:
            ValueError: no purpose.
        """
        if not purpose:
            raise ValueError("name what the values are for: signer('unsubscribe')")
        return Signer(self.secrets, f"app:{purpose}")

    def signed_cookie(self, name: str, *, lives: timedelta, path: str = "/") -> SignedCookie:
        """A cookie of your own, signed, under this name and path and no other.

        Args:
            name: without prefix; `__Host-` (or `__Secure-` below a path) comes before it, but
                on plain http in development.
            lives: how long its value counts, at most 400 days.
            path: which requests it comes with.

        Raises:
            ValueError: a name that is none, or one of ours; a path that is none; too long.
        """
        ours = self._section(CookieSettings).names
        if not COOKIE_NAME.fullmatch(name) or name.lower() in {each.lower() for each in ours}:
            raise ValueError(f"{name!r} cannot be the name of a cookie of yours")
        if not path.startswith("/") or not path.isascii() or set(path) & set('; ,\\"\r\n\t\x00'):
            raise ValueError(f"{path!r} is no path of a cookie")
        if not timedelta(seconds=1) <= lives <= LONGEST:
            raise ValueError("a cookie lives for a second at least and for 400 days at most")
        return SignedCookie(
            cookie=cookie_of(
                name, "__Host-" if path == "/" else "__Secure-", path=path, secure=self._secure
            ),
            lives=lives,
            signer=Signer(self.secrets, f"app-cookie:{name}"),
            clock=self.clock,
        )

    def tables_into(self, metadata: Any) -> Any:
        """Put our tables into a SQLAlchemy `MetaData`, so that your Alembic sees them."""
        return cast("Any", self.driver).tables_into(metadata, self.records)

    @property
    def background(self) -> Background | None:
        """The work for all that this process does; None where another one does it."""
        return self._background

    # Its life

    @property
    def is_started(self) -> bool:
        """Connected, in this process and on this event loop."""
        return self.loop is not None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop it was started on, in this process."""
        return self._loop if self._process == os.getpid() else None

    @property
    def drivers(self) -> tuple[Driver, ...]:
        """The database, and whatever else records live in."""
        return (self.driver, *dict.fromkeys(self.store.apart.values()))

    async def start(self, *, background: bool | None = None) -> None:
        """Connect, compare the schema, make what must exist, begin the background work.

        Args:
            background: work for all in this process: mail, expiry; else the setting says.

        Raises:
            SchemaBehind, SchemaNewer, StoreUnavailable: and nothing is left open.
        """
        self._leave_the_parents()
        lock = self._starting
        if lock is None:
            lock = self._starting = asyncio.Lock()
        async with lock:
            if self._loop is not None:
                return
            # The first request may be what starts it: no background task is on its behalf.
            happening = HAPPENING.set(None)
            try:
                await self.connect()
                await self._follow()
                for service in self._services.values():
                    if isinstance(service, Opens):
                        await service.open()
                if self.core.background if background is None else background:
                    leases = Leases(store=self.store, clock=self.clock)
                    self._background = Background(self.jobs(), leases)
                    self._background.start()
            except BaseException:
                await self._close()
                raise
            finally:
                HAPPENING.reset(happening)
            self._process = os.getpid()
            self._loop = asyncio.get_running_loop()
            if self.core.environment == "production" and not self.csrf.settings.enabled:
                _log.warning(
                    "csrf.enabled is off: a request by cookie that names no origin is believed"
                )

    def _leave_the_parents(self) -> None:
        """In a process forked off after the start: what runs in the parent is not ours."""
        if self._loop is not None and self._process != os.getpid():
            # Kept: to collect a connection here would end it for the parent.
            self._inherited += (self.following, self._listening, self._background, self._waking)
            if self.core.wake is not None:
                self._waking = self._waker_of(self.core.wake)
            self._loop = self._starting = None
            self._background = self._listening = self.following = None
            self.cache.empty()

    async def connect(self) -> None:
        """Open the database, and whatever else records live in, without starting anything.

        Raises:
            SchemaBehind, SchemaNewer, StoreUnavailable
        """
        for driver in self.drivers:
            await driver.open(self.records_in(driver))

    async def disconnect(self) -> None:
        """Give every connection back."""
        for driver in self.drivers:
            await driver.close()

    def records_in(self, driver: Driver) -> tuple[type, ...]:
        """The records that live there."""
        apart = self.store.apart
        return tuple(
            kind for kind in self.records if apart.get(schema_of(kind).name, self.driver) is driver
        )

    async def _follow(self) -> None:
        feed = self.driver.feed
        if feed is None:
            return
        wakers = (feed.waker(), self._waking)
        self.following = Following(
            clock=self.clock,
            feed=feed,
            realm=self.core.realm,
            bound=self.core.feed_bound,
            wakers=[waker for waker in wakers if waker is not None],
            evict=self.events.evict_subjects,
            empty=self.events.evict_all,
            fresh=self.cache.fresh,
        )
        await self.following.begin()
        self._listening = asyncio.create_task(self.following.run(), name="watchword feed")

    def _hint(self) -> None:
        if self.following is not None:
            self.following.hint()

    async def stop(self) -> None:
        """End the background work and give every connection back."""
        self._loop = None
        self._starting = None
        if self._background is not None:
            await self._background.stop()
            self._background = None
        self.hash_pool.close()
        self.hooks.close()
        await self._close()

    async def _close(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
            self._listening = None
        if self.following is not None:
            await self.following.close()
            self.following = None
        await self.disconnect()

    @asynccontextmanager
    async def running(self, *, background: bool | None = None) -> AsyncGenerator["App"]:
        """`async with auth.running():` for scripts and tests."""
        await self.start(background=background)
        try:
            yield self
        finally:
            await self.stop()

    def jobs(self) -> list[Job]:
        """The background work of all features."""
        jobs = [Job(name="tidy", every=timedelta(minutes=1), run=self._tidy)]
        for feature in self.features:
            if feature.jobs is not None:
                jobs.extend(feature.jobs(self._services[feature.name]))
        return jobs

    async def _tidy(self) -> bool:
        """Delete a batch of what is past its time; correctness never waits for it (I-05)."""
        more = False
        for kind in self._expiring():
            deleted = await self.store.expire(kind, now=self.clock.now(), limit=_BATCH)
            more = more or deleted >= _BATCH
        return more

    async def purge(self) -> dict[str, int]:
        """Delete all that is past its time, in batches; how many, by the record's name.

        Raises:
            StoreUnavailable
        """
        now = self.clock.now()
        deleted: dict[str, int] = {}
        for kind in self._expiring():
            name = schema_of(kind).name
            deleted[name] = 0
            while batch := await self.store.expire(kind, now=now, limit=_BATCH):
                deleted[name] += batch
        return deleted

    def _expiring(self) -> Iterator[type]:
        return (kind for kind in self.records if schema_of(kind).expires is not None)

    # Its place in a web application

    def install(self, app: FastAPI) -> None:
        """Add the gate, the routes, the error answers, and start and stop with `app`.

        Where `app` is itself mounted in another, its lifespan is never run; the first request
        starts the App then.

        Raises:
            ConfigurationError: another Watchword is installed in this very app.
        """
        if getattr(app.state, "watchword", None) is not None:
            raise ConfigurationError(["this app has a Watchword already: install once"])
        app.state.watchword = self
        settings = GateSettings(
            app=f"{self.core.realm}/{self.core.client_id}",
            cookies=self.cookies,
            check=self.core.token_check,
            takes_access_cookie=bool(self.answering(AccessCookie)),
            realm=self.core.realm,
            client_id=self.core.client_id,
            max_body=self.core.max_body,
        )
        app.add_middleware(
            cast("Any", Gate),
            settings=settings,
            authenticators=self.answering(Authenticator),
            cache=self.cache,
            csrf=self.csrf,
            clients=self.clients,
            clock=self.clock,
            events=self.events,
            ready=self._ready,
            limiters=self.answering(Limiter),
            tracing=self.tracing,
        )
        self.shield().around(app)
        self._mount(app)
        _answer_errors_in(app)
        inner = app.router.lifespan_context

        @asynccontextmanager
        async def lifespan(host: Any) -> AsyncGenerator[Any]:
            _reach_mounted(app)
            if self.core.lift_guards:
                lift(app)
            async with self.running(), inner(host) as state:
                yield state

        app.router.lifespan_context = lifespan
        self._point_openapi_at_login(app)

    def shield(self) -> Shield:
        """What `install` puts around the whole app: Host, https, other origins, headers."""
        core, cors = self.core, self._section(CorsSettings)
        production = core.environment == "production"
        origin = origin_of(self.public_url)
        host = _host_of(origin)
        is_https = origin.startswith("https:")
        named = "allowed_hosts" if production else "dev_hosts"
        remedy = f"Nothing is served under this name; {named} (WATCHWORD_{named.upper()}) adds some"
        hsts = self._section(HstsSettings)
        # At a loopback name it would bind whatever else is developed there.
        sends_hsts = hsts.enabled and is_https and not Hosts.named(()).knows(host)
        return Shield(
            ShieldSettings(
                prefix=core.prefix,
                origin=origin,
                hosts=Hosts.named(
                    {host, *core.allowed_hosts}
                    if production
                    else {"testserver", *(each.lower() for each in core.dev_hosts)}
                ),
                hosts_remedy=remedy,
                require_https=(
                    production and is_https if core.require_https is None else core.require_https
                ),
                probe_paths=frozenset(core.probe_paths if production else ()),
                body_timeout=core.body_timeout,
            ),
            clients=self.clients,
            headers=HeaderSets(
                self._section(HeaderSettings), hsts=hsts_value(hsts) if sends_hsts else None
            ),
            cors=Cors(cors) if cors.enabled else None,
        )

    def _mount(self, app: FastAPI) -> None:
        ours = OwnRouter()
        for feature in self.features:
            if feature.routes is None:
                continue
            tags: list[str | Enum] = [feature.name]
            mounting = Mounting(
                wiring=self._wirings[feature.name],
                router=OwnRouter(prefix=self.core.prefix, route_class=AuthRoute, tags=tags),
                root=OwnRouter(route_class=AuthRoute, tags=tags),
            )
            feature.routes(self._services[feature.name], mounting)
            for router in (mounting.router, mounting.root):
                if router.routes:
                    ours.include_router(router)
        app.include_router(ours)

    def _ready(self) -> Awaitable[None] | None:
        return None if self.loop is not None else self.start()

    def _point_openapi_at_login(self, app: FastAPI) -> None:
        generate = app.openapi

        def openapi() -> dict[str, Any]:
            schema = generate()
            schemes = schema.get("components", {}).get("securitySchemes", {})
            if "Watchword" in schemes:
                flow = schemes["Watchword"]["flows"]["password"]
                flow["tokenUrl"] = f"{self.core.prefix}/login".removeprefix("/")
            return schema

        app.openapi = openapi


def _host_of(origin: str) -> str:
    """The host as a request names it, an IPv6 address in brackets."""
    host = urlsplit(origin).hostname or ""
    return f"[{host}]" if ":" in host else host


def _answer_errors_in(app: Starlette) -> None:
    for kind in (WatchwordError, Refused):
        app.exception_handlers.setdefault(kind, cast("Any", answer_error))


def _reach_mounted(app: Starlette) -> None:
    """Mounted applications answer errors by themselves; let them answer ours as we do."""
    for route in app.routes:
        if isinstance(route, Mount) and isinstance(route.app, Starlette):
            _answer_errors_in(route.app)
            _reach_mounted(route.app)

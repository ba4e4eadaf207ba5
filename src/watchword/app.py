"""An App: checks settings, orders features, wires, mounts. It knows no feature by name."""

import asyncio
import contextlib
import logging
import os
import re
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from enum import Enum
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, TypeVar, Unpack, cast
from urllib.parse import urlsplit, urlunsplit

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from watchword.crypto.hashing import HashPool
from watchword.crypto.keys import RootSecrets, generate_secret, secret_fault
from watchword.crypto.sealing import Sealer
from watchword.crypto.signing import Signer
from watchword.http.body import AuthRoute
from watchword.http.cache import IdentityCache
from watchword.http.cookies import cookies_for
from watchword.http.csrf import Csrf, origin_of
from watchword.http.gate import LOOPBACK_HOSTS, Gate, GateSettings
from watchword.http.lift import lift
from watchword.http.problems import Refused, answer_error
from watchword.http.routers import OwnRouter
from watchword.http.wiring import Mounting, Wiring
from watchword.kernel.address import ascii_domain
from watchword.kernel.clock import Clock, SystemClock
from watchword.kernel.errors import ConfigurationError, FeatureNotInstalled, WatchwordError
from watchword.kernel.events import Event, Events
from watchword.kernel.feature import Feature, Job, ordered
from watchword.kernel.ports import Authenticator, Opens
from watchword.kernel.secrets import Secret
from watchword.kernel.settings import CoreOptions, CoreSettings, Settings
from watchword.sources import Loaded, Setting, load
from watchword.storage.record import schema_of
from watchword.storage.store import Driver, Store

_log = logging.getLogger("watchword")
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")

T = TypeVar("T")
E = TypeVar("E", bound=Event)


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
        self._services: dict[str, Any] = {}
        self._wirings: dict[str, Wiring] = {}
        self._answers: dict[type, list[Any]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._starting: asyncio.Lock | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0  # where it was started; a forked child inherits a loop that stands still
        self._installed = False

        development = self.core.environment == "development"
        public_url, faults = _public_url(self.core, development=development, served=served)
        secret = self._secret(faults, development=development)
        if faults or secret is None:
            raise ConfigurationError(faults)
        self.public_url = public_url
        self.secrets = RootSecrets(secret, self.core.old_secrets)
        self.driver: Driver = _driver(self.core.database)
        self.store = Store(driver=self.driver, events=self.events, realm=self.core.realm)
        self.hash_pool = HashPool(threads=self.core.hash_threads, queue=self.core.hash_queue)
        self.cache = IdentityCache(
            clock=self.clock, size=self.core.cache_size, max_age=self.core.cache_max_age
        )
        self.events.evict_with(self.cache.evict)
        secure = not (development and urlsplit(public_url).scheme == "http")
        self.cookies = cookies_for(secure=secure)
        self.csrf = Csrf(signer=Signer(self.secrets, "csrf"), origin=origin_of(public_url))
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
                cache=self.cache,
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
                schema_of(kind).name: kind for f in self.features for kind in self._records(f)
            }.values()
        )

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
                "what it prints there, or in a file that WATCHWORD_SECRET_FILE names"
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

    def on(self, event: type[E]) -> Callable[[Callable[[E], Awaitable[None]]], Any]:
        """Call the decorated coroutine function after the commit of each such event."""

        def register(hook: Callable[[E], Awaitable[None]]) -> Callable[[E], Awaitable[None]]:
            self.events.on(event, hook)
            return hook

        return register

    def tables_into(self, metadata: Any) -> Any:
        """Put our tables into a SQLAlchemy `MetaData`, so that your Alembic sees them."""
        return cast("Any", self.driver).tables_into(metadata, self.records)

    # Its life

    @property
    def is_started(self) -> bool:
        """Connected, in this process and on this event loop."""
        return self.loop is not None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop it was started on, in this process."""
        return self._loop if self._process == os.getpid() else None

    async def start(self) -> None:
        """Connect, compare the schema, make what must exist, begin the background work.

        Raises:
            SchemaBehind, SchemaNewer, StoreUnavailable: and nothing is left open.
        """
        lock = self._starting
        if lock is None:
            lock = self._starting = asyncio.Lock()
        async with lock:
            if self._loop is not None:
                return
            try:
                await self.driver.open(self.records)
                for service in self._services.values():
                    if isinstance(service, Opens):
                        await service.open()
            except BaseException:
                await self.driver.close()
                raise
            for job in self._jobs():
                self._tasks.append(
                    asyncio.create_task(self._work(job), name=f"watchword {job.name}")
                )
            self._process = os.getpid()
            self._loop = asyncio.get_running_loop()
            if self.core.environment == "production" and len(self.core.accept_missing) < 2:
                _log.warning(
                    "this version has no sign-in limiter and no event sink yet: "
                    "put a limiter in front of %s/login",
                    self.core.prefix,
                )

    async def stop(self) -> None:
        """End the background work and give every connection back."""
        self._loop = None
        self._starting = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self.hash_pool.close()
        await self.driver.close()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator["App"]:
        """`async with auth.running():` for scripts and tests."""
        await self.start()
        try:
            yield self
        finally:
            await self.stop()

    def _jobs(self) -> list[Job]:
        jobs = [Job(name="tidy", every=timedelta(minutes=1), run=self._tidy)]
        for feature in self.features:
            if feature.jobs is not None:
                jobs.extend(feature.jobs(self._services[feature.name]))
        return jobs

    async def _tidy(self) -> bool:
        """Delete what is past its time; correctness never waits for it (I-05)."""
        more = False
        for kind in self.records:
            if schema_of(kind).expires is not None:
                deleted = await self.store.expire(kind, now=self.clock.now(), limit=500)
                more = more or deleted >= 500
        return more

    async def _work(self, job: Job) -> None:
        pause = job.every.total_seconds()
        while True:
            try:
                more = await job.run()
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001  whatever it was, the next turn may work
                _log.warning("background work %s failed: %s", job.name, type(error).__name__)
                more = False
            if more:
                await asyncio.sleep(0)
            elif job.wake is None:
                await asyncio.sleep(pause)
            else:
                # Not wait_for: in 3.11 it loses a cancellation that comes with the wake-up, and
                # the App would never stop.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await job.wake()

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
            cookie_name=self.cookies.session.name,
            max_body=self.core.max_body,
            dev_hosts=(
                LOOPBACK_HOSTS | {host.lower() for host in self.core.dev_hosts}
                if self.core.environment == "development"
                else None
            ),
        )
        authenticators = {each.carriage: each for each in self.answering(Authenticator)}
        app.add_middleware(
            cast("Any", Gate),
            settings=settings,
            authenticators=authenticators,
            cache=self.cache,
            csrf=self.csrf,
            clock=self.clock,
            ready=self._ready,
        )
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


def _answer_errors_in(app: Starlette) -> None:
    for kind in (WatchwordError, Refused):
        app.exception_handlers.setdefault(kind, cast("Any", answer_error))


def _reach_mounted(app: Starlette) -> None:
    """Mounted applications answer errors by themselves; let them answer ours as we do."""
    for route in app.routes:
        if isinstance(route, Mount) and isinstance(route.app, Starlette):
            _answer_errors_in(route.app)
            _reach_mounted(route.app)


def _public_url(core: CoreSettings, *, development: bool, served: bool) -> tuple[str, list[str]]:
    url = core.public_url
    if url is None and development:
        return "http://localhost:8000", []
    if url is None:
        return "", [
            (
                "public_url (WATCHWORD_PUBLIC_URL) is not set: production needs the https address "
                "that people reach this app at; it is the issuer of tokens and the base of links"
            )
        ]
    try:
        parts = urlsplit(url)
        host = _host(parts.hostname or "")
        is_address = (
            parts.scheme in ("http", "https")
            and parts.port != 0
            and ("[" in parts.netloc) == (":" in host)
            and _is_plain(url)
        )
    except ValueError:
        parts, host, is_address = urlsplit(""), "", False
    fault = None
    if not is_address:
        fault = "is no http(s) address"
    elif "?" in url or "#" in url or "@" in parts.netloc or url.endswith("/"):
        fault = "must have no query, fragment, user or slash at its end"
    elif parts.scheme == "http":
        loopback = host in ("localhost", "127.0.0.1", "::1") or host.endswith(".localhost")
        if not loopback:
            fault = "must be https beyond a loopback address"
        elif not development and not served:
            fault = "must be https in production"
    if fault is None and not parts.netloc.isascii():
        # Browsers send `Origin` in ASCII.
        port = "" if parts.port is None else f":{parts.port}"
        url = urlunsplit(parts._replace(netloc=f"{host}{port}"))
    return url, [f"public_url (WATCHWORD_PUBLIC_URL): {fault}"] if fault else []


def _is_plain(url: str) -> bool:
    """Does it hold nothing that is dropped or changed by those who read it?"""
    return url.isprintable() and not any(letter.isspace() or letter == "\\" for letter in url)


def _host(name: str) -> str:
    """A host as it is looked up. Raises ValueError for what is none."""
    if ":" in name:
        if "%" in name:
            raise ValueError("an address with a zone is no one else's")
        return str(IPv6Address(name))
    host = ascii_domain(name)
    if _HOST.fullmatch(host) is None:
        raise ValueError("is no host")
    return host


def kept_secret(path: Path) -> Secret:
    """The secret kept in a file, made at the first start: mode 0600, one winner (I-22).

    Raises:
        ConfigurationError: it cannot be kept there, or others can read or write it.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.name == ".watchword":  # it stands in somebody's repository
            with contextlib.suppress(OSError), (path.parent / ".gitignore").open("x") as ignored:
                ignored.write("*\n")
        if not path.exists():
            _make_secret(path)
        if os.name == "posix" and path.is_file() and path.stat().st_mode & 0o066:
            raise ConfigurationError(
                [
                    (
                        f"{path} can be read or written by others: `chmod 600 {path}`; if others "
                        "may have read it, delete it, and a new secret is made"
                    )
                ]
            )
        text = path.read_text("utf-8").strip()
    except OSError as error:
        raise ConfigurationError(
            [f"{path}: the secret cannot be kept there: {error.strerror}"]
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError([f"{path} holds no secret: it is not UTF-8"]) from error
    if not text:
        raise ConfigurationError([f"{path} holds no secret: delete it, and a new one is made"])
    return Secret(text)


def _make_secret(path: Path) -> None:
    # Written whole under another name, then linked: a second process that starts at the
    # same moment either loses the link or reads a complete file.
    text = generate_secret().reveal() + "\n"
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        _write_new(draft, text)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        except OSError:  # a volume without hard links
            with contextlib.suppress(FileExistsError):
                _write_new(path, text)
    finally:
        draft.unlink(missing_ok=True)


def _write_new(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _driver(url: str) -> Driver:
    """Find a driver by its URL's scheme; drivers are imported when a URL asks for them."""
    from importlib.metadata import entry_points  # noqa: PLC0415  dear, and only needed here

    scheme = url.partition(":")[0].partition("+")[0].lower()
    found = entry_points(group="watchword.stores", name=scheme)
    if not found:
        known = ", ".join(sorted({entry.name for entry in entry_points(group="watchword.stores")}))
        raise ConfigurationError(
            [f"database (WATCHWORD_DATABASE): no driver {scheme!r}; known: {known or 'none'}"]
        )
    make: Callable[[str], Driver] = next(iter(found)).load()
    return make(url)

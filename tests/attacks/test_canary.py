"""Canaries: every secret of every flow is known here, and must be found nowhere but where it goes.

Logs of all libraries at DEBUG, every row of every table, spans, metrics, problems, OpenAPI, the
reprs of all that lives, and what is committed.
"""

import dataclasses
import logging
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.features.webhooks import conftest as hooks
from tests.told import ADA, EVE, Story, csrf_of, telling
from watchword import Event, logs
from watchword.crypto.keys import generate_secret
from watchword.features.keys import Keys
from watchword.kernel.errors import WatchwordError
from watchword.kernel.principal import Client
from watchword.kernel.secrets import Secret
from watchword.server.metrics import metrics
from watchword.storage.record import schema_of
from watchword.storage.store import Paging
from watchword.testing.story import bearer

endpoint = hooks.endpoint

ROOT = Path(__file__).resolve().parents[2]
SITE = "http://localhost:8000"
PASSWORDS = {
    "password": "canary-alder lantern 7341 quiver",
    "changed": "canary-birch saddle 9920 mortar",
    "reset": "canary-cedar trumpet 1187 gravel",
    "wrong": "canary-dogwood pillow 5561 anchor",
}


@dataclass
class Canaries:
    """What must not be seen, by name."""

    found: dict[str, str] = field(default_factory=dict[str, str])

    def add(self, name: str, secret: str | Secret | None) -> str:
        """Remember one; a signed one by its signature, which nobody else has."""
        assert secret is not None, name
        text = secret.reveal() if isinstance(secret, Secret) else secret
        assert len(text) >= 16, name
        self.found[name] = text.rpartition(".")[2] if text.startswith("eyJ") else text
        return text

    def cookies(self, name: str, client: httpx.AsyncClient) -> None:
        """All cookies of a browser."""
        for cookie in client.cookies.jar:
            if cookie.value:
                self.add(f"{name} {cookie.name}", cookie.value)

    def seen_in(self, text: str) -> list[str]:
        """The names of those that it holds, as they are or as a URL has them."""
        plain = text.replace("%20", " ").replace("+", " ") if "canary" in text else text
        return [name for name, each in self.found.items() if each in text or each in plain]


class Ear(logging.Handler):
    """Hears of everything, from everybody."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.lines: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        said = [record.getMessage(), repr(record.args), repr(record.msg)]
        if record.exc_info:
            said.append(logging.Formatter().formatException(record.exc_info))
        self.lines.append((record.name, "\n".join(said)))


LOUD = ("", "watchword", "sqlalchemy", "sqlalchemy.engine", "sqlalchemy.pool", "aiosqlite", "httpx")
LOUDER = ("httpcore", "uvicorn", "alembic", "asyncio", "asyncpg", "pymongo", "redis", "aiosmtplib")


@pytest.fixture
def ear() -> Iterator[Ear]:
    """All loggers at DEBUG, for this test alone."""
    heard = Ear()
    before = {name: logging.getLogger(name).level for name in (*LOUD, *LOUDER)}
    for name in before:
        logging.getLogger(name).setLevel(logging.DEBUG)
    logging.getLogger().addHandler(heard)
    yield heard
    logging.getLogger().removeHandler(heard)
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What an OpenTelemetry of the app's would export."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


@dataclass
class Walk:
    """Goes through every flow, and keeps what came of it that anybody may see."""

    story: Story
    canaries: Canaries
    refusals: list[str] = field(default_factory=list[str])
    events: list[Event] = field(default_factory=list[Event])
    errors: list[BaseException] = field(default_factory=list[BaseException])
    seen: list[object] = field(default_factory=list[object])

    async def post(self, path: str, status: int, body: Any, **options: Any) -> httpx.Response:
        client: httpx.AsyncClient = options.pop("client", self.story.client)
        answer = await client.post(f"/auth/{path}", json=body, **options)
        assert answer.status_code == status, (path, answer.text)
        if status >= 400:
            self.refusals.append(answer.text + repr(dict(answer.headers)))
        return answer

    def mailed(self, name: str, address: str, prefix: str) -> str:
        return self.canaries.add(name, self.story.outbox.token(address, prefix))

    async def all(self) -> None:
        await self.sign_up()
        tokens = await self.sign_in()
        tokens = await self.refresh(tokens)
        await self.keys(bearer(tokens))
        await self.cookie()
        await self.change(bearer(tokens))
        await self.reset()
        await self.services()

    async def sign_up(self) -> None:
        given = self.canaries.add("password", PASSWORDS["password"])
        await self.post("register", 201, {"email": ADA, "password": given})
        await self.post("register", 409, {"email": ADA, "password": given})
        await self.post("register", 422, {"email": "none", "password": given, "role": given})
        await self.post("verify-email-request", 202, {"email": ADA})
        await self.story.mails()
        token = self.mailed("verification", ADA, "wwv")
        await self.post("verify-email", 401, {"token": token[:-3] + "AAA", "password": given})
        wrong = self.canaries.add("wrong", PASSWORDS["wrong"])
        await self.post("verify-email", 401, {"token": token, "password": wrong})
        await self.post("verify-email", 204, {"token": token, "password": given})
        await self.post("verify-email", 401, {"token": token, "password": given})

    async def sign_in(self) -> str:
        given, wrong = PASSWORDS["password"], PASSWORDS["wrong"]
        for address in (ADA, EVE):
            await self.post("login", 401, {"email": address, "password": wrong})
        await self.post("login", 422, {"email": ADA, "password": given, "transport": given})
        await self.post("login", 400, None, content=f'{{"password": "{given}"', headers=JSON)
        pair = await self.story.log_in(ADA, given)
        self.keep(pair, "first")
        await self.post("reauthenticate", 401, self.proof(wrong), headers=bearer(pair[ACCESS]))
        await self.post("reauthenticate", 204, self.proof(given), headers=bearer(pair[ACCESS]))
        self.refresh_token = pair["refresh_token"]
        return str(pair[ACCESS])

    def proof(self, password: str) -> dict[str, str]:
        return {"method": "password", "password": password}

    def keep(self, pair: Mapping[str, str], name: str) -> None:
        self.canaries.add(f"{name} access", pair[ACCESS])
        self.canaries.add(f"{name} refresh", pair["refresh_token"])

    async def refresh(self, access: str) -> str:
        first = self.refresh_token
        pair = (await self.post("refresh", 200, {"refresh_token": first})).json()
        self.keep(pair, "second")
        again = (await self.post("refresh", 200, {"refresh_token": first})).json()  # in its grace
        self.keep(again, "grace")
        other = await self.story.log_in(ADA, PASSWORDS["password"])
        self.keep(other, "other")
        third = (await self.post("refresh", 200, {"refresh_token": other["refresh_token"]})).json()
        self.keep(third, "third")
        self.story.move(minutes=1)
        await self.post("refresh", 401, {"refresh_token": other["refresh_token"]})  # reuse
        await self.post("refresh", 401, {"refresh_token": third["refresh_token"][:-4] + "AAAA"})
        answer = await self.story.me(third[ACCESS])
        assert answer.status_code == 401
        self.refusals.append(answer.text + repr(dict(answer.headers)))
        for forged in (third[ACCESS][:-6] + "AAAAAA", first, "wwk_" + "a" * 43):
            answer = await self.story.me(forged)
            assert answer.status_code == 401
            self.refusals.append(answer.text)
        assert (await self.story.me(pair[ACCESS])).status_code == 200
        return str(pair[ACCESS])

    async def keys(self, headers: dict[str, str]) -> None:
        body = {"name": "nightly"}
        made = (await self.post("api-keys", 201, body, headers=headers)).json()
        self.canaries.add("api key", made["key"])
        path = f"api-keys/{made['id']}/rotate"
        renewed = (await self.post(path, 201, {}, headers=headers)).json()
        self.canaries.add("api key rotated", renewed["key"])
        for key in (made["key"], renewed["key"]):
            self.refusals.append((await self.story.me(key)).text)
        for path in ("api-keys", "sessions", "me", "devices"):
            answer = await self.story.client.get(f"/auth/{path}", headers=headers)
            self.seen.append(answer.text)

    async def cookie(self) -> None:
        given = PASSWORDS["password"]
        for transport in ("cookie", "hybrid"):
            async with self.story.another_client() as client:
                await self.story.log_in(ADA, given, transport=transport, client=client)
                self.canaries.cookies(transport, client)
                me = await client.get("/auth/me")
                self.seen.append(me.text)
                await self.post("logout", 403, {}, client=client)  # no CSRF token
                proof = self.proof(given)
                if transport == "cookie":
                    await self.post(
                        "reauthenticate", 204, proof, client=client, headers=csrf_of(client)
                    )
                    self.canaries.cookies(f"{transport} renewed", client)
                await self.post("logout", 204, {}, client=client, headers=csrf_of(client))

    async def change(self, headers: dict[str, str]) -> None:
        given = self.canaries.add("changed", PASSWORDS["changed"])
        await self.post("reauthenticate", 204, self.proof(PASSWORDS["password"]), headers=headers)
        body = {"current_password": PASSWORDS["wrong"], "new_password": given}
        await self.post("password/change", 401, body, headers=headers)
        body["current_password"] = PASSWORDS["password"]
        await self.post("password/change", 422, {**body, "new_password": "short"}, headers=headers)
        await self.post("password/change", 204, body, headers=headers)
        body = {"new_email": EVE, "current_password": given}
        await self.post("email/change", 202, body, headers=headers)
        await self.story.mails()
        token = self.mailed("e-mail change", EVE, "wwe")
        await self.post("email/confirm", 204, {"token": token}, headers=headers)
        await self.story.mails()
        undo = self.mailed("e-mail undo", ADA, "wwu")
        await self.post("email/undo", 401, {"token": undo[:-3] + "AAA"})
        await self.post("email/undo", 204, {"token": undo})

    async def reset(self) -> None:
        for address in (ADA, "nobody@example.com"):
            await self.post("password-reset-request", 202, {"email": address})
        await self.story.mails()
        token = self.mailed("reset", ADA, "wwp")
        given = self.canaries.add("reset password", PASSWORDS["reset"])
        await self.post("password-reset", 422, {"token": token, "new_password": "short"})
        await self.post("password-reset", 204, {"token": token, "new_password": given})
        await self.post("password-reset", 401, {"token": token, "new_password": given})
        self.keep(await self.story.log_in(ADA, given), "after the reset")

    async def services(self) -> None:
        auth = self.story.auth
        granted = await auth.services.grant("billing", audience=["reports"])
        self.seen.append(granted)
        self.canaries.add("service token", await auth.services.token("billing", audience="reports"))
        await auth.keys.rotate(compromised=True)
        client = Client(address="127.0.0.1", user_agent="canary")
        for presented in tuple(self.canaries.found.values()):
            for verb in (
                auth.tokens.refresh(presented, client=client),
                auth.recovery.reset(presented, new_password=PASSWORDS["wrong"]),
                auth.verification.verify(presented, password=PASSWORDS["wrong"]),
                auth.sessions.authenticate(presented, client),
                auth.api_keys.authenticate(presented, client),
                auth.sign_ins.challenge(presented, client=client),
            ):
                try:
                    await verb
                except WatchwordError as error:
                    self.errors.append(error)


ACCESS = "access_token"
JSON = {"Content-Type": "application/json"}


def rows_of(file: Path) -> Iterable[tuple[str, str]]:
    """Every value of every table, as it stands on the disk."""
    with sqlite3.connect(file) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
        for table in tables:
            if table.startswith(("sqlite_", "ix_")):
                continue
            try:
                for row in connection.execute(f'SELECT * FROM "{table}"'):
                    yield table, repr(row)
            except sqlite3.OperationalError:  # an index
                continue


@pytest.mark.capability("DEF-13", "S0-118", "S1-40", "S1-45")
@pytest.mark.standard("16.2.5")
@pytest.mark.slow
async def test_no_secret_is_seen_anywhere(
    tmp_path: Path,
    ear: Ear,
    spans: InMemorySpanExporter,
    endpoint: hooks.Serve,
) -> None:
    canaries = Canaries()
    file = tmp_path / "watchword.db"
    secret, probe = generate_secret(), generate_secret()
    canaries.add("root secret", secret)
    canaries.add("probe token", probe)
    async with (
        endpoint() as theirs,
        telling(f"sqlite:///{file}", secret=secret, probe_token=probe) as story,
    ):
        walk = Walk(story=story, canaries=canaries)

        @story.auth.on(Event)
        async def hear(event: Event) -> None:
            walk.events.append(event)

        story.app.include_router(metrics(story.auth))
        made = await story.auth.webhooks.add(theirs.url, events=["*"], with_email=True)
        canaries.add("webhook", made.secret)
        await walk.all()
        renewed = await story.auth.webhooks.rotate(made.endpoint.id)
        canaries.add("webhook rotated", renewed.secret)
        await story.auth.webhooks.test(made.endpoint.id)
        while await story.auth.webhooks.deliver_due():
            pass
        assert len(canaries.found) > 25, sorted(canaries.found)
        assert len(walk.refusals) > 15
        assert len(walk.events) > 30
        assert len(walk.errors) > 100
        await look(walk, ear, spans, file, theirs)


async def look(
    walk: Walk, ear: Ear, spans: InMemorySpanExporter, file: Path, theirs: hooks.Endpoint
) -> None:
    """Look for each canary in each place; all that was found is said at once."""
    story, canaries = walk.story, walk.canaries
    places: list[tuple[str, str]] = [(f"log of {name}", text) for name, text in ear.lines]
    heard = {name.partition(".")[0] for name, _ in ear.lines}
    assert {"watchword", "aiosqlite", "httpx", "httpcore"} <= heard, heard
    places += [(f"row of {table}", row) for table, row in rows_of(file)]
    assert len({place for place, _ in places if place.startswith("row")}) > 10
    places += [("span", span.to_json()) for span in spans.get_finished_spans()]
    assert any(place == "span" for place, _ in places)
    header = bearer(canaries.found["probe token"])
    for path in ("/metrics", "/openapi.json", "/.well-known/jwks.json"):
        answer = await story.client.get(path, headers=header)
        assert answer.status_code == 200, path
        places.append((path, answer.text))
    places += [("problem", text) for text in walk.refusals]
    places += [("answer", str(each)) for each in walk.seen]
    places += [("webhook", f"{each.body!r}{each.headers!r}") for each in theirs.received]
    assert theirs.received
    for event in walk.events:
        places.append(
            (f"event {type(event).__name__}", repr(event) + repr(dataclasses.asdict(event)))
        )
    for error in walk.errors:
        note = getattr(error, "note", None)
        places.append((f"error {type(error).__name__}", f"{error!r}{error}{note}{vars(error)}"))
    for kind in story.auth.records:
        page = await story.auth.store.find(kind, Paging(order=schema_of(kind).key[1:], limit=1000))
        places += [(f"repr of {kind.__name__}", repr(each)) for each in page.items]
    places += [(f"repr of {name}", text) for name, text in reprs_of(story)]
    # One that is seen, so that looking is shown to find.
    logging.getLogger("elsewhere").debug("a %s", canaries.found["password"])
    places.append((f"log of {ear.lines[-1][0]}", ear.lines[-1][1]))
    found = sorted({(place, name) for place, text in places for name in canaries.seen_in(text)})
    assert found == [("log of elsewhere", "password")]
    # The line of defence behind that: what looks like a secret of ours, whosever it is.
    ours = [text for place, text in places if place.startswith(("log of watchword", "/metrics"))]
    assert [text for text in ours if logs.SECRET.search(text)] == []


def reprs_of(story: Story) -> Iterable[tuple[str, str]]:
    auth = story.auth
    for name, value in (
        ("the App", auth),
        ("its settings", auth.core),
        ("what is in force", auth.settings),
        ("its secrets", auth.secrets),
        ("its store", auth.store),
        ("its cache", auth.cache),
        ("its cookies", auth.cookies),
        ("its csrf", auth.csrf),
        ("its clients", auth.clients),
        ("its hooks", auth.hooks),
        ("its keys", auth.service(Keys)),
        ("what it is made of", vars(auth)),
    ):
        yield name, repr(value) + str(value)
    for feature in auth.features:
        yield feature.name, repr(feature) + repr(auth.settings_of(feature.name))
        yield feature.name, repr(auth._services[feature.name])
        yield feature.name, repr(auth._wirings[feature.name])


# What is committed

SHOWN = ("src", "docs", "examples", "deploy", "scripts", "clients", "README.md", "Dockerfile")
SAMPLES = (  # of docs and of lists, nobody's
    re.compile(r"(.)\1{9}"),
    re.compile(r"^[a-z_/. -]+$"),
    re.compile(r"(?i)example|canary|sample|hunter|correct.horse|changeme|…|\.\.\."),
)
PRIVATE = re.compile(r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----")
GIVEN = re.compile(
    r"(?im)^[^#\n]{0,80}\b(?:secret|password|passwd|api_key|token)\w*\s*[:=]\s*[\"']([^\"'\s{}$<>]{16,})[\"']"
)


@pytest.mark.capability("S1-45")
def test_no_secret_is_committed() -> None:
    looked = 0
    found: list[str] = []
    for name in SHOWN:
        start = ROOT / name
        for path in [start] if start.is_file() else sorted(start.rglob("*")):
            if not path.is_file() or "__pycache__" in path.parts or path.suffix in BINARY:
                continue
            text = path.read_text("utf-8", "replace")
            looked += 1
            hits = [
                *(hit[0] for hit in logs.SECRET.finditer(text)),
                *(hit[1] for hit in GIVEN.finditer(text)),
                *(hit[0] for hit in PRIVATE.finditer(text)),
            ]
            found += [
                f"{path.relative_to(ROOT)}: {hit[:24]}…"
                for hit in hits
                if not any(form.search(hit) for form in SAMPLES)
            ]
    assert looked > 200
    assert not found, "\n".join(found)


BINARY = {".pyc", ".gz", ".bin", ".png", ".ico", ".woff2"}


def test_the_scan_would_find_one() -> None:
    secret = generate_secret().reveal()
    for text in (
        f"WATCHWORD_SECRET={secret}",
        f'secret = "{secret}"',
        'api_key: "9f8e7d6c5b4a39281"',
    ):
        assert logs.SECRET.search(text) or GIVEN.search(text), text

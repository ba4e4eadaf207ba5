"""A story: an app, a client that keeps cookies, an outbox, and a clock that moves.

    async with telling("sqlite://") as story:
        await story.register("ada@example.com", "correct horse battery")
        await story.verify("ada@example.com")
        tokens = await story.log_in("ada@example.com", "correct horse battery")

Needs `httpx`.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
from fastapi import FastAPI

from watchword.crypto.keys import generate_secret
from watchword.features.limits import limits
from watchword.features.lockout import lockout
from watchword.features.mail import Message, OutboxMail, mail
from watchword.http.csrf import origin_of
from watchword.kernel.feature import Feature
from watchword.presets import Watchword, standard
from watchword.testing.clock import MovableClock

ORIGIN = "http://localhost:8000"
PASSWORD = "correct horse battery staple"


@dataclass
class Outbox:
    """An `EmailSender` that keeps what it is given."""

    messages: list[Message] = field(default_factory=list[Message])

    async def send(self, message: Message) -> None:
        """Keep it."""
        self.messages.append(message)

    def to(self, address: str) -> list[Message]:
        """What was sent to this address, oldest first."""
        return [message for message in self.messages if message.recipient == address]

    def token(self, address: str, prefix: str = "ww") -> str:
        """The token in the newest mail to this address that has one of this prefix."""
        for message in reversed(self.to(address)):
            if found := re.search(rf"\b{prefix}[a-z]?_[A-Za-z0-9_-]{{43}}", message.text):
                return found[0]
        raise LookupError(f"no mail with a token to {address}")


@dataclass
class Story:
    """One App in one process, and somebody who uses it."""

    auth: Watchword
    app: FastAPI
    client: httpx.AsyncClient
    outbox: Outbox
    clock: MovableClock

    def another_client(self, **headers: str) -> httpx.AsyncClient:
        """A client with a cookie jar of its own."""
        return client_of(self.app, headers, origin=origin_of(self.auth.public_url))

    async def register(
        self, email: str = "ada@example.com", password: str = PASSWORD, **fields: Any
    ) -> httpx.Response:
        """POST /auth/register."""
        body = {"email": email, "password": password, **fields}
        return await self.client.post("/auth/register", json=body)

    async def mails(self) -> None:
        """Wait until what is due was sent; the App's own worker may be at it too."""
        for _ in range(500):
            while await self.auth.mail.deliver_due():
                pass
            if await self.auth.store.count(OutboxMail, is_given_up=False) == 0:
                return
            await asyncio.sleep(0.01)

    async def verify(
        self, email: str = "ada@example.com", password: str | None = PASSWORD
    ) -> httpx.Response:
        """Verify with the token of the newest mail."""
        await self.mails()
        body = {"token": self.outbox.token(email, "wwv")}
        if password is not None:
            body["password"] = password
        return await self.client.post("/auth/verify-email", json=body)

    async def join(self, email: str = "ada@example.com", password: str = PASSWORD) -> None:
        """Register and verify."""
        (await self.register(email, password)).raise_for_status()
        (await self.verify(email, password)).raise_for_status()

    async def log_in(
        self,
        email: str = "ada@example.com",
        password: str = PASSWORD,
        *,
        transport: str = "bearer",
        client: httpx.AsyncClient | None = None,
    ) -> dict[str, Any]:
        """Sign in; the JSON that came."""
        body = {"email": email, "password": password, "transport": transport}
        answer = await (client or self.client).post("/auth/login", json=body)
        answer.raise_for_status()
        return cast("dict[str, Any]", answer.json())

    async def me(self, access_token: str) -> httpx.Response:
        """GET /auth/me with this token."""
        return await self.client.get("/auth/me", headers=bearer(access_token))

    def move(self, **by: float) -> None:
        """Let time pass: `move(minutes=16)`."""
        self.clock.advance(timedelta(**by))


def bearer(access_token: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"Authorization": f"Bearer {access_token}"}


def client_of(
    app: FastAPI, headers: Mapping[str, str] | None = None, *, origin: str = ORIGIN
) -> httpx.AsyncClient:
    """A client that speaks to the app without a network, as a browser of its own origin."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=_apart(app)),
        base_url=origin,
        headers=dict(headers or {}),
    )


def without_limits(features: Sequence[Feature[Any]] | None = None) -> list[Feature[Any]]:
    """Features, `standard()` by default, with limits and lockout switched off.

    All people of a story live at one address, and many of them sign up there.
    """
    chosen = [each for each in features or standard() if each.name not in {"limits", "lockout"}]
    return [*chosen, limits(enabled=False), lockout(enabled=False)]


def _apart(app: Any) -> Any:
    """The app as a server runs it: each request in a task of its own, which forgets it."""

    async def run(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.create_task(app(scope, receive, send))

    return run


@asynccontextmanager
async def telling(
    database: str = "sqlite://",
    *,
    features: Sequence[Feature[Any]] | None = None,
    app: FastAPI | None = None,
    environ: Mapping[str, str] | None = None,
    **options: Any,
) -> AsyncGenerator[Story]:
    """Start an App for a story and stop it afterwards.

    Args:
        database: a fresh one.
        features: instead of `without_limits()`; mail goes to the story's
            outbox either way.
        app: the app to install into.
        environ: settings as the environment would give them; this process's own counts for nothing.
        options: further `CoreSettings`.
    """
    outbox, clock = Outbox(), MovableClock(datetime.now(UTC))
    if features is None:
        chosen = [each for each in without_limits() if each.name not in {"mail", "users"}]
    else:
        chosen = [each for each in features if each.name != "mail"]
    if features is None or "mail" in {each.name for each in features}:
        chosen.append(mail(sender=outbox))
    options.setdefault("environment", "development")
    options.setdefault("secret", generate_secret())
    options.setdefault("accept_missing", ("limiter", "events"))  # in production too
    if options["environment"] == "development" and options.get("public_url"):
        options.setdefault("dev_hosts", (urlsplit(str(options["public_url"])).hostname,))
    auth = Watchword(database, features=chosen, clock=clock, environ=environ or {}, **options)
    app = app or FastAPI()
    auth.install(app)
    origin = origin_of(auth.public_url)
    async with auth.running(), client_of(app, origin=origin) as client:
        yield Story(auth=auth, app=app, client=client, outbox=outbox, clock=clock)

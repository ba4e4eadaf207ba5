"""The mail server is down: people sign up, and their mail comes when it is back."""

import asyncio
import re
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session
from fastapi import FastAPI

from tests.told import ADA, ANOTHER, PASSWORD, PRODUCTION, SITE, browser, problem
from watchword import Watchword
from watchword.crypto.keys import generate_secret
from watchword.features.mail import OutboxMail, mail
from watchword.testing import MovableClock, without_limits


@dataclass
class Taken:
    """What the mail server took in."""

    texts: list[str] = field(default_factory=list[str])

    async def handle_DATA(  # noqa: N802  aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        assert isinstance(envelope.content, bytes)
        assert envelope.rcpt_tos == [ADA]
        self.texts.append(envelope.content.decode())
        return "250 taken"

    def token(self, prefix: str) -> str:
        found = re.findall(rf"\b{prefix}_[A-Za-z0-9_-]{{43}}", "\n".join(self.texts))
        return str(found[-1])


@asynccontextmanager
async def mail_server(place: socket.socket) -> AsyncGenerator[Taken, None]:
    taken = Taken()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(taken, loop=loop), sock=place)
    try:
        yield taken
    finally:
        server.close()
        await asyncio.sleep(0.02)  # let the last connection notice


async def delivered(auth: Watchword, clock: MovableClock) -> None:
    """Let time pass until the outbox is empty."""
    for _ in range(500):
        clock.advance(timedelta(seconds=10))
        await auth.mail.deliver_due()
        if await auth.store.count(OutboxMail) == 0:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not delivered")


@pytest.mark.capability("S2-09")
@pytest.mark.invariant("I-12")
async def test_people_sign_up_and_reset_while_no_mail_can_leave_and_get_it_later(
    database_url: str,
) -> None:
    clock = MovableClock(datetime.now(UTC))
    place = socket.create_server(("127.0.0.1", 0))
    port = place.getsockname()[1]
    place.close()  # nobody answers there
    features = [each for each in without_limits() if each.name != "mail"]
    features.append(mail(url=f"smtp+plain://127.0.0.1:{port}"))
    auth = Watchword(
        database_url,
        features=features,
        clock=clock,
        environ={},
        secret=generate_secret(),
        **PRODUCTION,
    )
    app = FastAPI()
    auth.install(app)
    async with auth.running(), browser(app, SITE) as client:
        body = {"email": ADA, "password": PASSWORD}
        assert (await client.post("/auth/register", json=body)).status_code == 202
        for _ in range(5):  # each try fails, and nobody is told
            await auth.mail.deliver_due()
            clock.advance(timedelta(seconds=30))
            problem(await client.post("/auth/login", json=body), 403, "email_not_verified")
        asked = await client.post("/auth/password-reset-request", json={"email": ADA})
        assert asked.status_code == 202
        await auth.mail.deliver_due()
        assert await auth.store.count(OutboxMail, is_given_up=False) == 2

        async with mail_server(socket.create_server(("127.0.0.1", port))) as taken:
            await delivered(auth, clock)
            token = taken.token("wwv")
            verified = await client.post(
                "/auth/verify-email", json={"token": token, "password": PASSWORD}
            )
            assert verified.status_code == 204
            reset = {"token": taken.token("wwp"), "new_password": ANOTHER}
            assert (await client.post("/auth/password-reset", json=reset)).status_code == 204
        signed_in = await client.post("/auth/login", json={"email": ADA, "password": ANOTHER})
        assert signed_in.status_code == 200

"""Watchword as the README has it, with production settings."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response

from benchmarks.contenders import CONNECTIONS, posted
from watchword import CurrentPrincipal, CurrentUser, Watchword, requires
from watchword.crypto import hashing
from watchword.crypto.keys import generate_secret
from watchword.features.sessions import sessions
from watchword.features.tokens import tokens
from watchword.features.users import User
from watchword.kernel.principal import Client
from watchword.testing import without_limits

PEOPLE = 32
SESSIONS = 5  # of the one who lists them
PASSWORD = "correct horse battery staple"
SOMEWHERE = Client(address="127.0.0.1", user_agent="benchmarks")


def watchword(database: str, **options: Any) -> Watchword:
    """A Watchword in production; tokens outlive a long run, and one person may have many."""
    changed = (tokens(access_ttl="24h"), sessions(max_sessions=100))
    named = {"users", *(each.name for each in changed)}
    features = [each for each in without_limits() if each.name not in named]
    return Watchword(
        database,
        features=[*features, *changed],
        environ={},
        environment="production",
        public_url="https://bench.example.com",
        require_https=False,  # a proxy of theirs speaks https; here there is none
        secret=generate_secret(),
        accept_missing=("limiter", "events"),
        **options,
    )


async def signed_up(auth: Watchword, *, people: int = 1) -> User:
    """Verified people with a password, `p0@example.com` and on; the first of them."""
    made = await asyncio.gather(
        *(
            auth.passwords.create_user(
                email=f"p{number}@example.com", password=PASSWORD, is_verified=True
            )
            for number in range(people)
        )
    )
    return made[0]


async def signed_in(
    auth: Watchword, user: User, *, transport: str
) -> tuple[Mapping[str, Any], Response]:
    """What somebody is answered who has just signed in: fields of the body, and cookies."""
    started = await auth.sessions.start(
        user, amr=("pwd",), transport=auth.sessions.transport(transport), client=SOMEWHERE
    )
    answer = Response()
    return await started.prepared.deliver(started.session, user, answer), answer


async def credentials(auth: Watchword, user: User, *, transport: str) -> dict[str, str]:
    """The headers of somebody who has just signed in."""
    body, answer = await signed_in(auth, user, transport=transport)
    if transport == "bearer":
        return {"Authorization": f"Bearer {body['access_token']}"}
    pairs = [
        value.decode("latin-1").partition(";")[0]
        for name, value in answer.raw_headers
        if name == b"set-cookie"
    ]
    return {"Cookie": "; ".join(pairs)}


def routed(app: FastAPI, guard: str) -> None:
    """GET /hello, guarded in one of the ways there are."""
    if guard == "principal":

        @app.get("/hello")
        async def hello_principal(principal: CurrentPrincipal) -> dict[str, str]:
            return {"hello": "world" if principal.id else ""}

    elif guard == "user":

        @app.get("/hello")
        async def hello_user(user: CurrentUser) -> dict[str, str]:
            return {"hello": "world" if user.id else ""}

    elif guard == "verified":

        @app.get("/hello", dependencies=[requires(verified=True)])
        async def hello_verified() -> dict[str, str]:
            return {"hello": "world"}

    else:

        @app.get("/hello")
        async def hello() -> dict[str, str]:
            return {"hello": "world"}


async def prepared(
    variant: str, *, data: Path, database: str | None
) -> tuple[FastAPI, list[dict[str, str]]]:
    """`GUARD[+plain][+cookie][+anonymous][+uncached]`.

    Or `signin[+even]`: people; `refresh`: a session a connection; `sessions`: somebody with five.
    """
    guard, *how = variant.split("+")
    if "even" in how:  # hash at the loop's own priority, to see what stepping back brings
        hashing.step_back = lambda: None
    auth = watchword(
        database or f"sqlite:///{data / 'watchword.db'}",
        lift_guards="plain" not in how,
        **({"cache_size": 0} if "uncached" in how else {}),
    )
    app = FastAPI()
    auth.install(app)
    routed(app, guard)
    await auth.start()
    user = await signed_up(auth, people=PEOPLE if guard == "signin" else 1)
    if "anonymous" in how:
        return app, [{}]
    if guard == "signin":
        people = [f"p{number}@example.com" for number in range(PEOPLE)]
        return app, [posted(email=email, password=PASSWORD) for email in people]
    if guard == "refresh":
        bodies = [(await signed_in(auth, user, transport="bearer"))[0] for _ in range(CONNECTIONS)]
        return app, [posted(refresh_token=body["refresh_token"]) for body in bodies]
    if guard == "sessions":
        return app, [await credentials(auth, user, transport="bearer") for _ in range(SESSIONS)]
    transport = "cookie" if "cookie" in how else "bearer"
    # Without a cache, requests that present the same thing at one time would share a look-up.
    several = 64 if "uncached" in how else 1
    return app, [await credentials(auth, user, transport=transport) for _ in range(several)]

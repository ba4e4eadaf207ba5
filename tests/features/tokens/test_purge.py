"""What is past its time goes, and nothing else does."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI

from tests.told import problem, telling
from watchword import Watchword
from watchword.crypto.keys import generate_secret
from watchword.features.sessions import Session, Sessions
from watchword.testing.story import bearer


@pytest.mark.capability("S1-34", "S0-33")
@pytest.mark.invariant("I-05")
async def test_purging_deletes_what_is_past_its_time_and_nothing_else(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.join()
        old = await story.log_in()
        story.clock.advance(timedelta(days=20))
        young = await story.log_in()
        assert (await story.auth.purge())["session"] == 0
        # The old one was over after seven days; its row stays until its family could not live
        # on, and a day longer, so that a replay is noticed.
        story.clock.advance(timedelta(days=12))
        assert (await story.auth.purge())["session"] == 1
        assert await story.auth.store.count(Session) == 1
        story.clock.advance(timedelta(days=40))
        assert (await story.auth.purge())["session"] == 1
        assert await story.auth.store.count(Session) == 0
        assert old != young


@pytest.mark.capability("S0-29", "S0-30", "S0-31")
async def test_a_revoked_token_is_refused_until_it_expires_and_then_nothing_is_kept(
    database_url: str,
) -> None:
    async with telling(database_url) as story:
        await story.join()
        token = (await story.log_in())["access_token"]
        assert await story.auth.tokens.revoke(token, why="reported")
        problem(await story.me(token), 401, "revoked_token")
        claims = story.auth.tokens.peek(token).claims
        session = await story.auth.sessions.get(str(claims["sid"]))
        assert session is not None
        assert session.ended_at is not None
        assert (session.user_id, session.ended_why) == (claims["sub"], "reported")
        story.move(minutes=14)
        await story.auth.purge()
        problem(await story.me(token), 401, "revoked_token")
        story.move(days=2)
        await story.auth.purge()
        assert await story.auth.store.count(Session) == 0
        problem(await story.me(token), 401, "expired_token")


@pytest.mark.capability("S3-09")
async def test_sessions_outlive_a_restart_and_so_does_their_end(tmp_path: Path) -> None:
    database, secret = f"sqlite:///{tmp_path / 'app.db'}", generate_secret()
    async with telling(database, secret=secret) as story:
        await story.join()
        kept, ended = await story.log_in(), await story.log_in()
        assert await story.auth.tokens.revoke(ended["access_token"])
    async with telling(database, secret=secret) as story:
        assert (await story.me(kept["access_token"])).status_code == 200
        problem(await story.me(ended["access_token"]), 401, "revoked_token")
        body = {"refresh_token": kept["refresh_token"]}
        assert (await story.client.post("/auth/refresh", json=body)).status_code == 200


@pytest.mark.capability("S0-34")
async def test_services_are_dependencies_like_any_other() -> None:
    app = FastAPI()

    async with telling(app=app) as story:
        auth: Watchword = story.auth

        def all_sessions() -> Sessions:
            return auth.sessions

        @app.post("/panic/{session_id}")
        async def panic(
            session_id: str, sessions: Annotated[Sessions, Depends(all_sessions)]
        ) -> bool:
            return await sessions.end(session_id, why="panic")

        await story.join()
        token = (await story.log_in())["access_token"]
        claims = auth.tokens.peek(token).claims
        assert (await story.client.post(f"/panic/{claims['sid']}")).json() is True
        problem(await story.client.get("/auth/me", headers=bearer(token)), 401, "revoked_token")

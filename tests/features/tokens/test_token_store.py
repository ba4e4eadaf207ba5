"""The store of tokens, whatever it is: found by themselves and by their user, ended one and all."""

import pytest

from tests.told import ADA, EVE, problem, telling
from watchword.features.sessions import Session
from watchword.features.tokens.refresh import read
from watchword.storage.store import Paging

NEWEST = Paging(order=("started_at", "id"), descending=True)


@pytest.mark.capability("S1-28")
@pytest.mark.invariant("I-01")
async def test_tokens_are_found_and_ended_on_every_store(database_url: str) -> None:
    async with telling(database_url) as story:
        for email in (ADA, EVE):
            await story.join(email)
        auth = story.auth
        first = await story.log_in(ADA)
        story.move(seconds=1)
        second = await story.log_in(ADA)
        others = await story.log_in(EVE)
        ada = await auth.users.find(ADA)

        # by the token, by its id, by the user
        session_id = await auth.tokens.session_of(first["refresh_token"])
        session = await auth.sessions.get(session_id)
        assert session is not None
        assert session.user_id == ada.id
        family = read(first["refresh_token"]).family_digest
        assert await auth.store.get(Session, refresh_family=family) == session
        page = await auth.store.find(Session, NEWEST, user_id=ada.id, ended_at=None)
        assert [each.id for each in page.items] == [
            await auth.tokens.session_of(second["refresh_token"]),
            session_id,
        ]

        # one of a user's
        assert await auth.sessions.end(session_id, why="tested")
        assert not await auth.sessions.end(session_id, why="again")
        problem(await story.me(first["access_token"]), 401, "revoked_token")
        assert (await story.me(second["access_token"])).status_code == 200
        assert await auth.store.count(Session, user_id=ada.id, ended_at=None) == 1

        # all of a user's
        await auth.users.end_all(ada.id, why="tested")
        problem(await story.me(second["access_token"]), 401, "revoked_token")
        body = {"refresh_token": second["refresh_token"]}
        problem(await story.client.post("/auth/refresh", json=body), 401, "revoked_token")
        assert (await story.me(others["access_token"])).status_code == 200

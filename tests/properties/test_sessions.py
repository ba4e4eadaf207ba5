"""Refresh as a machine: whatever a client loses, repeats or steals, one chain lives or none."""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.told import telling
from watchword.features.sessions import Session
from watchword.storage.store import Paging
from watchword.testing import cheap_hashing

pytestmark = [pytest.mark.invariant("I-04", "I-14"), pytest.mark.capability("DEF-07")]

GRACE = 10


class Refreshing(RuleBasedStateMachine):
    """One session, its client, and whoever held a token of it once."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.undo = cheap_hashing()
        self.telling = telling()
        self.story: Any = self.run(self.telling.__aenter__())

    def run(self, step: Any) -> Any:
        return self.loop.run_until_complete(step)

    @initialize()
    def sign_in(self) -> None:
        self.run(self.story.register())
        pair = self.run(self.story.log_in())
        self.chain = [pair["refresh_token"]]  # the last is current, the one before was replaced
        self.access = pair["access_token"]
        self.agents = {"mine": {"User-Agent": "mine"}, "theirs": {"User-Agent": "theirs"}}
        self.rotated_by = ""
        self.rotated = -1000.0  # when the current one was made
        self.used = 0.0
        self.now = 0.0
        self.over = False

    def refresh(self, token: str, agent: str) -> tuple[int, dict[str, Any]]:
        body = {"refresh_token": token}
        answer = self.run(
            self.story.client.post("/auth/refresh", json=body, headers=self.agents[agent])
        )
        return answer.status_code, answer.json()

    @rule(agent=st.sampled_from(["mine", "theirs"]), lost=st.booleans())
    def rotate(self, agent: str, lost: bool) -> None:
        status, body = self.refresh(self.chain[-1], agent)
        if self.over:
            assert (status, body["code"]) == (401, "revoked_token")
        elif self.now - self.used >= 7 * 86400 or self.now >= 30 * 86400:
            assert (status, body["code"]) == (401, "expired_token")
        else:
            assert status == 200
            assert body["refresh_token"] not in self.chain
            self.chain.append(body["refresh_token"])
            self.rotated, self.rotated_by, self.used = self.now, agent, self.now
            if not lost:
                self.access = body["access_token"]

    @precondition(lambda self: len(self.chain) > 1)
    @rule(agent=st.sampled_from(["mine", "theirs"]))
    def repeat_the_one_before(self, agent: str) -> None:
        status, body = self.refresh(self.chain[-2], agent)
        graced = self.now - self.rotated < GRACE and agent == self.rotated_by
        if graced and not self.over:
            assert status == 200
            assert body["refresh_token"] == self.chain[-1]
            self.access = body["access_token"]
        else:
            assert (status, body["code"]) == (401, "refresh_token_reused")
            self.over = True

    @precondition(lambda self: len(self.chain) > 2)
    @rule(data=st.data())
    def replay_an_older_one(self, data: Any) -> None:
        token = data.draw(st.sampled_from(self.chain[:-2]))
        status, body = self.refresh(token, self.rotated_by)
        assert (status, body["code"]) == (401, "refresh_token_reused")
        self.over = True

    @rule()
    def guess(self) -> None:
        guess = "wwr_" + "A" * 22 + self.chain[-1][26:]
        status, body = self.refresh(guess, "mine")
        assert (status, body["code"]) == (401, "invalid_token")

    @rule(seconds=st.sampled_from([1, 9, 10, 11, 600, 86400, 6 * 86400]))
    def wait(self, seconds: int) -> None:
        self.story.move(seconds=seconds)
        self.now += seconds

    @rule()
    def tidy(self) -> None:
        self.run(self.story.auth.tokens.forget_successors())

    @rule()
    def end(self) -> None:
        session = self.only_session()
        self.run(self.story.auth.sessions.end(session.id, why="test"))
        self.over = True

    def only_session(self) -> Session:
        page = self.run(self.story.auth.store.find(Session, Paging(order=("started_at", "id"))))
        assert len(page.items) == 1  # rotated in place: storage does not grow
        return page.items[0]

    @invariant()
    def the_row_says_so_too(self) -> None:
        if not hasattr(self, "chain"):
            return
        session = self.only_session()
        assert (session.ended_at is not None) == self.over
        if self.over:
            assert session.refresh_successor is None
            status = self.run(self.story.me(self.access)).status_code
            assert status == 401

    def teardown(self) -> None:
        self.run(self.telling.__aexit__(None, None, None))
        self.undo.close()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


TestRefreshing = Refreshing.TestCase
TestRefreshing.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    database=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
    ],
)

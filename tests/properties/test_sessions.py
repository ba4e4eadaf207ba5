"""Refresh as a machine: whatever a client loses, repeats or steals, one chain lives or none."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.told import ADA, browser, telling
from watchword.features.sessions import Session
from watchword.storage.store import Paging
from watchword.testing import cheap_hashing

pytestmark = [pytest.mark.invariant("I-04", "I-14"), pytest.mark.capability("DEF-07")]

DAY = 86400
GRACE = 10
FAMILY = 30 * DAY

CLIENTS = {
    "mine": {"User-Agent": "mine", "Cookie": f"device=wwd_{'m' * 43}"},
    "mine without its device": {"User-Agent": "mine"},
    "theirs": {"User-Agent": "theirs", "Cookie": f"device=wwd_{'m' * 43}"},
    "another device": {"User-Agent": "mine", "Cookie": f"device=wwd_{'t' * 43}"},
}
client = st.sampled_from(sorted(CLIENTS))
taken: Counter[str] = Counter()  # steps, by what came of them


class Refreshing(RuleBasedStateMachine):
    """One session, its client, and whoever held a token of it once."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.undo = cheap_hashing()
        self.telling = telling()
        self.story: Any = self.run(self.telling.__aenter__())
        self.client = browser(self.story.app)

    def run(self, step: Any) -> Any:
        return self.loop.run_until_complete(step)

    @initialize(remember=st.booleans())
    def sign_in(self, remember: bool) -> None:
        self.run(self.story.register())
        body = {"email": ADA, "password": "correct horse battery staple", "remember": remember}
        pair = self.run(self.client.post("/auth/login", json=body)).json()
        self.chain = [pair["refresh_token"]]  # the last is current, the one before was replaced
        self.access = pair["access_token"]
        self.idle = FAMILY if remember else 7 * DAY
        self.rotated_by = ""
        self.rotated = -1000.0  # when the current one was made
        self.used = 0.0
        self.now = 0.0
        self.ended = False  # the row says so
        self.raised = False  # the user's epoch says so
        self.forgotten = False  # a rotation was taken back: no word is left of the one before

    def refresh(self, token: str, who: str) -> tuple[int, dict[str, Any]]:
        body = {"refresh_token": token}
        self.client.cookies.clear()
        answer = self.run(self.client.post("/auth/refresh", json=body, headers=CLIENTS[who]))
        said: dict[str, Any] = answer.json()
        taken[said.get("code", "refreshed")] += 1
        return answer.status_code, said

    def dead(self) -> str | None:
        """Why the session is over, if it is: what an honest client hears."""
        if self.ended or self.raised:
            return "revoked_token"
        past = self.now - self.used >= self.idle or self.now >= FAMILY
        return "expired_token" if past else None

    def forget(self) -> None:
        """The current token of a session whose user's epoch was raised rotates, and goes back."""
        if self.raised and not self.ended:
            self.forgotten = True

    @rule(who=client, lost=st.booleans())
    def rotate(self, who: str, lost: bool) -> None:
        status, body = self.refresh(self.chain[-1], who)
        if self.dead():
            assert (status, body["code"]) == (401, self.dead())
            self.forget()
            return
        assert status == 200
        assert body["refresh_token"] not in self.chain
        self.chain.append(body["refresh_token"])
        self.rotated, self.rotated_by, self.used = self.now, who, self.now
        if not lost:
            self.access = body["access_token"]

    @precondition(lambda self: len(self.chain) > 1)
    @rule(who=client | st.just("mine"))
    def repeat_the_one_before(self, who: str) -> None:
        status, body = self.refresh(self.chain[-2], who)
        is_late = self.now - self.rotated < GRACE and who == self.rotated_by
        if self.forgotten or not is_late:
            assert (status, body["code"]) == (401, "refresh_token_reused")
            self.ended = True
        elif self.dead():  # whoever comes late to an end has copied nothing
            assert (status, body["code"]) == (401, "revoked_token")
        else:
            assert status == 200
            assert body["refresh_token"] == self.chain[-1]
            self.access = body["access_token"]

    @precondition(lambda self: len(self.chain) > 1)
    @rule(copies=st.integers(2, 5))
    def repeat_from_several_tabs(self, copies: int) -> None:
        if not self.rotated_by:
            return
        token, headers = self.chain[-1], CLIENTS[self.rotated_by]
        self.client.cookies.clear()

        async def at_once() -> list[Any]:
            body = {"refresh_token": token}
            calls = (
                self.client.post("/auth/refresh", json=body, headers=headers) for _ in range(copies)
            )
            return list(await asyncio.gather(*calls))

        answers = [(answer.status_code, answer.json()) for answer in self.run(at_once())]
        taken["at once"] += copies
        if self.dead():
            assert {(status, body["code"]) for status, body in answers} == {(401, self.dead())}
            self.forget()
            return
        assert {status for status, _ in answers} == {200}
        (successor,) = {body["refresh_token"] for _, body in answers}
        self.chain.append(successor)
        self.access = answers[0][1]["access_token"]
        self.rotated, self.used = self.now, self.now

    @precondition(lambda self: len(self.chain) > 3)
    @rule(data=st.data(), who=client)
    def replay_an_older_one(self, data: Any, who: str) -> None:
        token = data.draw(st.sampled_from(self.chain[:-2]))
        status, body = self.refresh(token, who)
        assert (status, body["code"]) == (401, "refresh_token_reused")
        self.ended = True

    @precondition(lambda self: len(self.chain) % 2 == 0)  # not too often
    @rule()
    def guess(self) -> None:
        current = self.chain[-1]
        other = "wwm_" if current.startswith("wwr_") else "wwr_"
        for wrong in (current[:4] + "A" * 22 + current[26:], other + current[4:]):
            status, body = self.refresh(wrong, "mine")
            assert (status, body["code"]) == (401, "invalid_token")

    @rule(seconds=st.sampled_from([1, 1, 9, 10, 11, 600, DAY, 6 * DAY, 8 * DAY]))
    def wait(self, seconds: int) -> None:
        self.story.move(seconds=seconds)
        self.now += seconds
        taken["waited"] += 1

    @rule()
    def tidy(self) -> None:
        self.run(self.story.auth.tokens.forget_successors())
        taken["tidied"] += 1

    # Not at once: a session that is over has little left to show.
    @precondition(lambda self: len(self.chain) > 2 and not self.dead())
    @rule()
    def end(self) -> None:
        self.run(self.story.auth.sessions.end(self.only_session().id, why="test"))
        self.ended = True
        taken["ended"] += 1

    @precondition(lambda self: len(self.chain) > 2 and not self.dead())
    @rule()
    def raise_the_epoch(self) -> None:
        user = self.run(self.story.auth.users.find(ADA))
        self.run(self.story.auth.users.end_all(user.id, why="test"))
        self.raised = True
        taken["epoch raised"] += 1

    def only_session(self) -> Session:
        page = self.run(self.story.auth.store.find(Session, Paging(order=("started_at", "id"))))
        assert len(page.items) == 1  # rotated in place: storage does not grow
        return page.items[0]

    @invariant()
    def the_row_says_so_too(self) -> None:
        if not hasattr(self, "chain"):
            return
        session = self.only_session()
        assert (session.ended_at is not None) == self.ended
        if self.ended:
            assert session.refresh_successor is None
        if self.dead():
            assert self.run(self.story.me(self.access)).status_code == 401

    def teardown(self) -> None:
        self.run(self.client.aclose())
        self.run(self.telling.__aexit__(None, None, None))
        self.undo.close()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


def test_refreshing_in_any_order(
    count: Callable[[int, int], int], say: Callable[[str], None]
) -> None:
    taken.clear()
    try:
        run_state_machine_as_test(
            Refreshing,
            settings=settings(
                max_examples=count(25, 300),
                phases=(Phase.generate,),  # a story that fails is printed as it was told
                stateful_step_count=20,
                deadline=None,
                database=None,
                suppress_health_check=[
                    HealthCheck.too_slow,
                    HealthCheck.data_too_large,
                    HealthCheck.filter_too_much,
                ],
            ),
        )
    finally:
        came = ", ".join(f"{what} {many}" for what, many in taken.most_common())
        say(f"refresh as a machine: {taken.total()} steps: {came}")
    assert {"refreshed", "refresh_token_reused", "revoked_token"} <= set(taken)

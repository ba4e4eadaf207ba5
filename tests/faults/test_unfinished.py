"""SIGKILL in a change of password or a deletion: it happened, or it did not, never half of it."""

import asyncio
import base64
import contextlib
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count as numbers
from pathlib import Path

import httpx
import pytest

from tests.faults.places import Place
from tests.faults.users_in_flight import LATER
from tests.faults.victim import Forker, Victim
from tests.told import ANOTHER, PASSWORD
from watchword import Watchword
from watchword.features.passwords.records import Password
from watchword.features.sessions import Session
from watchword.features.users import User
from watchword.features.users.records import UserIntent
from watchword.storage.store import Store
from watchword.testing.story import bearer

A_ROUND = 2  # of each kind
MOST_COMMITS, MOST_WRITES = (
    16,
    40,
)  # of one flight; where nothing holds writes together, each is one
MOMENTS = (0.02, 0.05, 0.1)  # seconds

_numbers = numbers()


@dataclass
class Member:
    """Somebody who changes their password, or leaves, while others hold the old password."""

    victim: Victim
    leaves: bool
    email: str = field(default_factory=lambda: f"member{next(_numbers)}@example.com")
    user_id: str = ""
    own: str = ""  # the session that they act in
    under_old: list[str] = field(default_factory=list[str])  # tokens that the old password got
    was_answered: bool = False

    async def join(self, auth: Watchword) -> None:
        user = await auth.passwords.create_user(
            email=self.email, password=PASSWORD, is_verified=True
        )
        self.user_id = user.id

    async def signs_in(self, password: str) -> str | None:
        """The access token, if this password gets one."""
        body = {"email": self.email, "password": password}
        answer = await self.call("POST", "login", json=body)
        assert answer.status_code in {200, 401, 403}, answer.text
        return str(answer.json()["access_token"]) if answer.status_code == 200 else None

    async def is_believed(self, token: str) -> bool:
        answer = await self.call("GET", "me", headers=bearer(token))
        assert answer.status_code in {200, 401}, answer.text
        return answer.status_code == 200

    async def act(self) -> None:
        """What may be cut."""
        with contextlib.suppress(httpx.TransportError):
            if self.leaves:
                answer = await self.call("DELETE", "me", headers=bearer(self.own))
            else:
                body = {"current_password": PASSWORD, "new_password": ANOTHER}
                answer = await self.call(
                    "POST", "password/change", json=body, headers=bearer(self.own)
                )
            assert answer.status_code == 204, answer.text
            self.was_answered = True

    async def intrude(self) -> None:
        """Somebody with the old password signs in, again and again."""
        with contextlib.suppress(httpx.TransportError):
            while token := await self.signs_in(PASSWORD):
                self.under_old.append(token)

    async def call(self, method: str, path: str, **named: object) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            return await client.request(
                method,
                f"{self.victim.address}/auth/{path}",
                **named,  # type: ignore[arg-type]
            )


async def in_flight(members: list[Member], victim: Victim, chance: random.Random) -> None:
    """Everybody at once, until the server dies: by itself, or at a moment."""
    doomed = chance.random() < 0.7
    if doomed:
        victim.doom()
    flight = [asyncio.create_task(step()) for m in members for step in (m.act, m.intrude)]
    moment = 3.0 if doomed else chance.choice(MOMENTS) * chance.random()
    await asyncio.wait(flight, timeout=moment)
    victim.kill()
    await asyncio.gather(*flight)


async def judged(member: Member, store: Store) -> tuple[str, list[str]]:
    """What became of it, and what is wrong with that."""
    if member.leaves:
        return await judged_left(member, store)
    old, new = await member.signs_in(PASSWORD), await member.signs_in(ANOTHER)
    wrong: list[str] = []
    if old and new:
        wrong.append("both passwords sign in")
    if not old and not new:
        wrong.append("stuck: neither password signs in")
    if member.was_answered and not new:
        wrong.append("changed, and the new password does not sign in")
    if new:
        living = [await member.is_believed(token) for token in member.under_old]
        wrong += ["a session of the old password lives"] * sum(living)
    return ("done" if new else "not done"), wrong


def session_of(token: str) -> str:
    """The session that an access token names."""
    claims = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["sid"])


async def judged_left(member: Member, store: Store) -> tuple[str, list[str]]:
    user = await store.get(User, id=member.user_id)
    if user is None:
        wrong: list[str] = []
        # A sign-in that was under way may begin a session yet: it is dead at birth (I-01).
        tokens = [member.own, *member.under_old]
        wrong += ["gone, and a session lives" for t in tokens if await member.is_believed(t)]
        if await store.get(Session, id=session_of(member.own)) is not None:
            wrong.append("gone, and their session is kept")
        if await store.get(Password, user_id=member.user_id) is not None:
            wrong.append("gone, and their password is kept")
        body = {"email": member.email, "password": PASSWORD}
        answer = await member.call("POST", "register", json=body)
        if answer.status_code != 202 or await store.count(User, email_key=member.email) != 1:
            wrong.append(f"stuck: gone, and may not come again: {answer.text}")
        return "done", wrong
    wrong = ["deleted, and still there"] if member.was_answered else []
    token = await member.signs_in(PASSWORD)
    if token is None or not await member.is_believed(token):
        wrong.append("stuck: there, and may not sign in")
    return "not done", wrong


@pytest.mark.slow
@pytest.mark.invariant("I-01", "I-04")
async def test_a_change_or_deletion_that_was_cut_is_whole_once_a_worker_looked(
    place: Place,
    tmp_path: Path,
    count: Callable[[int, int], int],
    say: Callable[[str], None],
) -> None:
    rounds = count(4, 100)
    chance = random.Random(6)
    environ = place.environment(tmp_path / "mails")
    victim = Victim(tmp_path, Forker(environ))
    members: list[Member] = []
    found: list[tuple[str, list[str]]] = []
    left = 0
    try:
        async with place.operator(environ) as auth:
            for _ in range(rounds):
                joined = [Member(victim, leaves) for leaves in (True, False) * A_ROUND]
                for member in joined:
                    await member.join(auth)
                most = MOST_COMMITS if place.is_transactional else MOST_WRITES
                await victim.start(die_after=chance.randrange(most))
                for member in members[-2 * A_ROUND :]:  # of the round before, half done perhaps
                    if token := await member.signs_in(PASSWORD):
                        member.under_old.append(token)
                for member in joined:
                    token = await member.signs_in(PASSWORD)
                    assert token is not None
                    member.own = token
                members += joined
                await in_flight(joined, victim, chance)
            left = await auth.store.count(UserIntent)
            await victim.start(ahead=LATER)
            until = time.monotonic() + 60
            while await auth.store.count(UserIntent):
                assert time.monotonic() < until, "nobody finished what was left"
                await asyncio.sleep(0.1)
            found = [await judged(member, auth.store) for member in members]
    finally:
        victim.close()
        wrong = [f"{m.email}: {fault}" for m, (_, all_) in zip(members, found) for fault in all_]  # noqa: B905
        done = sum(what == "done" for what, _ in found)
        cut = sum(not member.was_answered for member in members)
        say(
            f"{place.name} kills in change and deletion: tries {victim.kills}  "
            f"cut {cut} of {len(members)}  left for a worker {left}  done {done}  "
            f"stuck users {sum('stuck' in fault for fault in wrong)}  half done {len(wrong)}"
        )
    assert not wrong, "\n".join(wrong)
    assert cut
    assert place.is_transactional or left, "no moment between two writes was hit"

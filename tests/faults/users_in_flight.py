"""People on their way through sign-up, verification, refresh and reset while servers die."""

import random
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count

import httpx

from tests.faults.victim import Letterbox, Victim
from watchword.features.mail import OutboxMail
from watchword.features.sessions import Session
from watchword.features.tokens import refresh
from watchword.storage.store import Paging, Store

FIRST, SECOND, THIRD = (f"correct horse battery {word}" for word in ("one", "two", "three"))
GRACE = 10  # seconds, the default of tokens.refresh_grace
LOST = 0.25  # of the answers
PATIENCE = 0.5  # seconds until somebody asks for another mail
LATER = 100  # seconds: past the grace, and past what dead workers held: mails, jobs


class Stuck(Exception):
    """Somebody who cannot go on, and why."""


class Cut(Exception):
    """The server died before it answered."""


@dataclass
class Totals:
    """What is counted over all kills of one database."""

    stuck: list[str] = field(default_factory=list[str])
    worked_twice: list[str] = field(default_factory=list[str])
    mails_lost: list[str] = field(default_factory=list[str])
    in_flight: Counter[str] = field(default_factory=Counter[str])
    cut: Counter[str] = field(default_factory=Counter[str])  # the server died
    lost: Counter[str] = field(default_factory=Counter[str])  # it answered, and nobody heard
    committed: Counter[str] = field(default_factory=Counter[str])  # of both, it had happened


@dataclass
class Site:
    """The server as clients see it, wherever it listens now."""

    victim: Victim
    letters: Letterbox
    store: Store  # to see what was committed; decides nothing
    chance: random.Random
    is_transactional: bool = True
    totals: Totals = field(default_factory=Totals)
    waited: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    client: httpx.AsyncClient = field(
        default_factory=lambda: httpx.AsyncClient(trust_env=False, timeout=20)
    )

    async def post(self, path: str, **body: str) -> httpx.Response:
        """POST /auth/…; the server may die meanwhile, but never say that it failed."""
        try:
            answer = await self.client.post(f"{self.victim.address}/auth/{path}", json=body)
        except httpx.TransportError as error:
            raise Cut(path) from error
        if answer.status_code >= 500:
            raise Stuck(f"{path}: {answer.status_code} {answer.text}")
        return answer

    async def me(self, token: str) -> int:
        """The status of GET /auth/me."""
        headers = {"Authorization": f"Bearer {token}"}
        answer = await self.client.get(f"{self.victim.address}/auth/me", headers=headers)
        return answer.status_code

    async def was_rotated(self, refresh_token: str) -> bool:
        """Has this token got its successor?"""
        token = refresh.read(refresh_token)
        session = await self.store.get(Session, refresh_family=token.family_digest)
        return session is not None and session.refresh_previous == token.proof_digest

    async def hang_up(self) -> None:
        """A server died: forget its connections, and see which mails it left."""
        page = await self.store.find(
            OutboxMail, Paging(order=("due_at", "id"), limit=1000), purpose="verify_email"
        )
        for row in page.items:
            self.waited[row.address].add(row.id)
        await self.client.aclose()
        self.client = httpx.AsyncClient(trust_env=False, timeout=20)


_numbers = count()


@dataclass
class Person:
    """Takes one step in flight, finds out what became of it, and goes on to the next."""

    site: Site
    email: str = ""
    password: str = FIRST
    stage: str = "register"
    token: str = ""  # from the newest mail
    pair: dict[str, str] = field(default_factory=dict[str, str])
    asked: Counter[str] = field(default_factory=Counter[str])  # mails, by their token's prefix
    answered: httpx.Response | None = None
    left_at: float = 0.0
    was_cut_resetting: bool = False

    def __post_init__(self) -> None:
        self.email = f"u{next(_numbers)}@example.com"

    # In flight

    async def step(self) -> None:
        """The step that may be cut."""
        self.site.totals.in_flight[self.stage] += 1
        mail = {"register": "wwv", "ask": "wwp"}.get(self.stage)
        self.answered, self.left_at = None, time.monotonic()
        steps: dict[str, Callable[[], Awaitable[httpx.Response]]] = {
            "register": lambda: self._post("register", email=self.email, password=FIRST),
            "verify": lambda: self._post("verify-email", token=self.token, password=FIRST),
            "refresh": lambda: self._post("refresh", refresh_token=self.pair["refresh_token"]),
            "ask": lambda: self._post("password-reset-request", email=self.email),
            "reset": lambda: self._post("password-reset", token=self.token, new_password=SECOND),
        }
        try:
            self.answered = await steps[self.stage]()
        except Cut:
            self.site.totals.cut[self.stage] += 1
            self.was_cut_resetting = self.was_cut_resetting or self.stage == "reset"
            return
        if mail is not None:
            self.asked[mail] += 1
        if self.answered.status_code < 300 and self.site.chance.random() < LOST:
            self.answered = None  # on its way back
            self.site.totals.lost[self.stage] += 1

    async def go_on(self) -> None:
        """After the server is back: whatever happened to the step, finish it, once."""
        finish = {
            "register": self._registered,
            "verify": self._verified,
            "refresh": self._refreshed,
            "ask": self._asked,
            "reset": self._reset,
        }
        try:
            await finish[self.stage]()
        except (Stuck, Cut, LookupError) as error:
            self.site.totals.stuck.append(f"{self.email} at {self.stage}: {error!r}")
            self.stage = "stuck"

    async def _post(self, path: str, **body: str) -> httpx.Response:
        return await self.site.post(path, **body)

    async def _registered(self) -> None:
        if self.answered is None:  # they simply try again
            known = (await self._post("login", email=self.email, password=FIRST)).status_code == 403
            self.site.totals.committed["register"] += known
            self._expect(await self._post("register", email=self.email, password=FIRST), 202)
            self.asked["wwv"] += 1
        else:
            self._expect(self.answered, 202)
        await self._get_verification()
        self.stage = "verify"

    async def _get_verification(self) -> None:
        box = self.site.letters
        try:
            self.token = await box.newest(self.email, "wwv", wait=PATIENCE)
        except LookupError:  # its worker died with it, and the lease is not over: ask anew
            await self._ask("verify-email-request", "wwv")
            self.token = await box.newest(self.email, "wwv", wait=10)

    async def _verified(self) -> None:
        verified = await self._signs_in(FIRST)
        if self.answered is None:
            self.site.totals.committed["verify"] += verified
        elif self.answered.status_code == 204 and not verified:
            raise Stuck("verified, and may not sign in")
        spent = [self.token] if verified else []
        for _ in range(5):
            if verified:
                break
            answer = await self._post("verify-email", token=self.token, password=FIRST)
            if answer.status_code == 204:
                spent.append(self.token)
                verified = await self._signs_in(FIRST)
            else:  # a later mail made it void
                self._expect(answer, 401)
                had = len(self.site.letters.tokens(self.email, "wwv"))
                await self._ask("verify-email-request", "wwv")
                self.token = await self.site.letters.newest(self.email, "wwv", past=had, wait=10)
        if not verified:
            raise Stuck("no token verifies")
        for token in spent:
            await self._refused_twice("verify-email", token=token, password=FIRST)
        self.stage = "refresh"

    async def _refreshed(self) -> None:
        first = self.pair["refresh_token"]
        if self.answered is None:
            done = await self.site.was_rotated(first)
            self.site.totals.committed["refresh"] += done
            answer = await self._post("refresh", refresh_token=first)
            if answer.status_code != 200 and time.monotonic() - self.left_at > GRACE - 1:
                self._expect(answer, 401)
                if not await self._signs_in(FIRST):  # too late to ask again: sign in
                    raise Stuck("cannot sign in after a refresh that was cut")
                first = self.pair["refresh_token"]
                answer = await self._post("refresh", refresh_token=first)
        else:
            answer = self.answered
        self._expect(answer, 200)
        second = answer.json()
        answer = await self._post("refresh", refresh_token=second["refresh_token"])
        self._expect(answer, 200)
        third = answer.json()
        if await self.site.me(third["access_token"]) != 200:
            raise Stuck("the access token of a refresh is refused")
        # The successor was used, so the grace is over: the first token ends the session.
        await self._refused_twice("refresh", refresh_token=first)
        self._expect(await self._post("refresh", refresh_token=third["refresh_token"]), 401)
        if not await self._signs_in(FIRST):
            raise Stuck("cannot sign in anew")
        self.stage = "ask"

    async def _asked(self) -> None:
        if self.answered is not None:
            self._expect(self.answered, 202)
        try:
            self.token = await self.site.letters.newest(self.email, "wwp", wait=PATIENCE)
            self.site.totals.committed["ask"] += self.answered is None
        except LookupError:
            await self._ask("password-reset-request", "wwp")
            self.token = await self.site.letters.newest(self.email, "wwp", wait=10)
        self.stage = "reset"

    async def _reset(self) -> None:
        before = self.pair
        done = await self._signs_in(SECOND)
        if self.answered is None:
            self.site.totals.committed["reset"] += done
        elif self.answered.status_code == 204 and not done:
            raise Stuck("reset, and the new password does not sign in")
        if not done and not await self._signs_in(FIRST):
            raise Stuck("neither the old nor the new password signs in")
        spent = [self.token] if done else []
        for _ in range(5):
            if done:
                break
            answer = await self._post("password-reset", token=self.token, new_password=SECOND)
            if answer.status_code == 204:
                spent.append(self.token)
                done = await self._signs_in(SECOND)
            else:  # a later mail made it void
                self._expect(answer, 401)
                had = len(self.site.letters.tokens(self.email, "wwp"))
                await self._ask("password-reset-request", "wwp")
                self.token = await self.site.letters.newest(self.email, "wwp", past=had, wait=10)
        if not done:
            raise Stuck("no token resets")
        for token in spent:
            await self._refused_twice("password-reset", token=token, new_password=THIRD)
        if await self._signs_in(THIRD) or await self._signs_in(FIRST):
            raise Stuck("another password than the newest signs in")
        if await self.site.me(before["access_token"]) != 401:
            raise Stuck("a session from before the reset lives on")
        self.password = SECOND
        if not await self._signs_in(SECOND):
            raise Stuck("cannot sign in after the reset")
        answer = await self._post("refresh", refresh_token=self.pair["refresh_token"])
        self._expect(answer, 200)
        self.pair = {**answer.json(), "replaced": self.pair["refresh_token"]}
        self.stage = "done"

    # At the end, when the grace is long over

    async def replay(self) -> None:
        """The token replaced long ago ends the session; the way in is a sign-in."""
        try:
            if self.was_cut_resetting and not self.site.is_transactional:
                # A worker completed that reset, and ended what began meanwhile.
                if not await self._signs_in(self.password):
                    raise Stuck("cannot sign in after a reset was completed")
                return
            await self._refused_twice("refresh", refresh_token=self.pair["replaced"])
            answer = await self._post("refresh", refresh_token=self.pair["refresh_token"])
            self._expect(answer, 401)
            if not await self._signs_in(self.password):
                raise Stuck("cannot sign in at the end")
        except (Stuck, Cut) as error:
            self.site.totals.stuck.append(f"{self.email} at the end: {error!r}")

    def look_for_lost_mail(self) -> None:
        """Each request that was answered must have brought its mail by now."""
        for prefix, asked in self.asked.items():
            came = len(self.site.letters.tokens(self.email, prefix))
            # What still waited when a server died may come after the address was verified:
            # then there is nothing to send.
            late = len(self.site.waited[self.email]) if prefix == "wwv" else 0
            if came + late < asked:
                self.site.totals.mails_lost.append(
                    f"{self.email}: {came} {prefix}, {late} late, of {asked}"
                )

    # Words

    async def _ask(self, path: str, prefix: str) -> None:
        self._expect(await self._post(path, email=self.email), 202)
        self.asked[prefix] += 1

    async def _signs_in(self, password: str) -> bool:
        answer = await self._post("login", email=self.email, password=password)
        if answer.status_code == 200:
            self.pair = answer.json()
            return True
        self._expect(answer, 401, 403)
        return False

    async def _refused_twice(self, path: str, **body: str) -> None:
        answer = await self._post(path, **body)
        if answer.status_code < 400:
            self.site.totals.worked_twice.append(f"{self.email}: {path} {answer.text}")
            return
        code = "refresh_token_reused" if path == "refresh" else "invalid_token"
        if answer.json()["code"] != code:
            raise Stuck(f"{path} again: {answer.text}")

    @staticmethod
    def _expect(answer: httpx.Response, *statuses: int) -> None:
        if answer.status_code not in statuses:
            raise Stuck(f"{answer.request.url.path}: {answer.status_code} {answer.text}")

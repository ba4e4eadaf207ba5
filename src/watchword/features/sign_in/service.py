"""The chain: a factor was proven; what else is owed before there is a session?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from watchword.features.sessions import Session, Sessions, Started, Transport, agent_digest
from watchword.features.sign_in.events import SignInFailed
from watchword.features.sign_in.records import Challenge, Purpose
from watchword.features.sign_in.settings import SignInSettings
from watchword.features.users import User, UserDeleted, Users
from watchword.kernel.clock import Clock
from watchword.kernel.errors import (
    AccountDisabled,
    ConfigurationError,
    ExpiredToken,
    InvalidToken,
    WatchwordError,
)
from watchword.kernel.ids import new_id
from watchword.kernel.ports import Owed, Proof, SignInStep
from watchword.kernel.principal import Client
from watchword.kernel.secrets import Secret, digest_of, new_secret
from watchword.storage.store import Store, gt, lt, plus, where

PREFIX = "wwh_"
PURPOSE = "challenge"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIns:
    """Sign-ins of one realm. Every way of signing in ends here, so that none skips a step."""

    store: Store
    settings: SignInSettings
    clock: Clock
    users: Users[Any]
    sessions: Sessions
    steps: Sequence[SignInStep]
    proofs: Sequence[Proof]

    async def open(self) -> None:
        """Put the steps in order, or do not start.

        Raises:
            ConfigurationError: two steps of one name, or a circle.
        """
        self.chain()

    def chain(self) -> tuple[SignInStep, ...]:
        """The steps, each after those it names; never in the order of registration."""
        by_name = {each.step: each for each in self.steps}
        if len(by_name) < len(self.steps):
            raise ConfigurationError(["two features add a sign-in step of one name: keep one"])
        done: dict[str, SignInStep] = {}
        waiting = sorted(by_name)
        while waiting:
            ready = [
                name
                for name in waiting
                if all(each in done or each not in by_name for each in by_name[name].after)
            ]
            if not ready:
                names = ", ".join(waiting)
                raise ConfigurationError([f"sign-in steps wait for one another: {names}"])
            # One at a time: what is ready first by name never overtakes what it makes ready.
            done[ready[0]] = by_name[ready[0]]
            waiting.remove(ready[0])
        return tuple(done.values())

    async def finish(
        self,
        user: User,
        *,
        amr: tuple[str, ...],
        transport: Transport,
        client: Client,
        remember: bool = False,
        replaces: str | None = None,
    ) -> Started:
        """The first factor is proven: begin a session, or say what is owed.

        Args:
            user: as read *before* that factor was checked (I-01).
            amr: the factors proven.
            transport: how the session is carried.
            client: where the request comes from.
            remember: whether they asked to stay signed in.
            replaces: the session that this browser had before.

        Raises:
            AccountDisabled: or what a step is owed, with a challenge in it.
        """
        try:
            if not user.is_active:
                raise AccountDisabled
            owed = await self._owed(user, amr, "sign_in")
            if owed is not None:
                token = await self._challenge(
                    user, "sign_in", amr, client, transport=transport.name, remember=remember
                )
                raise self._said(owed, token)
        except WatchwordError as refused:
            await self.failed(user, refused.code)
            raise
        return await self.sessions.start(
            user, amr=amr, transport=transport, client=client, remember=remember, replaces=replaces
        )

    async def renew(
        self, session: Session, user: User, *, amr: tuple[str, ...], client: Client
    ) -> Secret | None:
        """A factor was proven again in a session: it is fresh, unless more is owed (I-15).

        Returns:
            The session cookie that replaces the old one, if the session has one.

        Raises:
            RevokedToken: the session ended meanwhile.
            WatchwordError: what a step is owed, with a challenge in it.
        """
        owed = await self._owed(user, amr, "reauthenticate")
        if owed is not None:
            token = await self._challenge(
                user, "reauthenticate", amr, client, session_id=session.id
            )
            raise self._said(owed, token)
        return await self.sessions.renew(session, amr=amr, client=client)

    async def challenge(self, token: str, *, client: Client) -> tuple[Challenge, User]:
        """A challenge that still stands, and whose it is. Each call counts as a try (I-20).

        Raises:
            InvalidToken: unknown, spent, tried too often, another client's, or its user changed.
            ExpiredToken
        """
        digest = digest_of(token, purpose=PURPOSE)
        now = self.clock.now()
        tried = await self.store.update(
            Challenge,
            where(digest=digest, tries=lt(self.settings.challenge_tries), expires_at=gt(now)),
            tries=plus(1),
        )
        if tried is None:
            found = await self.store.get(Challenge, digest=digest)
            if found is not None and found.expires_at <= now:
                raise ExpiredToken(note="challenge")
            raise InvalidToken(note="no such challenge, or tried too often")
        if tried.agent_digest != agent_digest(client) or tried.device != client.device:
            raise InvalidToken(note="the challenge is another client's")
        user: User | None = await self.users.get(tried.user_id)
        if user is None or not user.is_active or user.epoch != tried.epoch:
            raise InvalidToken(note="the challenge's user changed")
        return tried, user

    async def proceed(
        self,
        token: str,
        *,
        client: Client,
        proven: tuple[str, ...] = (),
        replaces: str | None = None,
    ) -> Started:
        """Go on with a sign-in that something was owed for: a session, or what is still owed.

        Args:
            token: from the refusal.
            client: must be the one that began.
            proven: factors that the caller checked, after `challenge` counted the try.
            replaces: the session that this browser had before.

        Raises:
            InvalidToken, ExpiredToken: the sign-in begins anew.
            WatchwordError: what is owed still, with the same challenge.
        """
        challenge, user = await self.challenge(token, client=client)
        if challenge.purpose != "sign_in":
            raise InvalidToken(note="a challenge of another purpose")
        amr = (*challenge.amr, *(each for each in proven if each not in challenge.amr))
        owed = await self._owed(user, amr, "sign_in")
        if owed is not None:
            if amr != challenge.amr:
                await self.store.update(
                    Challenge, where(id=challenge.id, amr=challenge.amr), amr=amr
                )
            raise self._said(owed, token)
        taken = await self.store.take(
            Challenge, digest=challenge.digest, epoch=user.epoch, expires_at=gt(self.clock.now())
        )
        if taken is None:
            raise InvalidToken(note="the challenge was spent")
        return await self.sessions.start(
            replace(user, epoch=taken.epoch),
            amr=amr,
            transport=self.sessions.transport(taken.transport),
            client=client,
            remember=taken.remember,
            replaces=replaces,
        )

    async def failed(self, user: User | None, reason: str) -> None:
        """Announce a sign-in that was refused; committed before the refusal is said (I-04)."""
        await self.store.announce(
            SignInFailed(
                realm=self.store.realm,
                at=self.clock.now(),
                user_id=user.id if user else None,
                reason=reason,
            )
        )

    async def forget_user(self, tx: Store, event: UserDeleted) -> None:
        """A user was deleted: so is what they owed."""
        await tx.erase(Challenge, user_id=event.user_id)

    async def _owed(self, user: User, amr: tuple[str, ...], purpose: Purpose) -> Owed | None:
        for step in self.chain():
            owed = await step.owed(user, proven=amr, purpose=purpose)
            if owed is not None:
                return owed
        return None

    async def _challenge(
        self,
        user: User,
        purpose: Purpose,
        amr: tuple[str, ...],
        client: Client,
        *,
        transport: str = "",
        remember: bool = False,
        session_id: str | None = None,
    ) -> str:
        now = self.clock.now()
        token = new_secret(PREFIX)
        await self.store.insert(
            Challenge(
                realm=self.store.realm,
                id=new_id(now),
                digest=digest_of(token, purpose=PURPOSE),
                user_id=user.id,
                epoch=user.epoch,
                purpose=purpose,
                session_id=session_id,
                amr=amr,
                transport=transport,
                remember=remember,
                agent_digest=agent_digest(client),
                device=client.device,
                created_at=now,
                expires_at=now + self.settings.challenge_ttl,
            )
        )
        return token.reveal()

    def _said(self, owed: Owed, token: str) -> WatchwordError:
        error = owed.error
        error.extra = {
            **error.extra,
            owed.named: token,
            "expires_in": int(self.settings.challenge_ttl.total_seconds()),
        }
        return error

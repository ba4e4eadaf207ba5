"""The chain: a factor was proven; what else is owed before there is a session?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from watchword.features.sessions import Session, Sessions, Started, Transport, agent_digest
from watchword.features.sign_in.events import SignInFailed, SignInOwed
from watchword.features.sign_in.records import Challenge, Purpose
from watchword.features.sign_in.settings import SignInSettings
from watchword.features.users import User, UserDeleted, Users
from watchword.kernel.attempts import Attempts
from watchword.kernel.clock import Clock
from watchword.kernel.errors import (
    AccountDisabled,
    ConfigurationError,
    ExpiredToken,
    Fault,
    InvalidCredentials,
    InvalidInput,
    InvalidToken,
    NotAuthenticated,
    RefusedByHook,
    RevokedToken,
    WatchwordError,
)
from watchword.kernel.ids import new_id
from watchword.kernel.ports import Owed, Proof, SignInStep
from watchword.kernel.principal import Client
from watchword.kernel.secrets import Secret, digest_of, new_secret
from watchword.storage.store import Store, gt, lt, plus, where

PREFIX = "wwh_"
PURPOSE = "challenge"

_EXPIRES_IN = "expires_in"
_CREDITED_AGAIN = 10  # times, when other requests credit factors to one challenge


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A chain that waits, and whose it is. Whoever has this has counted a try."""

    challenge: Challenge
    user: User  # as read after the try was counted
    token: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """A session that is fresh again."""

    session: Session
    cookie: Secret | None  # in the old one's place, if the session has one


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
    attempts: Attempts

    async def open(self) -> None:
        """Put the steps in order, or do not start.

        Raises:
            ConfigurationError: two steps of one name, a circle, or two proofs of one method.
        """
        self.chain()
        methods = [each.method for each in self.proofs]
        if len(set(methods)) < len(methods):
            raise ConfigurationError(["two features offer a proof of one method: keep one"])
        if self.settings.login_floor is not None:
            self.attempts.floor.set_to(self.settings.login_floor.total_seconds())

    def chain(self) -> tuple[SignInStep, ...]:
        """The steps, each after those it names; never in the order of registration.

        Raises:
            ConfigurationError: two of one name, or a circle.
        """
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
            # One at a time, the first by name: one order, whatever the order of registration.
            done[ready[0]] = by_name[ready[0]]
            waiting.remove(ready[0])
        return tuple(done.values())

    # Signing in

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
            client: where the request comes from; what is owed is bound to it.
            remember: whether they asked to stay signed in.
            replaces: the session that this browser had before.

        Raises:
            AccountDisabled: or InvalidCredentials, where `hide_disabled` is on.
            WatchwordError: what a step is owed, with a challenge in it.
            RefusedByHook: a gate of the application said no.
        """
        if not user.is_active:
            await self.failed(user, AccountDisabled.code)
            if self.settings.hide_disabled:
                raise InvalidCredentials(note="disabled")
            raise AccountDisabled
        owed = await self._owed(user, amr, "sign_in")
        if owed is not None:
            pending = await self._wait(
                owed,
                user,
                "sign_in",
                amr=amr,
                client=client,
                transport=transport.name,
                remember=remember,
            )
            raise self._said(owed, pending)
        return await self._begin(
            user, amr=amr, transport=transport, client=client, remember=remember, replaces=replaces
        )

    async def _begin(self, user: User, **named: Any) -> Started:
        """A session, unless a gate of the application refuses; then that is a failed sign-in."""
        try:
            return await self.sessions.start(user, **named)
        except RefusedByHook as refused:
            await self.failed(user, refused.code)
            raise

    async def challenge(
        self,
        token: str,
        *,
        client: Client,
        purpose: Purpose | None = None,
        session_id: str | None = None,
    ) -> Pending:
        """A chain that still waits, and whose it is. Each call is a try, counted first (I-20).

        A feature that completes a step calls this first, then compares what came. It keeps a
        record of its own, or notes a factor with `credit`; then its step is asked again.

        Args:
            token: from the refusal.
            client: must be the one that began. Another one has stolen the token: it is void.
            purpose: what the chain must be for, if that matters.
            session_id: where it is to prove a factor again, the session that asks.

        Raises:
            InvalidToken: unknown, spent, tried too often, another client's, or its user changed.
            ExpiredToken
        """
        await self.attempts.count("challenge", client=client)
        digest = digest_of(token, purpose=PURPOSE)
        now = self.clock.now()
        wanted = {} if purpose is None else {"purpose": purpose}
        tried = await self.store.update(
            Challenge,
            where(
                digest=digest, tries=lt(self.settings.challenge_tries), expires_at=gt(now), **wanted
            ),
            tries=plus(1),
        )
        if tried is None:
            found = await self.store.get(Challenge, digest=digest)
            if found is not None and found.expires_at <= now:
                raise ExpiredToken(note="challenge")
            raise InvalidToken(note="no such challenge, or tried too often")
        is_theirs = tried.agent_digest == agent_digest(client) and tried.device == client.device
        if not is_theirs or (session_id is not None and tried.session_id != session_id):
            await self.store.take(Challenge, digest=digest)
            await self.failed(await self.users.get(tried.user_id), "challenge_elsewhere")
            raise InvalidToken(note="the challenge is another client's; it is void now")
        user: User | None = await self.users.get(tried.user_id)
        if user is None or not user.is_active or user.epoch != tried.epoch:
            raise InvalidToken(note="the challenge's user changed")
        await self.attempts.count("mfa", account=user.email_key, client=client)
        return Pending(challenge=tried, user=user, token=Secret(token))

    async def credit(self, pending: Pending, factor: str) -> Pending:
        """Note a factor that the caller checked, after `challenge` counted the try.

        Args:
            pending: from `challenge`.
            factor: as RFC 8176 names it.

        Raises:
            InvalidToken: another request spent the challenge.
        """
        challenge: Challenge | None = pending.challenge
        for _ in range(_CREDITED_AGAIN):
            if challenge is None:
                break
            if factor in challenge.amr:
                return replace(pending, challenge=challenge)
            credited = await self.store.update(
                Challenge,
                where(id=challenge.id, amr=challenge.amr),
                amr=(*challenge.amr, factor),
                proven_at=self.clock.now(),
            )
            challenge = credited or await self.store.get(Challenge, id=challenge.id)
        raise InvalidToken(note="the challenge was spent")

    async def reach(self, pending: Pending, step: str) -> None:
        """Make sure that a chain has come to a step: nothing before it is owed.

        Raises:
            WatchwordError: what is owed before, with the same challenge.
        """
        challenge = pending.challenge
        owed = await self._owed(pending.user, challenge.amr, challenge.purpose, before=step)
        if owed is not None:
            raise self._said(owed, pending)

    async def carry(self, pending: Pending, *, epoch: int, within: Store) -> Pending:
        """Carry one chain over an epoch that its own step raised (I-01).

        Args:
            pending: from `challenge`.
            epoch: the user's from now on.
            within: the transaction that raised it.

        Raises:
            InvalidToken: another request spent it.
        """
        was = pending.challenge.epoch
        carried = await within.update(
            Challenge, where(id=pending.challenge.id, epoch=was), epoch=epoch
        )
        if carried is None:
            raise InvalidToken(note="the challenge was spent")
        return replace(pending, challenge=carried, user=replace(pending.user, epoch=epoch))

    async def proceed(
        self, pending: Pending, *, client: Client, replaces: str | None = None
    ) -> Started:
        """Go on with a sign-in that something was owed for: a session, or what is still owed.

        Args:
            pending: from `challenge`, which counted the try.
            client: where the request comes from.
            replaces: the session that this browser had before.

        Raises:
            InvalidToken: the challenge is for something else, or another request spent it.
            WatchwordError: what is owed still, with the same challenge.
        """
        if pending.challenge.purpose != "sign_in":
            raise InvalidToken(note="a challenge of another purpose")
        await self._through(pending)
        taken = await self._spend(pending)
        return await self._begin(
            replace(pending.user, epoch=taken.epoch),
            amr=taken.amr,
            transport=self.sessions.transport(taken.transport),
            client=client,
            remember=taken.remember,
            replaces=replaces,
            proven_at=taken.proven_at,
        )

    # Proving oneself again, in a session

    async def reauthenticate(
        self, session_id: str, *, method: str, presented: str, client: Client
    ) -> Renewed:
        """Prove a factor again: the session is fresh, unless another is owed too (I-15).

        `auth_time` and `amr` are what was proven now, not what was proven once.

        Args:
            session_id: of the session that the request came with.
            method: of one of the proofs that are installed.
            presented: what is known or held.
            client: where the request comes from; the session's binding moves there.

        Raises:
            InvalidInput: no such method.
            InvalidCredentials: it is wrong.
            RevokedToken, ExpiredToken: the session is over.
            WatchwordError: what a step is owed, with a challenge in it.
        """
        proof = self._proof(method)
        # Before the proof: whatever ends the session from here on makes its row another (I-01).
        session, user = await self._living(session_id)
        if not await proof.prove(user, presented):
            raise InvalidCredentials(note="reauthentication")
        amr = (proof.amr,)
        owed = await self._owed(user, amr, "reauthenticate")
        if owed is not None:
            pending = await self._wait(
                owed, user, "reauthenticate", amr=amr, client=client, session_id=session.id
            )
            raise self._said(owed, pending)
        return await self._renewed(session, amr, client)

    async def renew(self, pending: Pending, *, client: Client) -> Renewed:
        """Go on with proving oneself again, once what it owed was brought.

        Args:
            pending: from `challenge`, given the session that the request came with.
            client: where the request comes from; the session's binding moves there.

        Raises:
            InvalidToken: the challenge is for something else, or another request spent it.
            RevokedToken, ExpiredToken: the session is over.
            WatchwordError: what is owed still, with the same challenge.
        """
        challenge = pending.challenge
        if challenge.purpose != "reauthenticate" or challenge.session_id is None:
            raise InvalidToken(note="a challenge of another purpose")
        session, _ = await self._living(challenge.session_id)
        if session.user_id != challenge.user_id or session.epoch != challenge.epoch:
            raise InvalidToken(note="the challenge's session changed")
        await self._through(pending)
        taken = await self._spend(pending)
        return await self._renewed(session, taken.amr, client, taken.proven_at)

    # What happened

    async def failed(
        self,
        user: User | None,
        reason: str,
        *,
        factor: str | None = None,
        account: str | None = None,
    ) -> None:
        """Announce a sign-in that was refused; committed before the refusal is said (I-04).

        Args:
            user: whose, where it is anybody's.
            reason: for those who read it later.
            factor: what was tried, as RFC 8176 names it.
            account: the key of the address that was tried, if there is no user.
        """
        await self.store.announce(
            SignInFailed(
                realm=self.store.realm,
                at=self.clock.now(),
                user_id=user.id if user else None,
                reason=reason,
                factor=factor,
                account=user.email_key if user else account,
            )
        )

    async def forget_user(self, tx: Store, event: UserDeleted) -> None:
        """A user was deleted: so is what they owed."""
        await tx.erase(Challenge, user_id=event.user_id)

    async def _renewed(
        self,
        session: Session,
        amr: tuple[str, ...],
        client: Client,
        proven_at: datetime | None = None,
    ) -> Renewed:
        cookie = await self.sessions.renew(session, amr=amr, client=client, proven_at=proven_at)
        return Renewed(session=session, cookie=cookie)

    async def _living(self, session_id: str) -> tuple[Session, User]:
        session = await self.sessions.get(session_id)
        if session is None:
            raise NotAuthenticated
        user: User | None = await self.users.get(session.user_id)
        self.sessions.check(session, user)
        if user is None:
            raise RevokedToken(note="the user is gone")
        return session, user

    def _proof(self, method: str) -> Proof:
        for each in self.proofs:
            if each.method == method:
                return each
        known = ", ".join(sorted(each.method for each in self.proofs))
        raise InvalidInput([Fault("method", "method_unknown", f"is not one of {known}")])

    async def _owed(
        self, user: User, amr: tuple[str, ...], purpose: Purpose, *, before: str | None = None
    ) -> Owed | None:
        for step in self.chain():
            if step.step == before:
                break
            owed = await step.owed(user, proven=amr, purpose=purpose)
            if owed is not None:
                return owed
        return None

    async def _through(self, pending: Pending) -> None:
        """Raises what is still owed, with the same challenge."""
        challenge = pending.challenge
        owed = await self._owed(pending.user, challenge.amr, challenge.purpose)
        if owed is not None:
            raise self._said(owed, pending)

    async def _spend(self, pending: Pending) -> Challenge:
        """Of two requests at once one goes on (I-05)."""
        taken = await self.store.take(
            Challenge, digest=pending.challenge.digest, expires_at=gt(self.clock.now())
        )
        if taken is None:
            raise InvalidToken(note="the challenge was spent")
        return taken

    async def _wait(
        self,
        owed: Owed,
        user: User,
        purpose: Purpose,
        *,
        amr: tuple[str, ...],
        client: Client,
        transport: str = "",
        remember: bool = False,
        session_id: str | None = None,
    ) -> Pending:
        now = self.clock.now()
        token = new_secret(PREFIX)
        challenge = Challenge(
            realm=self.store.realm,
            id=new_id(now),
            digest=digest_of(token, purpose=PURPOSE),
            user_id=user.id,
            epoch=user.epoch,
            purpose=purpose,
            session_id=session_id,
            amr=amr,
            proven_at=now,
            transport=transport,
            remember=remember,
            agent_digest=agent_digest(client),
            device=client.device,
            created_at=now,
            expires_at=now + self.settings.challenge_ttl,
        )
        async with self.store.transaction() as tx:
            await tx.insert(challenge)
            await tx.announce(
                SignInOwed(
                    realm=tx.realm, at=now, user_id=user.id, purpose=purpose, owed=owed.error.code
                )
            )
        return Pending(challenge=challenge, user=user, token=token)

    def _said(self, owed: Owed, pending: Pending) -> WatchwordError:
        # A copy: a step may hand out one error for all, and this one holds a secret.
        left = pending.challenge.expires_at - self.clock.now()
        return owed.error.carrying(
            extra={
                owed.named: pending.token.reveal(),
                _EXPIRES_IN: max(1, int(left.total_seconds())),
            }
        )


def is_owed(error: WatchwordError) -> bool:
    """Does this refusal come with a challenge, so that one may go on?"""
    return _EXPIRES_IN in error.extra

"""The verbs on limits."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from watchword.crypto.signing import Signer
from watchword.features.limits.events import LimitReached
from watchword.features.limits.settings import ACTIONS, LimitSettings
from watchword.features.users import Users
from watchword.kernel.attempts import Attempt
from watchword.kernel.clock import Clock
from watchword.kernel.errors import StoreUnavailable, TooManyAttempts
from watchword.kernel.occasion import occasion
from watchword.kernel.ports import KnownDevices, Limiter
from watchword.kernel.principal import Client
from watchword.kernel.quotas import (
    Quota,
    Standing,
    in_order,
    network_of,
    parse_quotas,
    rate_headers,
    whole_seconds,
)
from watchword.storage.store import Store
from watchword.storage.windows import Ask, Contended, Outcome, Seen, Windows

_log = logging.getLogger("watchword.limits")

_MICROSECOND: Final = timedelta(microseconds=1)
_MOST_TOLD: Final = 10_000  # windows of which it is remembered that they were announced
_NOBODY: Final = ""  # the id that is asked about where an address is nobody's
_LONGEST: Final = 400  # characters of a value that are kept as they are; any address has fewer
_WARNED_EVERY: Final = 60.0  # seconds

Paths = Callable[[Limiter, Mapping[str, str]], Callable[[Any], Any]]


@dataclass(slots=True)
class _Counted:
    """One key of an attempt."""

    quota: Quota
    ask: Ask


@dataclass(slots=True, kw_only=True)
class Limits:
    """Limits of one realm. Every key is counted before anybody looks, or none is."""

    store: Store
    settings: LimitSettings
    clock: Clock
    windows: Windows
    signer: Signer
    users: Users[Any]
    devices: Sequence[KnownDevices]  # live
    paths: Paths  # makes middleware, which is HTTP's affair
    turn: int = 1  # after the lockout
    counts: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    """How often each action was `allowed`, `refused`, or neither could be said: `uncounted`."""
    _told: OrderedDict[str, datetime] = field(default_factory=OrderedDict[str, datetime])
    _quotas: dict[str, tuple[Quota, ...]] = field(default_factory=dict[str, tuple[Quota, ...]])
    _warned: float = -_WARNED_EVERY

    @property
    def is_shared(self) -> bool:
        """Do several workers count as one?"""
        return self.windows.is_shared

    @property
    def is_counting_apart(self) -> bool:
        """Does each worker count for itself, so that several would allow several times as much?"""
        return self.settings.enabled and not self.is_shared

    # As a guard of attempts

    async def before(self, attempt: Attempt) -> None:
        """Count an attempt at each of its keys, unless one of them is full.

        Raises:
            TooManyAttempts: the same for an account that exists and one that does not.
            StoreUnavailable: it cannot be counted, and `limits.failure` is to refuse.
        """
        if not self.settings.enabled:
            return
        quotas = self._of(attempt.action)
        given = _given(attempt)
        await self._admit(attempt.action, quotas, given, attempt=attempt)

    async def after(self, attempt: Attempt, *, is_right: bool) -> None:
        """After the right one this client at this account begins anew (S0-91).

        Its address and the account do not: who signs in as themselves in between would go on
        guessing at others, and one right sign-in of the owner's would give a crowd new tries.
        """
        if not is_right or not self.settings.enabled:
            return
        pairs = [each for each in self._of(attempt.action) if each.by == "account+address"]
        counted = self._counted(attempt.action, pairs, _given(attempt))
        if not counted:
            return
        try:
            await self.windows.forget([each.ask.key for each in counted])
        except StoreUnavailable:
            _log.warning("a right attempt is not forgotten: the store of limits is away")

    async def waits(self, attempt: Attempt) -> int:
        """How long an attempt would be refused, in seconds; nothing is counted."""
        if not self.settings.enabled:
            return 0
        counted = self._counted(attempt.action, self._of(attempt.action), _given(attempt))
        seen = await self._looked(counted)
        if await self._is_apart(attempt, counted, seen):
            seen = await self._looked(counted)
        left = max((one.opens for one in seen if one.is_full), default=0)
        return whole_seconds(timedelta(microseconds=left)) if left else 0

    # For the app's own, and for operators

    async def admit(
        self, action: str, quotas: Sequence[Quota], given: Mapping[str, str]
    ) -> tuple[Standing, ...]:
        """Count one try at limits of the caller's own, or refuse it.

        Args:
            action: what is tried; part of every key.
            quotas: the limits; of those that count by what is not given, nothing is counted.
            given: by what it counts, and the value: `{"address": "192.0.2.1"}`.

        Returns:
            How each stands now; empty where limits are switched off.

        Raises:
            TooManyAttempts, StoreUnavailable
        """
        if not self.settings.enabled:
            return ()
        return await self._admit(action, quotas, given)

    async def take(
        self,
        action: str,
        *,
        limits: str | None = None,
        account: str | None = None,
        address: str | None = None,
        client: str | None = None,
    ) -> tuple[Standing, ...]:
        """Count one try of something of your own, or refuse it.

        Args:
            action: any name; one of the settings' has its limits there.
            limits: such as `10/1m per address`; else those of the settings.
            account: an e-mail address.
            address: of the client, as `request.client.host` has it behind no proxy.
            client: the id of an OAuth client or a service.

        Raises:
            TooManyAttempts, StoreUnavailable
            ValueError: limits that cannot be read.
        """
        quotas = self._of(action) if limits is None else in_order(parse_quotas(limits))
        return await self.admit(action, quotas, self._named(account, address, client))

    async def peek(
        self,
        action: str,
        *,
        limits: str | None = None,
        account: str | None = None,
        address: str | None = None,
        client: str | None = None,
    ) -> tuple[Standing, ...]:
        """How `take` would find it; nothing is counted.

        Raises:
            StoreUnavailable
        """
        quotas = self._of(action) if limits is None else in_order(parse_quotas(limits))
        counted = self._counted(action, quotas, self._named(account, address, client))
        seen = await self._looked(counted)
        return _standings(action, counted, seen)

    async def reset(
        self,
        action: str,
        *,
        limits: str | None = None,
        account: str | None = None,
        address: str | None = None,
        client: str | None = None,
    ) -> None:
        """Let the keys that these name begin anew; the pair, where both are given.

        Raises:
            StoreUnavailable
        """
        quotas = self._of(action) if limits is None else in_order(parse_quotas(limits))
        given = self._named(account, address, client)
        given.pop("global")
        counted = self._counted(action, quotas, given)
        await self.windows.forget([each.ask.key for each in counted])

    async def status(self, email: str, *, address: str | None = None) -> tuple[Standing, ...]:
        """The limits of which an account has used something.

        What one client tried at it is only found where its address is given: keys are hashes.

        Raises:
            StoreUnavailable
        """
        found: list[Standing] = []
        for action in ACTIONS:
            standings = await self.peek(action, account=email, address=address)
            found += [
                each
                for each in standings
                if each.quota.by.startswith("account") and each.left < each.quota.tries
            ]
        return tuple(found)

    async def clear(self, email: str, *, address: str | None = None) -> None:
        """Let an account begin anew at every action; with an address, that client at it too.

        Raises:
            StoreUnavailable
        """
        given = self._named(email, address, None)
        keys = [
            each.ask.key
            for action in ACTIONS
            for each in self._counted(action, self._of(action), given)
            if each.quota.by.startswith("account")
        ]
        await self.windows.forget(keys)

    def middleware(self, rules: Mapping[str, str]) -> Callable[[Any], Any]:
        """ASGI middleware that limits paths: `app.add_middleware(auth.limits.middleware({…}))`.

        Args:
            rules: by path, `*` being one segment and `**` any number, what `10/1m per address`
                says; `per user` is per address for whoever is not signed in. A pattern is one
                bucket, however its path is written.

        Raises:
            ConfigurationError: all that is wrong with them.
        """
        return self.paths(self, rules)

    # What they share

    def _of(self, action: str) -> tuple[Quota, ...]:
        quotas = self._quotas.get(action)
        if quotas is None:
            quotas = in_order(self.settings.of(action))
            if action in ACTIONS:
                self._quotas[action] = quotas
        return quotas

    def _named(
        self, account: str | None, address: str | None, client: str | None
    ) -> dict[str, str]:
        key = None if account is None else self.users.key_of(account)
        return _values(
            account=key, network=None if address is None else network_of(address), client=client
        )

    def _counted(
        self, action: str, quotas: Sequence[Quota], given: Mapping[str, str]
    ) -> list[_Counted]:
        return [
            _Counted(quota, self._ask(action, quota, quota.by, given[quota.by]))
            for quota in quotas
            if quota.by in given
        ]

    def _ask(self, action: str, quota: Quota, by: str, value: str) -> Ask:
        """What is asked of the windows. Limits that change begin anew: they are in the key."""
        lead, window = _lead(action, by, quota)
        if not self.windows.is_shared and len(value) <= _LONGEST:
            # In this process's memory the addresses are anyway; but what a stranger may make as
            # long as they like must not fill it.
            return Ask(lead + value, quota.tries, window)
        key = self.signer.mac((lead + value).encode("utf-8", "surrogatepass"))
        return Ask(key, quota.tries, window)

    async def _admit(
        self,
        action: str,
        quotas: Sequence[Quota],
        given: Mapping[str, str],
        *,
        attempt: Attempt | None = None,
    ) -> tuple[Standing, ...]:
        counted = self._counted(action, quotas, given)
        if not counted:
            return ()
        try:
            outcome = await self._taken(counted)
            if not outcome.is_counted and attempt is not None:
                outcome = await self._retaken(attempt, counted, outcome)
        except StoreUnavailable:
            if self.settings.failure == "refuse":
                raise
            self._count(action, "uncounted")
            self._warn()
            return ()
        except Contended:
            self._count(action, "refused")
            raise TooManyAttempts(retry_after=1, note=f"limits: {action}, contended") from None
        standings = _standings(action, counted, outcome.seen)
        if outcome.is_counted:
            self._count(action, "allowed")
            return standings
        self._count(action, "refused")
        await self._tell(action, counted, outcome.seen, given)
        raise _refusal(
            [each for each, seen in zip(standings, outcome.seen, strict=True) if seen.is_full]
        )

    async def _taken(self, counted: Sequence[_Counted]) -> Outcome:
        return await self.windows.take([each.ask for each in counted], now=self.clock.now())

    async def _looked(self, counted: Sequence[_Counted]) -> tuple[Seen, ...]:
        if not counted:
            return ()
        return await self.windows.look([each.ask for each in counted], now=self.clock.now())

    async def _retaken(
        self, attempt: Attempt, counted: list[_Counted], outcome: Outcome
    ) -> Outcome:
        if not await self._is_apart(attempt, counted, outcome.seen):
            return outcome
        return await self._taken(counted)

    async def _is_apart(
        self, attempt: Attempt, counted: Sequence[_Counted], seen: Sequence[Seen]
    ) -> bool:
        """Where the account's ceiling is full, a device of its owner's has one of its own.

        Else whoever fills the ceiling from elsewhere would lock the owner out (DEF-04). If so, it
        is asked for in `counted` from here on.
        """
        ceilings = [
            each
            for each, one in zip(counted, seen, strict=True)
            if one.is_full and each.quota.by == "account"
        ]
        client, account = attempt.client, attempt.account
        if not ceilings or client is None or client.device is None or not account:
            return False
        if not await self._is_known(account, client):
            return False
        for each in ceilings:
            value = f"{len(account)}:{account}{client.device}"
            each.ask = self._ask(attempt.action, each.quota, "device", value)
        return True

    async def _is_known(self, account: str, client: Client) -> bool:
        """Asked in the same steps for an address that is nobody's."""
        user = await self.users.store.get(self.users.kind, email_key=account)
        user_id, epoch = (_NOBODY, 0) if user is None else (user.id, user.epoch)
        answers = [await each.is_known(user_id, client, epoch=epoch) for each in self.devices]
        return user is not None and any(answers)

    async def _tell(
        self,
        action: str,
        counted: Sequence[_Counted],
        seen: Sequence[Seen],
        given: Mapping[str, str],
    ) -> None:
        """Announce each limit that was reached, once: a flood must not fill the audit log."""
        now = self.clock.now()
        for each, one in zip(counted, seen, strict=True):
            if not one.is_full:
                continue
            key = each.ask.key
            until = self._told.get(key)
            if until is not None and until > now:
                continue
            # Before anything else can await here: of many refused at once one announces it.
            self._told[key] = now + timedelta(microseconds=one.opens)
            self._told.move_to_end(key)
            if len(self._told) > _MOST_TOLD:
                self._told.popitem(last=False)
            account = given.get("account")
            told = LimitReached(
                realm=self.store.realm,
                at=now,
                action=action,
                by=each.quota.by,
                limit=str(each.quota),
                key=self.signer.mac(key.encode("utf-8", "surrogatepass")),
                account=None if account is None else self.signer.mac(account.encode()),
            )
            try:
                await self.store.announce(told)
            except BaseException:
                self._told.pop(key, None)
                raise

    def _count(self, action: str, result: str) -> None:
        self.counts[action, result] = self.counts.get((action, result), 0) + 1

    def _warn(self) -> None:
        now = self.clock.monotonic()
        if now - self._warned >= _WARNED_EVERY:
            self._warned = now
            _log.error("nothing is limited: the store of limits is away (limits.failure = allow)")


def _given(attempt: Attempt) -> dict[str, str]:
    """By what an attempt counts. A command or a task comes from no address."""
    network = None
    if attempt.client is not None:
        # Whoever comes from nowhere, through a socket without a name, comes from one place.
        network = network_of(attempt.client.address or "")
    now = occasion()
    client = None
    if now is not None and now.principal is not None and now.principal.kind in _CLIENTS:
        client = now.principal.id
    return _values(account=attempt.account, network=network, client=client)


_CLIENTS: Final = ("client", "service")


@lru_cache(maxsize=4096)
def _lead(action: str, by: str, quota: Quota) -> tuple[str, int]:
    """How every key of a limit begins, and its window in microseconds.

    Each part has its length before it, so that none can lend letters to the next.
    """
    window = quota.window // _MICROSECOND
    parts = (action, by, f"{quota.tries}/{window}")
    return "".join(f"{len(part)}:{part}" for part in parts), window


def _values(*, account: str | None, network: str | None, client: str | None) -> dict[str, str]:
    given = {"global": ""}
    if network is not None:
        given["address"] = network
        if account is not None:
            given["account+address"] = f"{len(account)}:{account}{network}"
    if account:  # what is no address at all is nobody's account
        given["account"] = account
    if client is not None:
        given["client"] = client
    return given


def _standings(
    action: str, counted: Sequence[_Counted], seen: Sequence[Seen]
) -> tuple[Standing, ...]:
    return tuple(
        [
            Standing(
                action,
                each.quota,
                max(each.quota.tries - one.used, 0),
                timedelta(microseconds=max(one.opens, 0)),
            )
            for each, one in zip(counted, seen, strict=True)
        ]
    )


def _refusal(full: Sequence[Standing]) -> TooManyAttempts:
    """For the one that takes longest to open: whoever waits for it gets in (S0-90)."""
    last = max(full, key=lambda each: each.opens)
    return TooManyAttempts(
        retry_after=whole_seconds(last.opens),
        note=f"limits: {last.action}, {last.quota}",
        headers=rate_headers([last]),
    )

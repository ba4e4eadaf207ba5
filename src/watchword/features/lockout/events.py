"""What happens to whoever fails too often. No address in them, of mail or of the network."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from watchword.kernel.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLocked(Event):
    """A failure too many: until then nobody gets in this way. Once for each failure that locks."""

    is_failure: ClassVar[bool] = True
    audited: ClassVar[tuple[str, ...]] = ("what", "failures")

    user_id: str | None  # None: the address that was tried is nobody's, or there were many
    what: str  # pair, device, account or address, as in `Failures.kind`
    failures: int
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountUnlocked(Event):
    """Failures were forgotten before their time."""

    audited: ClassVar[tuple[str, ...]] = ("why", "by")

    user_id: str | None
    why: str  # signed_in, password_reset or operator
    by: str | None = None  # who did it, where it was an operator


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspiciousActivity(Event):
    """What looks like guessing: success after many failures, or many failures from one address."""

    audited: ClassVar[tuple[str, ...]] = ("what", "failures")

    user_id: str | None
    what: str  # success_after_failures or failures_from_one_address
    failures: int

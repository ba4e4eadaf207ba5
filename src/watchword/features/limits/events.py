"""What happens to limits."""

from dataclasses import dataclass
from typing import ClassVar

from watchword.kernel.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitReached(Event):
    """A limit refused its first try; once a key and window, not at each that follows."""

    is_failure: ClassVar[bool] = True
    audited: ClassVar[tuple[str, ...]] = ("action", "by", "limit", "key")

    action: str
    by: str  # as `Quota.by`
    limit: str  # as the settings have it: `5/5m per address`
    key: str  # a keyed hash: the same for the same client, account or pair
    account: str | None  # a keyed hash of the address that it is about, if of any

    def audited_as(self) -> str:
        """A limit that was passed."""
        return "rate_limit_exceeded"

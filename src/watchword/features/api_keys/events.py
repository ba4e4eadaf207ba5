"""What happens to API keys."""

from dataclasses import dataclass
from typing import ClassVar

from watchword.kernel.events import Event
from watchword.kernel.principal import Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyEvent(Event):
    """Something that happened to one key."""

    key_id: str
    user_id: str

    def subjects(self) -> tuple[Subject, ...]:
        """The key. Not of the kind `key`, which is for keys that sign."""
        return (("api_key", self.key_id),)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyCreated(ApiKeyEvent):
    """A user made a key."""

    audited: ClassVar[tuple[str, ...]] = ("key_id", "name", "scopes")

    name: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyRotated(ApiKeyEvent):
    """A key has a successor, and works no longer than the overlap."""

    evicts: ClassVar[bool] = True  # it may end sooner than what is cached of it
    audited: ClassVar[tuple[str, ...]] = ("key_id", "successor_id")

    successor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyEnded(ApiKeyEvent):
    """A key is over."""

    evicts: ClassVar[bool] = True
    audited: ClassVar[tuple[str, ...]] = ("key_id", "why")

    why: str

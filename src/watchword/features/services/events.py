"""What happens to services."""

from dataclasses import dataclass
from typing import ClassVar

from watchword.kernel.events import Event
from watchword.kernel.principal import Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEvent(Event):
    """Something that happened to one service."""

    grant_id: str
    name: str

    def subjects(self) -> tuple[Subject, ...]:
        """The grant."""
        return (("client", self.grant_id),)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceGranted(ServiceEvent):
    """A service may call others."""

    audited: ClassVar[tuple[str, ...]] = ("name", "audiences", "scopes")

    audiences: tuple[str, ...]
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEnded(ServiceEvent):
    """A service may call nobody any more; all its tokens are over."""

    evicts: ClassVar[bool] = True
    audited: ClassVar[tuple[str, ...]] = ("name",)

"""What happens to keys. Each empties every cache and has every ring read again (I-10, I-16)."""

from dataclasses import dataclass
from typing import ClassVar

from watchword.kernel.events import Event
from watchword.kernel.principal import Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChanged(Event):
    """A key got another state."""

    evicts: ClassVar[bool] = True
    audited: ClassVar[tuple[str, ...]] = ("kid",)

    kid: str

    def subjects(self) -> tuple[Subject, ...]:
        """The key."""
        return (("key", self.kid),)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPublished(KeyChanged):
    """A key will sign next; until then it is only shown to those who verify."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRotated(KeyChanged):
    """Another key signs from now on; what the former signed is believed until it expires."""

    audited: ClassVar[tuple[str, ...]] = ("kid", "former")

    former: str | None  # its kid, if there was one


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRetired(KeyChanged):
    """A key signs no more, or was taken back before it ever did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRevoked(KeyChanged):
    """What a key signed is believed no more."""

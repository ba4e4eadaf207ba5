"""What happens to addresses."""

from dataclasses import dataclass
from typing import ClassVar

from watchword.features.users import UserEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailChangeRequested(UserEvent):
    """The user wishes for another address; nothing has changed yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailChanged(UserEvent):
    """The user has another address, proven."""

    evicts: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailChangeUndone(UserEvent):
    """The owner of the old address took a change back."""

    evicts: ClassVar[bool] = True

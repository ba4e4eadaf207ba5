"""A feature that is not ours: some have something to bring before they go on."""

from dataclasses import dataclass, field
from typing import Any, Literal

from watchword.kernel.errors import EmailNotVerified
from watchword.kernel.feature import Feature
from watchword.kernel.ports import Owed, SignInStep


@dataclass(frozen=True, slots=True)
class Owing:
    """A step in the chain of sign-in."""

    step: str = "owing"
    after: tuple[str, ...] = ()
    debtors: set[str] = field(default_factory=set[str])  # user ids

    async def owed(
        self, user: Any, *, proven: tuple[str, ...], purpose: Literal["sign_in", "reauthenticate"]
    ) -> Owed | None:
        """Whatever it is that they owe."""
        return Owed(error=EmailNotVerified()) if user.id in self.debtors else None

    def feature(self) -> Feature["Owing"]:
        """As a third party would install it."""
        return Feature(
            name="owing", service=lambda _: self, offers=lambda service: {SignInStep: service}
        )

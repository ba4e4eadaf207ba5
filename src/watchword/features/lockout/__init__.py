"""Lockout: who fails too often waits, longer each time."""

from typing import Any, Unpack

from watchword.features.lockout.service import Lockout
from watchword.features.lockout.settings import LockoutOptions, LockoutSettings
from watchword.kernel.feature import Feature

__all__ = ["Lockout", "lockout"]


def lockout(**options: Unpack[LockoutOptions]) -> Feature[Lockout]:
    """The feature of lockout."""

    def service(wiring: Any) -> Lockout:
        return Lockout(store=wiring.store, settings=wiring.settings, clock=wiring.clock)

    return Feature(
        name="lockout",
        service=service,
        settings=LockoutSettings,
        given=dict(options),
    )

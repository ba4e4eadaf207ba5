"""Limits: how often anything may be tried, counted before it is looked at."""

from typing import Any, Unpack

from watchword.features.limits.service import Limits
from watchword.features.limits.settings import LimitOptions, LimitSettings
from watchword.kernel.feature import Feature

__all__ = ["Limits", "limits"]


def limits(**options: Unpack[LimitOptions]) -> Feature[Limits]:
    """The feature of limits."""

    def service(wiring: Any) -> Limits:
        return Limits(store=wiring.store, settings=wiring.settings, clock=wiring.clock)

    return Feature(
        name="limits",
        service=service,
        settings=LimitSettings,
        given=dict(options),
    )

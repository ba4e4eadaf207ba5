"""Limits: how often anything may be tried, counted before it is looked at."""

from functools import partial
from typing import Any, Unpack

from watchword.features.limits.events import LimitReached
from watchword.features.limits.service import Limits
from watchword.features.limits.settings import MEMORY, LimitOptions, LimitSettings
from watchword.features.users import Users
from watchword.http.limiting import rate_limits
from watchword.kernel.attempts import AttemptGuard
from watchword.kernel.feature import Feature
from watchword.kernel.ports import KnownDevices, Limiter
from watchword.kernel.secrets import Secret
from watchword.storage.windows import AttemptWindow, MemoryWindows, windows_of

__all__ = ["LimitReached", "Limits", "limits"]


def limits(**options: Unpack[LimitOptions]) -> Feature[Limits]:
    """The feature of limits."""

    def service(wiring: Any) -> Limits:
        settings: LimitSettings = wiring.settings
        in_memory = settings.store is not None and settings.store.reveal() == MEMORY
        return Limits(
            store=wiring.store,
            settings=settings,
            clock=wiring.clock,
            windows=MemoryWindows() if in_memory else windows_of(wiring.store),
            signer=wiring.signer("limits"),
            users=wiring.get(Users),
            devices=wiring.every(KnownDevices),
            paths=partial(rate_limits, clients=wiring.clients),
        )

    def offers(service: Limits) -> dict[type, object]:
        if not service.settings.enabled:
            return {Limiter: service}  # which lets all of the app's own pass
        return {AttemptGuard: service, Limiter: service}

    return Feature(
        name="limits",
        needs=("users",),
        service=service,
        settings=LimitSettings,
        given=dict(options),
        records=(AttemptWindow,),
        apart=_apart,
        carries_identities=False,
        provides=("limiter",),
        offers=offers,
    )


def _apart(settings: LimitSettings) -> dict[type, Secret]:
    store = settings.store
    return {} if store is None or store.reveal() == MEMORY else {AttemptWindow: store}

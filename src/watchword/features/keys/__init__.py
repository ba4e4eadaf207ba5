"""Keys: what tokens are signed with, shared by all workers, published as JWKS."""

from typing import Any, Unpack

from watchword.features.keys.records import StoredKey
from watchword.features.keys.routes import routes
from watchword.features.keys.service import Keys
from watchword.features.keys.settings import KeyOptions, KeySettings
from watchword.kernel.feature import Feature

__all__ = ["Keys", "keys"]


def keys(**options: Unpack[KeyOptions]) -> Feature[Keys]:
    """The feature of signing keys."""

    def service(wiring: Any) -> Keys:
        return Keys(
            store=wiring.store, settings=wiring.settings, clock=wiring.clock, sealer=wiring.sealer
        )

    return Feature(
        name="keys",
        service=service,
        settings=KeySettings,
        given=dict(options),
        records=(StoredKey,),
        listens=lambda service, events: events.evict_with(service.notice),
        routes=routes,
    )

"""Services: what acts for nobody but itself, and the tokens that it brings to others."""

from typing import Any, Unpack

from watchword.features.keys import Keys
from watchword.features.services.endings import ENDS
from watchword.features.services.errors import ServiceAlreadyExists, ServiceNotFound
from watchword.features.services.events import ServiceEnded, ServiceGranted
from watchword.features.services.records import ServiceGrant
from watchword.features.services.service import Services
from watchword.features.services.settings import ServiceOptions, ServiceSettings
from watchword.kernel.feature import Feature
from watchword.kernel.ports import Authenticator, SignedLife

__all__ = [
    "ServiceAlreadyExists",
    "ServiceEnded",
    "ServiceGrant",
    "ServiceGranted",
    "ServiceNotFound",
    "Services",
    "services",
]


def services(**options: Unpack[ServiceOptions]) -> Feature[Services]:
    """The feature of tokens between services."""

    def service(wiring: Any) -> Services:
        return Services(
            store=wiring.store,
            settings=wiring.settings,
            clock=wiring.clock,
            keys=wiring.get(Keys),
            issuer=wiring.issuer,
            audience=wiring.audience,
            client_id=wiring.core.client_id,
        )

    return Feature(
        name="services",
        needs=("keys",),
        service=service,
        settings=ServiceSettings,
        given=dict(options),
        ends=ENDS,
        records=(ServiceGrant,),
        offers=lambda service: {Authenticator: service, SignedLife: service},
    )

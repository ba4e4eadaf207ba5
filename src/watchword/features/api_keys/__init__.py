"""API keys: what a user's programs present instead of signing in."""

from typing import Any, Unpack

from watchword.features.api_keys.endings import ENDS
from watchword.features.api_keys.errors import ApiKeyNotFound, ApiKeyReplaced, ApiKeysLimited
from watchword.features.api_keys.events import ApiKeyCreated, ApiKeyEnded, ApiKeyRotated
from watchword.features.api_keys.records import ApiKey
from watchword.features.api_keys.routes import routes
from watchword.features.api_keys.service import ApiKeys, IssuedKey
from watchword.features.api_keys.settings import ApiKeyOptions, ApiKeySettings
from watchword.features.users import UserDeleted, Users
from watchword.kernel.events import Events
from watchword.kernel.feature import Feature
from watchword.kernel.ports import Authenticator

__all__ = [
    "ApiKey",
    "ApiKeyCreated",
    "ApiKeyEnded",
    "ApiKeyNotFound",
    "ApiKeyReplaced",
    "ApiKeyRotated",
    "ApiKeys",
    "ApiKeysLimited",
    "IssuedKey",
    "api_keys",
]


def api_keys(**options: Unpack[ApiKeyOptions]) -> Feature[ApiKeys]:
    """The feature of API keys."""

    def service(wiring: Any) -> ApiKeys:
        return ApiKeys(
            store=wiring.store,
            settings=wiring.settings,
            clock=wiring.clock,
            users=wiring.get(Users),
            client_id=wiring.core.client_id,
            attempts=wiring.attempts,
        )

    def listens(service: ApiKeys, events: Events) -> None:
        events.join(UserDeleted, service.forget_user)

    return Feature(
        name="api_keys",
        needs=("users",),
        service=service,
        settings=ApiKeySettings,
        given=dict(options),
        ends=ENDS,
        records=(ApiKey,),
        offers=lambda service: {Authenticator: service},
        listens=listens,
        routes=routes,
    )

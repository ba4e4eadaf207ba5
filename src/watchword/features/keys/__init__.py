"""Keys: what tokens are signed with, shared by all workers, published as JWKS."""

from datetime import timedelta
from typing import Any, Unpack

from watchword.features.keys.endings import ENDS
from watchword.features.keys.events import KeyPublished, KeyRetired, KeyRevoked, KeyRotated
from watchword.features.keys.given import Provider
from watchword.features.keys.records import StoredKey
from watchword.features.keys.routes import routes
from watchword.features.keys.service import RELOAD_EVERY, Keys, Rotation
from watchword.features.keys.settings import KeyOptions, KeySettings
from watchword.kernel.errors import ConfigurationError
from watchword.kernel.feature import Feature, Job
from watchword.kernel.ports import SignedLife

__all__ = [
    "KeyPublished",
    "KeyRetired",
    "KeyRevoked",
    "KeyRotated",
    "Keys",
    "Rotation",
    "StoredKey",
    "keys",
]


def keys(*, provider: Provider | None = None, **options: Unpack[KeyOptions]) -> Feature[Keys]:
    """The feature of signing keys.

    Args:
        provider: fetches a private key of your own, PEM or a JWK, at each start: a plain or a
            coroutine function. With `algorithm="HS256"` it fetches the shared secret.
        options: `KeySettings`, by name.
    """

    def service(wiring: Any) -> Keys:
        _check(wiring.settings, wiring.core, provider)
        has_feed = wiring.store.driver.feed is not None
        return Keys(
            store=wiring.store,
            settings=wiring.settings,
            clock=wiring.clock,
            sealer=wiring.sealer,
            secrets=wiring.secrets,
            reach=wiring.core.feed_bound if has_feed else timedelta(seconds=RELOAD_EVERY),
            lives=wiring.every(SignedLife),
            provider=provider,
        )

    return Feature(
        name="keys",
        service=service,
        settings=KeySettings,
        given=dict(options),
        ends=ENDS,
        records=(StoredKey,),
        listens=lambda service, events: events.evict_with(service.notice),
        routes=routes,
        jobs=lambda service: (Job(name="keys", every=timedelta(minutes=1), run=service.tend),),
    )


def _check(settings: KeySettings, core: Any, provider: Provider | None) -> None:
    """What no setting can see by itself. Raises ConfigurationError."""
    given = (provider, settings.private_key, settings.secret)
    sources = sum(source is not None for source in given)
    faults: list[str] = []
    if provider is not None and sources > 1:
        faults.append("keys: a provider and a key in the settings: keep one of them")
    if settings.public_key is not None and sources == 0:
        faults.append(
            "keys.public_key alone signs nothing: set keys.private_key, or leave it out and keys "
            "are made here; who only verifies reads /.well-known/jwks.json"
        )
    roots = [each for each in (core.secret, *core.old_secrets) if each is not None]
    shared = [each for each in (settings.secret, *settings.old_secrets) if each is not None]
    if any(each in roots for each in shared):
        faults.append(
            "keys.secret is the root secret, which is shared with nobody: set another one, as "
            "`watchword secret generate` prints it"
        )
    if faults:
        raise ConfigurationError(faults)

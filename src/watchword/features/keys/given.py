"""Keys that were made elsewhere, as settings or a provider give them."""

import asyncio
import inspect
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from watchword.kernel.errors import ConfigurationError
from watchword.kernel.secrets import Secret

if TYPE_CHECKING:
    from watchword.crypto.signatures import SigningKey

Provider = Callable[[], Secret | str | Awaitable[Secret | str]]
"""Fetches the private key, PEM or a JWK, from where it is kept. Asked once a start."""


def signing_key() -> "type[SigningKey]":
    """The class of keys.

    The JOSE library behind it is loaded by whoever opens a ring, not by `import watchword`.
    """
    from watchword.crypto.signatures import SigningKey  # noqa: PLC0415

    return SigningKey


def private(text: Secret) -> "SigningKey":
    """The key of a PEM or a JWK. Raises ValueError."""
    return signing_key().given(text.reveal())


def shared(text: Secret) -> "SigningKey":
    """The key of a shared secret; its kid is random, for a digest would help to guess it.

    Raises:
        ValueError
    """
    data = text.reveal().encode("utf-8", "surrogatepass")
    return signing_key().from_private_bytes(secrets.token_hex(16), "HS256", data)


async def fetched(provider: Provider) -> Secret:
    """What a provider gives. A plain function may wait for a network: it runs in a thread.

    Raises:
        ConfigurationError: it failed, or gave nothing; what it said may hold secrets.
    """
    try:
        answer = await asyncio.to_thread(provider)
        if inspect.isawaitable(answer):
            answer = await answer
    except Exception as error:  # noqa: BLE001  whatever it raises; a cause would be logged with it
        raise ConfigurationError(
            [f"the provider of keys failed ({type(error).__name__}): see that it can be reached"]
        ) from None
    text = answer.reveal() if isinstance(answer, Secret) else answer
    if not isinstance(text, str) or not text.strip():  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(["the provider of keys gave no text: it gives PEM or a JWK"])
    return Secret(text)

"""Claims of the application's own: asked for at each token, bounded, and never one of ours."""

import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, cast

from watchword.features.sessions import Session
from watchword.kernel.errors import ClaimsUnavailable
from watchword.kernel.moment import refuse_in_transaction

_log = logging.getLogger("watchword.tokens")

Answer = Mapping[str, object]
ClaimsHook = Callable[[Any, Session], Answer | Awaitable[Answer]]
"""Gets the user and the session; the claims to add. Nothing of it is secret: clients read it."""

REQUIRED: Final = ("iss", "aud", "sub", "client_id", "sid", "jti", "iat", "exp", "scope")
"""What every access token says. Source: RFC 9068 §2.2, and `sid` (I-02)."""

MOST: Final = 2000  # characters of their JSON, all together: a cookie holds 4096 bytes
DEEPEST: Final = 32  # objects and lists within one another

RESERVED: Final = frozenset(
    {
        *REQUIRED,
        # what others take for more than a note: RFC 7519, 7800, 8417, 8693, 9068, OpenID Connect
        *("nbf", "auth_time", "acr", "amr", "azp", "nonce", "cnf", "act", "may_act", "events"),
        *("at_hash", "c_hash", "s_hash", "typ", "kid", "alg"),
    }
)


async def claims_of(
    hooks: Sequence[ClaimsHook], user: object, session: Session, required: Sequence[str]
) -> dict[str, object]:
    """Ask every hook.

    Raises:
        ClaimsUnavailable: one failed, or gave what no token may hold. A token without the claims
            that were promised could mean more than the one it stands for.
    """
    given: dict[str, object] = {}
    if hooks:
        refuse_in_transaction("a claims hook runs")
    try:
        for hook in hooks:
            answer = hook(user, session)
            found = await answer if inspect.isawaitable(answer) else answer
            given |= _checked(found, given)
        missing = [name for name in required if name not in given and name not in REQUIRED]
        if missing:
            raise ValueError(f"no hook gave what tokens.required_claims asks for: {missing}")
        if given and len(json.dumps(given, allow_nan=False, separators=(",", ":"))) > MOST:
            raise ValueError(f"own claims have at most {MOST} characters of JSON")
        if is_too_deep(given):
            raise ValueError(f"own claims are nested more than {DEEPEST} deep")
    except Exception as error:
        _log.exception("no access token was made: its claims cannot be had")
        raise ClaimsUnavailable(note=f"{type(error).__name__}: {error}") from error
    return given


def is_too_deep(value: object) -> bool:
    """Is there more within one another than any claim needs? However deep, it is not climbed."""
    level: list[object] = [value]
    for _ in range(DEEPEST + 1):
        inner: list[object] = []
        for each in level:
            if isinstance(each, Mapping):
                inner.extend(cast("Mapping[object, object]", each).values())
            elif isinstance(each, list | tuple):
                inner.extend(cast("Sequence[object]", each))
        if not inner:
            return False
        level = inner
    return True


def _checked(found: object, given: Mapping[str, object]) -> dict[str, object]:
    if not isinstance(found, Mapping):
        raise TypeError(f"a claims hook returned {type(found).__name__}, not a mapping")
    answer = dict(cast("Mapping[object, object]", found))
    for name in answer:
        if not isinstance(name, str) or not name:
            raise TypeError(f"a claim is named by a text, not by {name!r}")
        if name in RESERVED:
            raise ValueError(f"claim {name!r} is not a hook's to set")
        if name in given:
            raise ValueError(f"two hooks set claim {name!r}")
    return cast("dict[str, object]", answer)

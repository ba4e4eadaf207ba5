"""GET /.well-known/jwks.json."""

import hashlib
import json

from starlette.requests import Request
from starlette.responses import Response

from watchword.features.keys.service import Keys
from watchword.http.wiring import Mounting


def routes(keys: Keys, mounting: Mounting) -> None:
    """Mount the routes of keys."""
    max_age = int(keys.settings.jwks_max_age.total_seconds())

    @mounting.root.get("/.well-known/jwks.json", response_model=dict[str, list[dict[str, str]]])
    async def jwks(request: Request) -> Response:
        """The public keys that tokens verify with (RFC 7517 §5).

        May be kept for as long as it says and no longer: a key that was revoked is gone from it.
        """
        await keys.refresh()
        body = json.dumps({"keys": keys.published()}, separators=(",", ":")).encode()
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {"Cache-Control": f"public, max-age={max_age}, must-revalidate", "ETag": tag}
        # RFC 9110 §13.1.2: weak comparison, several tags or any.
        known = request.headers.get("if-none-match", "")
        if known == "*" or tag in (each.strip().removeprefix("W/") for each in known.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)

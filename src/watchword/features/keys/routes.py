"""GET /.well-known/jwks.json."""

from starlette.responses import JSONResponse, Response

from watchword.features.keys.service import Keys
from watchword.http.wiring import Mounting


def routes(keys: Keys, mounting: Mounting) -> None:
    """Mount the routes of keys."""

    @mounting.root.get("/.well-known/jwks.json", response_model=dict[str, list[dict[str, str]]])
    async def jwks() -> Response:
        """The public keys that tokens verify with (RFC 7517 §5)."""
        await keys.refresh()
        return JSONResponse(
            {"keys": keys.published()}, headers={"Cache-Control": "public, max-age=300"}
        )

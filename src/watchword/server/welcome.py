"""The small page that greets whoever is signed in, in development."""

from pathlib import Path
from typing import Final

from fastapi import APIRouter
from jinja2 import Environment, FileSystemLoader
from starlette.responses import FileResponse, HTMLResponse, Response

from watchword.features.users import OptionalUser
from watchword.http.headers import API, new_nonce, page_headers
from watchword.presets import Watchword

_PAGES: Final = Path(__file__).parent / "pages"
_ITS_FILES: Final = {**API, "Cache-Control": "no-store"}


def welcome(auth: Watchword) -> APIRouter:
    """The route `/`, and the script and the stylesheet of its page."""
    router = APIRouter(include_in_schema=False)
    pages = Environment(loader=FileSystemLoader(_PAGES), autoescape=True)

    @router.get("/")
    async def greet(user: OptionalUser) -> HTMLResponse:
        nonce = new_nonce()
        page = pages.get_template("welcome.html").render(
            user=user,
            nonce=nonce,
            prefix=auth.core.prefix,
            csrf_cookie=auth.cookies.csrf.name,
            min_length=auth.passwords.settings.min_length,
        )
        return HTMLResponse(page, headers=page_headers(nonce))

    @router.get("/welcome.js")
    async def script() -> Response:
        return FileResponse(_PAGES / "welcome.js", media_type="text/javascript", headers=_ITS_FILES)

    @router.get("/welcome.css")
    async def style() -> Response:
        return FileResponse(_PAGES / "welcome.css", media_type="text/css", headers=_ITS_FILES)

    return router

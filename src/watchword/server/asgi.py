"""The application that `watchword serve` runs."""

import os
from typing import Any, cast

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import ExceptionHandler

import watchword
from watchword.http.headers import StrictTransport
from watchword.presets import Watchword
from watchword.server.errors import answer_http, answer_unexpected
from watchword.server.probes import probes
from watchword.server.serving import Serving
from watchword.server.welcome import welcome


def make() -> FastAPI:
    """Make the application in a worker, from what `watchword serve` left in the environment.

    Raises:
        ConfigurationError: all that is wrong.
    """
    return server_app(Serving.from_environ(os.environ).watchword())


def server_app(auth: Watchword) -> FastAPI:
    """The application around one Watchword.

    The interactive API loads its scripts from elsewhere, onto the origin that keeps the
    sessions: it is there in development only.
    """
    development = auth.core.environment == "development"
    app = FastAPI(
        title="Watchword",
        version=watchword.__version__,
        docs_url="/docs" if development else None,
        redoc_url=None,
    )
    app.add_exception_handler(HTTPException, cast("ExceptionHandler", answer_http))
    app.add_exception_handler(Exception, cast("ExceptionHandler", answer_unexpected))
    app.include_router(probes(auth))
    if development:
        app.include_router(welcome(auth))
    auth.install(app)
    if auth.public_url.startswith("https:"):
        app.add_middleware(cast("Any", StrictTransport))
    return app

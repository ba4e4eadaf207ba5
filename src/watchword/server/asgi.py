"""The application that `watchword serve` runs."""

import logging
import os
from typing import cast

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import ExceptionHandler
from uvicorn.config import STARTUP_FAILURE

import watchword
from watchword.kernel.errors import ConfigurationError
from watchword.presets import Watchword
from watchword.server.errors import answer_http, answer_unexpected
from watchword.server.metrics import metrics
from watchword.server.probes import probes
from watchword.server.serving import Serving
from watchword.server.welcome import welcome

_log = logging.getLogger("watchword")


def make() -> FastAPI:
    """Make the application in a worker, from what `watchword serve` left in the environment.

    The parent has tried these settings. Should they have changed since, the worker ends as one
    that cannot start, which its supervisor does not start again for ever.
    """
    try:
        return server_app(Serving.from_environ(os.environ).watchword())
    except ConfigurationError as error:
        _log.error("%s", error)
        raise SystemExit(STARTUP_FAILURE) from error


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
        redirect_slashes=False,  # it would send people to whatever host the request names
    )
    app.add_exception_handler(HTTPException, cast("ExceptionHandler", answer_http))
    app.add_exception_handler(Exception, cast("ExceptionHandler", answer_unexpected))
    app.include_router(probes(auth))
    app.include_router(metrics(auth))
    if development:
        app.include_router(welcome(auth))
    auth.install(app)
    return app

"""FastAPI alone, and with a dependency that does nothing.

They are sent what ours is sent (a token as long as ours, or cookies like ours): headers cost.
"""

from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI

TOKEN = "x" * 390


async def nothing() -> str:
    """A dependency that does nothing."""
    return "world"


async def prepared(
    variant: str, *, data: Path, database: str | None
) -> tuple[FastAPI, dict[str, str]]:
    """`bare`, `cookies` (bare, but sent cookies), `no-op`, `shield` or `shield+cors`."""
    del data, database
    app = FastAPI()
    if variant == "no-op":

        @app.get("/hello")
        async def hello_nothing(name: Annotated[str, Depends(nothing)]) -> dict[str, str]:
            return {"hello": name}

    else:

        @app.get("/hello")
        async def hello() -> dict[str, str]:
            return {"hello": "world"}

    if variant.startswith("shield"):
        stand_around(app, cors=variant.endswith("+cors"))
    if variant == "cookies":
        return app, {"Cookie": f"__Host-session=wwc_{'x' * 43}; __Host-csrf={'x' * 43}"}
    return app, {"Authorization": f"Bearer {TOKEN}"}


def stand_around(app: FastAPI, *, cors: bool) -> None:
    """Put around it what ours has around every app, without the gate and the routes."""
    from watchword.crypto.keys import generate_secret  # noqa: PLC0415  peers do without
    from watchword.presets import Watchword  # noqa: PLC0415

    auth = Watchword(
        "sqlite://",
        environment="production",
        secret=generate_secret(),
        public_url="https://accounts.example.com",
        require_https=False,
        accept_missing=("limiter", "events"),
        environ={},
        cors={
            "enabled": cors,
            "allow_origins": ("https://app.example.com",),
            "host_routes": True,
        },
    )
    auth.shield().around(app)

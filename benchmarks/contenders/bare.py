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
    """`bare`, `cookies` (bare, but sent cookies) or `no-op`."""
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

    if variant == "cookies":
        return app, {"Cookie": f"__Host-session=wwc_{'x' * 43}; __Host-csrf={'x' * 43}"}
    return app, {"Authorization": f"Bearer {TOKEN}"}

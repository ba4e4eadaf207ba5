"""authx as its documentation has it: HS256 in the Authorization header, or a refresh in JSON.

Its refresh tokens are JWTs that stay what they are: nothing is stored, rotated or taken back.
"""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from authx import AuthX, AuthXConfig, TokenPayload
from fastapi import Depends, FastAPI

from benchmarks.contenders import posted


async def prepared(
    variant: str, *, data: Path, database: str | None
) -> tuple[FastAPI, dict[str, str]]:
    """`refresh`, or the guard."""
    del data, database
    security = AuthX(
        config=AuthXConfig(
            JWT_ALGORITHM="HS256",
            JWT_SECRET_KEY="a secret of at least thirty-two bytes, for HS256",
            JWT_TOKEN_LOCATION=["json" if variant == "refresh" else "headers"],
            JWT_ACCESS_TOKEN_EXPIRES=timedelta(days=1),
        )
    )
    app = FastAPI()
    security.handle_errors(app)

    if variant == "refresh":

        @app.post("/auth/refresh")
        async def refresh(
            token: Annotated[TokenPayload, Depends(security.refresh_token_required)],
        ) -> dict[str, str]:
            return {"access_token": security.create_access_token(token.sub)}

        @app.get("/hello")
        async def hello_open() -> dict[str, str]:
            return {"hello": "world"}

        return app, posted(refresh_token=security.create_refresh_token(uid="ada"))

    @app.get("/hello", dependencies=[Depends(security.access_token_required)])
    async def hello() -> dict[str, str]:
        return {"hello": "world"}

    return app, {"Authorization": f"Bearer {security.create_access_token(uid='ada')}"}

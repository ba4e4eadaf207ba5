"""authx as its documentation has it: HS256 in the Authorization header."""

from datetime import timedelta
from pathlib import Path

from authx import AuthX, AuthXConfig
from fastapi import Depends, FastAPI


async def prepared(
    variant: str, *, data: Path, database: str | None
) -> tuple[FastAPI, dict[str, str]]:
    """There is one variant."""
    del variant, data, database
    security = AuthX(
        config=AuthXConfig(
            JWT_ALGORITHM="HS256",
            JWT_SECRET_KEY="a secret of at least thirty-two bytes, for HS256",
            JWT_TOKEN_LOCATION=["headers"],
            JWT_ACCESS_TOKEN_EXPIRES=timedelta(days=1),
        )
    )
    app = FastAPI()
    security.handle_errors(app)

    @app.get("/hello", dependencies=[Depends(security.access_token_required)])
    async def hello() -> dict[str, str]:
        return {"hello": "world"}

    return app, {"Authorization": f"Bearer {security.create_access_token(uid='ada')}"}

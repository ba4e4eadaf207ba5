"""What people write by hand: FastAPI's tutorial with PyJWT, no database, no revocation."""

import time
from pathlib import Path
from typing import Annotated, Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer

ISSUER = "https://auth.example.com"


async def prepared(
    variant: str, *, data: Path, database: str | None
) -> tuple[FastAPI, dict[str, str]]:
    """`HS256`, or `ES256` as we sign."""
    del data, database
    private: Any = "a secret of at least thirty-two bytes, for HS256"
    public: Any = private
    if variant == "ES256":
        private = ec.generate_private_key(ec.SECP256R1())
        public = private.public_key()
    app = FastAPI()
    scheme = OAuth2PasswordBearer(tokenUrl="token")

    async def current_user(token: Annotated[str, Depends(scheme)]) -> str:
        try:
            claims = jwt.decode(
                token, public, algorithms=[variant], issuer=ISSUER, audience="watchword"
            )
        except jwt.InvalidTokenError:
            raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"}) from None
        return str(claims["sub"])

    @app.get("/hello")
    async def hello(user: Annotated[str, Depends(current_user)]) -> dict[str, str]:
        return {"hello": "world" if user else ""}

    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": "watchword",
        "sub": "01k2m3n4p5q6r7s8t9v0wxyzab",
        "jti": "01k2m3n4p5q6r7s8t9v0wxyzad",
        "iat": now,
        "exp": now + 86400,
    }
    return app, {"Authorization": f"Bearer {jwt.encode(claims, private, algorithm=variant)}"}

"""What people write by hand: FastAPI's tutorial with PyJWT, no database, no revocation.

And where something must be kept, a table over SQLAlchemy and SQLite, as its tutorial has it.
"""

import hashlib
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel

from benchmarks.contenders import CONNECTIONS, posted

ISSUER = "https://auth.example.com"
ADA = "01k2m3n4p5q6r7s8t9v0wxyzab"
SESSIONS = 5  # of the one who lists them
KEPT_FOR = 30 * 86400


class RefreshBody(BaseModel):
    refresh_token: str


async def prepared(
    variant: str, *, data: Path, database: str | None
) -> tuple[FastAPI, dict[str, str] | list[dict[str, str]]]:
    """`HS256`, or `ES256` as we sign; `refresh` and `sessions`: with a table, ES256."""
    del database
    algorithm = "HS256" if variant == "HS256" else "ES256"
    private: Any = "a secret of at least thirty-two bytes, for HS256"
    public: Any = private
    if algorithm == "ES256":
        private = ec.generate_private_key(ec.SECP256R1())
        public = private.public_key()
    app = FastAPI()
    scheme = OAuth2PasswordBearer(tokenUrl="token")

    async def current_user(token: Annotated[str, Depends(scheme)]) -> str:
        try:
            claims = jwt.decode(
                token, public, algorithms=[algorithm], issuer=ISSUER, audience="watchword"
            )
        except jwt.InvalidTokenError:
            raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"}) from None
        return str(claims["sub"])

    def access_token() -> str:
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": "watchword",
            "sub": ADA,
            "jti": secrets.token_hex(13),
            "iat": now,
            "exp": now + 86400,
        }
        return jwt.encode(claims, private, algorithm=algorithm)

    if variant in {"refresh", "sessions"}:
        tokens = await _with_a_table(app, data, access_token, current_user)

        @app.get("/hello")
        async def hello_open() -> dict[str, str]:
            return {"hello": "world"}

        if variant == "refresh":
            return app, [posted(refresh_token=token) for token in tokens]
    else:

        @app.get("/hello")
        async def hello(user: Annotated[str, Depends(current_user)]) -> dict[str, str]:
            return {"hello": "world" if user else ""}

    return app, {"Authorization": f"Bearer {access_token()}"}


async def _with_a_table(app: FastAPI, data: Path, access_token: Any, current_user: Any) -> Any:
    """Refresh tokens in rows: each is used once; and a list of those somebody has."""
    from sqlalchemy import delete, event, select  # noqa: PLC0415  the guards do without
    from sqlalchemy.ext.asyncio import (  # noqa: PLC0415
        AsyncSession,
        async_sessionmaker,
        create_async_engine,
    )
    from sqlalchemy.orm import (  # noqa: PLC0415
        DeclarativeBase,
        Mapped,
        MappedAsDataclass,
        mapped_column,
    )

    class Base(MappedAsDataclass, DeclarativeBase):
        pass

    class Row(Base):
        __tablename__ = "refresh_token"
        digest: Mapped[str] = mapped_column(primary_key=True)
        user_id: Mapped[str] = mapped_column(index=True)
        user_agent: Mapped[str]
        expires_at: Mapped[int]

    engine = create_async_engine(f"sqlite+aiosqlite:///{data / 'by-hand.db'}")

    @event.listens_for(engine.sync_engine, "connect")
    def pragmas(connection: Any, _: Any) -> None:  # as ours sets them
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA busy_timeout=30000")
        cursor.close()

    maker = async_sessionmaker(engine, expire_on_commit=False)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)

    async def session() -> AsyncIterator[AsyncSession]:
        async with maker() as opened:
            yield opened

    def fresh(user_id: str) -> tuple[str, Row]:
        token = secrets.token_urlsafe(32)
        digest = hashlib.sha256(token.encode()).hexdigest()
        row = Row(
            digest=digest,
            user_id=user_id,
            user_agent="benchmarks",
            expires_at=int(time.time()) + KEPT_FOR,
        )
        return token, row

    @app.post("/auth/refresh")
    async def refresh(
        body: RefreshBody, opened: Annotated[AsyncSession, Depends(session)]
    ) -> dict[str, str]:
        digest = hashlib.sha256(body.refresh_token.encode()).hexdigest()
        taken = delete(Row).where(Row.digest == digest).returning(Row.user_id, Row.expires_at)
        found = (await opened.execute(taken)).one_or_none()
        if found is None or found.expires_at <= time.time():
            raise HTTPException(401)
        token, row = fresh(found.user_id)
        opened.add(row)
        await opened.commit()
        return {"access_token": access_token(), "refresh_token": token, "token_type": "bearer"}

    @app.get("/auth/sessions")
    async def listed(
        user: Annotated[str, Depends(current_user)],
        opened: Annotated[AsyncSession, Depends(session)],
    ) -> list[dict[str, Any]]:
        rows = await opened.scalars(select(Row).where(Row.user_id == user).limit(50))
        return [{"user_agent": row.user_agent, "expires_at": row.expires_at} for row in rows]

    tokens: list[str] = []
    async with maker() as opened:
        for number in range(CONNECTIONS + SESSIONS):
            token, row = fresh(ADA if number < SESSIONS else f"p{number}")
            opened.add(row)
            if number >= SESSIONS:
                tokens.append(token)
        await opened.commit()
    return tokens

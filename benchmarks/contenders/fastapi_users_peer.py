"""fastapi-users as its documentation has it: SQLAlchemy over aiosqlite, either strategy."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, FastAPI
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin
from fastapi_users.authentication import AuthenticationBackend, BearerTransport, JWTStrategy
from fastapi_users.authentication.strategy.db import DatabaseStrategy
from fastapi_users.password import PasswordHelper
from fastapi_users_db_sqlalchemy import SQLAlchemyBaseUserTableUUID, SQLAlchemyUserDatabase
from fastapi_users_db_sqlalchemy.access_token import (
    SQLAlchemyAccessTokenDatabase,
    SQLAlchemyBaseAccessTokenTableUUID,
)
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

PEOPLE = 32
PASSWORD = "correct horse battery staple"
SECRET = "a secret of at least thirty-two bytes, for HS256"


class Base(DeclarativeBase):
    pass


class User(SQLAlchemyBaseUserTableUUID, Base):
    pass


class AccessToken(SQLAlchemyBaseAccessTokenTableUUID, Base):
    pass


class UserManager(UUIDIDMixin, BaseUserManager[User, uuid.UUID]):
    reset_password_token_secret = SECRET
    verification_token_secret = SECRET


async def prepared(
    variant: str, *, data: Path, database: str | None
) -> tuple[FastAPI, dict[str, str] | list[dict[str, str]]]:
    """`jwt` or `database`: how tokens are told; `signin`: people who can sign in.

    There is no refresh, and no list of sessions.
    """
    del database
    engine = create_async_engine(f"sqlite+aiosqlite:///{data / 'users.db'}")
    maker = async_sessionmaker(engine, expire_on_commit=False)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)

    async def session() -> AsyncIterator[AsyncSession]:
        async with maker() as found:
            yield found

    async def user_db(
        session: Annotated[AsyncSession, Depends(session)],
    ) -> AsyncIterator[Any]:
        yield SQLAlchemyUserDatabase(session, User)

    async def token_db(
        session: Annotated[AsyncSession, Depends(session)],
    ) -> AsyncIterator[Any]:
        yield SQLAlchemyAccessTokenDatabase(session, AccessToken)

    async def manager(user_db: Annotated[Any, Depends(user_db)]) -> AsyncIterator[UserManager]:
        yield UserManager(user_db)

    def jwt_strategy() -> Any:
        return JWTStrategy(secret=SECRET, lifetime_seconds=86400)

    def database_strategy(tokens: Annotated[Any, Depends(token_db)]) -> Any:
        return DatabaseStrategy(tokens, lifetime_seconds=86400)

    strategy = database_strategy if variant == "database" else jwt_strategy
    backend: Any = AuthenticationBackend(
        name="bearer",
        transport=BearerTransport(tokenUrl="auth/login"),
        get_strategy=strategy,
    )
    users: Any = FastAPIUsers[User, uuid.UUID](manager, [backend])
    current = users.current_user(active=True)
    app = FastAPI()
    app.include_router(users.get_auth_router(backend), prefix="/auth")

    if variant == "signin":

        @app.get("/hello")
        async def hello() -> dict[str, str]:
            return {"hello": "world"}

    else:

        @app.get("/hello")
        async def hello_user(user: Annotated[User, Depends(current)]) -> dict[str, str]:
            return {"hello": "world" if user.id else ""}

    token = ""
    people = [f"p{number}@example.com" for number in range(PEOPLE)]
    hashed = await asyncio.to_thread(PasswordHelper().hash, PASSWORD)
    async with maker() as opened:
        for email in people:
            user = await SQLAlchemyUserDatabase(opened, User).create(
                {"email": email, "hashed_password": hashed, "is_verified": True}
            )
            if not token and variant == "database":
                tokens = SQLAlchemyAccessTokenDatabase(opened, AccessToken)
                token = await database_strategy(tokens).write_token(user)
            elif not token:
                token = await jwt_strategy().write_token(user)
    if variant == "signin":
        forms = [urlencode({"username": email, "password": PASSWORD}) for email in people]
        return app, [{"type": "application/x-www-form-urlencoded", "body": form} for form in forms]
    return app, {"Authorization": f"Bearer {token}"}

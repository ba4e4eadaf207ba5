"""Where servers keep what they know: a database, and perhaps sessions apart from it."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.victim import environment
from watchword import Watchword
from watchword.features.sessions import Session, sessions
from watchword.kernel.events import Events
from watchword.kernel.feature import Feature
from watchword.presets import standard
from watchword.starting import driver_of
from watchword.storage.record import schema_of
from watchword.storage.store import Store

KINDS = ("sqlite", "postgresql", "mongodb", "postgresql-redis")


@dataclass(frozen=True, kw_only=True)
class Place:
    """One kind of store, empty at first."""

    name: str
    database: str
    sessions: str | None = None  # where they are kept apart

    @property
    def is_transactional(self) -> bool:
        """May several of its rows commit together?"""
        return not self.database.startswith("mongodb")

    def environment(self, mails: Path, **more: str) -> dict[str, str]:
        """What a server over it is started with."""
        if self.sessions is not None:
            more["WATCHWORD_SESSIONS__STORE"] = self.sessions
        return environment(self.database, mails, **more)

    def features(self) -> list[Feature[Any]]:
        """The standard features, over this place."""
        kept = [each for each in standard() if each.name != "sessions"]
        return [sessions(store=self.sessions), *kept]

    @asynccontextmanager
    async def store(self) -> AsyncGenerator[Store, None]:
        """The rows themselves, for somebody who only looks."""
        async with AsyncExitStack() as closing:
            main = driver_of(self.database)
            closing.push_async_callback(main.close)
            apart = {}
            if self.sessions is not None:
                apart[schema_of(Session).name] = driver_of(self.sessions)
                closing.push_async_callback(apart[schema_of(Session).name].close)
            yield Store(driver=main, events=Events(), realm="main", apart=apart)

    @asynccontextmanager
    async def operator(self, environ: dict[str, str]) -> AsyncGenerator[Watchword, None]:
        """An App in this process, as the command line has one: it serves nobody."""
        auth = Watchword(served=True, environ=environ)
        async with auth.running(background=False):
            yield auth

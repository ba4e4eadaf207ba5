"""`watchword lockout`: seeing who waits, and letting them in."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.cli.command import Folder
from tests.features.lockout.guessing import HERE, THERE, attempt, fail, guarded, lock
from tests.told import ADA, EVE, PASSWORD, Story, telling
from watchword.crypto.keys import generate_secret
from watchword.presets import standard

SECRET = generate_secret()
CORE: dict[str, Any] = {"secret": SECRET}


def run(folder: Folder, url: str, *arguments: str, code: int = 0, secret: bool = True) -> str:
    environ = {"WATCHWORD_SECRET": SECRET.reveal()} if secret else {}
    done = folder.run("lockout", *arguments, "--database", url, **environ)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


def shown(folder: Folder, url: str, *arguments: str) -> set[tuple[str, int]]:
    """What failures count at, and how many."""
    listed = json.loads(run(folder, url, "show", *arguments, "--json"))
    return {(each["what"], each["failures"]) for each in listed["items"]}


@pytest.mark.capability("S3-06", "S3-19")
def test_an_operator_sees_who_waits_and_lets_them_in(folder: Folder) -> None:
    url = f"sqlite:///{folder.path / 'app.db'}"

    async def begin() -> None:
        async with guarded(url, core=CORE) as story:
            await lock(story)
            await fail(story, 2, at=THERE)

    asyncio.run(begin())
    assert shown(folder, url, ADA.upper(), "--address", HERE) == {("pair", 5)}
    assert shown(folder, url, ADA) == {("pair", 2), ("pair", 5), ("account", 7)}
    assert shown(folder, url, "--address", THERE) == {("address", 2), ("pair", 2)}
    listed = json.loads(run(folder, url, "show", ADA, "--address", HERE, "--json"))
    (pair,) = listed["items"]
    assert datetime.fromisoformat(pair["until"]) < datetime.now(UTC) + timedelta(minutes=1)
    page = json.loads(run(folder, url, "show", "--json", "--limit", "3"))
    rest = json.loads(run(folder, url, "show", "--json", "--after", page["next"]))
    assert len(page["items"]) + len(rest["items"]) == 5
    table = run(folder, url, "show")
    assert "pair" in table
    assert ADA not in table
    assert HERE not in table

    run(folder, url, "clear", ADA, "--address", HERE)
    assert shown(folder, url, ADA) == {("pair", 2), ("account", 7)}
    assert ADA in run(folder, url, "clear", ADA)
    assert shown(folder, url, ADA) == set()
    run(folder, url, "clear", "--address", HERE)
    assert shown(folder, url) == {("address", 2)}
    assert "No failures" in run(folder, url, "show", EVE)


@pytest.mark.capability("S3-06")
def test_clearing_resets_the_limits_too_so_that_one_gets_in(folder: Folder) -> None:
    url = f"sqlite:///{folder.path / 'app.db'}"
    options = {"features": standard(), "trusted_proxies": ["127.0.0.1"], **CORE}

    async def at_the_door(story: Story) -> int:
        return (await attempt(story, PASSWORD)).status_code

    async def begin() -> int:
        async with telling(url, **options) as story:
            await story.join()
            await fail(story, 5)
            return await at_the_door(story)

    async def again() -> int:
        async with telling(url, **options) as story:
            return await at_the_door(story)

    assert asyncio.run(begin()) == 429
    listed = json.loads(run(folder, url, "show", ADA, "--address", HERE, "--json"))
    assert "login" in {each["action"] for each in listed["limits"]}
    run(folder, url, "clear", ADA, "--address", HERE)
    assert asyncio.run(again()) == 200


def test_what_cannot_be_asked_is_said(folder: Folder) -> None:
    url = f"sqlite:///{folder.path / 'app.db'}"

    async def begin() -> None:
        async with guarded(url, core=CORE):
            pass

    asyncio.run(begin())
    assert "name an EMAIL" in run(folder, url, "clear", code=2)
    said = run(folder, url, "show", ADA, code=2, secret=False)
    assert "secret" in said

"""`watchword keys`: what it prints and refuses."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from tests.cli.command import Done, Folder
from tests.told import Watchword, telling
from watchword.crypto.keys import generate_secret
from watchword.features.keys import StoredKey
from watchword.storage.store import Paging, where


@pytest.fixture
def url(folder: Folder) -> str:
    return f"sqlite:///{folder.path / 'app.db'}"


@pytest.fixture
def secret() -> str:
    return generate_secret().reveal()


def within(url: str, secret: str, *, older: timedelta = timedelta(0)) -> list[tuple[str, str]]:
    """Start an App over it; kid and state of each key. `older`: as if all happened before."""

    async def look() -> list[tuple[str, str]]:
        async with telling(url, secret=secret) as story:
            store = story.auth.store
            page = await store.find(StoredKey, Paging(order=("purpose", "kid")))
            for row in page.items:
                if row.since is not None:
                    await store.update(StoredKey, where(kid=row.kid), since=row.since - older)
            return [(row.kid, row.state) for row in await story.auth.keys.ring()]

    return asyncio.run(look())


def listed(folder: Folder, url: str) -> list[dict[str, Any]]:
    done = folder.run("keys", "list", "--json", "--database", url)
    assert done.returncode == 0, done.stderr
    items: list[dict[str, Any]] = json.loads(done.stdout)["items"]
    return items


def told(done: Done) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.capability("S1-31")
@pytest.mark.invariant("I-16")
def test_a_key_is_published_then_signs_and_the_former_is_retired(
    folder: Folder, url: str, secret: str
) -> None:
    ((first, _),) = within(url, secret)
    rotate = ("keys", "rotate", "--database", url)
    said = told(folder.run(*rotate, WATCHWORD_SECRET=secret))
    assert f"{first} still signs" in said
    active, coming = listed(folder, url)
    assert (active["kid"], active["state"], active["algorithm"]) == (first, "active", "ES256")
    assert coming["state"] == "next"
    assert coming["kid"] in said
    assert coming["changes_at"] in said  # when it may sign
    assert active["changes_at"] > coming["changes_at"]  # in a month

    within(url, secret, older=timedelta(minutes=6))
    said = told(folder.run(*rotate, WATCHWORD_SECRET=secret))
    assert f"{coming['kid']} signs now" in said
    active, retired = listed(folder, url)
    assert (retired["kid"], retired["state"]) == (first, "retired")
    assert retired["verifies_until"] is not None
    table = folder.run("keys", "list", "--database", url).stdout
    for each in (active, retired):
        assert each["kid"] in table
        assert each["state"] in table

    refused = folder.run("keys", "retire", active["kid"], "--database", url)
    assert refused.returncode == 1
    assert "rotate" in refused.stderr
    assert folder.run("keys", "retire", "nobody", "--database", url).returncode == 1
    said = told(folder.run("keys", "retire", first, "--database", url))
    assert retired["verifies_until"] in said
    revoke = ("keys", "retire", first, "--compromised", "--database", url)
    assert "verifies nothing" in told(folder.run(*revoke, WATCHWORD_SECRET=secret))
    assert [each["state"] for each in listed(folder, url)] == ["active", "revoked"]


@pytest.mark.invariant("I-16")
def test_a_compromised_key_is_revoked_and_a_fresh_one_signs_at_once(
    folder: Folder, url: str, secret: str
) -> None:
    ((first, _),) = within(url, secret)
    done = folder.run("keys", "rotate", "--compromised", "--database", url, WATCHWORD_SECRET=secret)
    assert "signs now" in told(done)
    (fresh, _), revoked = within(url, secret)
    assert fresh in done.stdout
    assert revoked == (first, "revoked")


@pytest.mark.invariant("I-17")
@pytest.mark.parametrize("command", [("rotate",), ("rotate", "--compromised")])
def test_no_key_is_sealed_under_a_secret_that_is_not_the_servers(
    folder: Folder, url: str, secret: str, command: tuple[str, ...]
) -> None:
    before = within(url, secret)
    arguments = ("keys", *command, "--database", url)
    without = folder.run(*arguments)
    assert without.returncode == 2
    assert "WATCHWORD_SECRET" in without.stderr
    wrong = folder.run(*arguments, WATCHWORD_SECRET=generate_secret().reveal())
    assert wrong.returncode == 2
    assert "WATCHWORD_OLD_SECRETS" in wrong.stderr
    for done in (without, wrong):
        assert "Traceback" not in done.stderr
        assert "signs now" not in done.stdout
    assert within(url, secret) == before
    assert not (folder.path / ".watchword").exists()  # none was made either


@pytest.mark.invariant("I-17", "I-22")
def test_the_secret_that_serve_keeps_in_its_folder_is_found(folder: Folder) -> None:
    data = folder.path / "things"
    data.mkdir()
    secret = generate_secret().reveal()
    (data / "secret").write_text(secret)
    (data / "secret").chmod(0o600)
    url = f"sqlite:///{data / 'watchword.db'}"
    within(url, secret)
    done = folder.run("keys", "rotate", "--compromised", "--data", "things")
    assert "signs now" in told(done)
    assert [state for _, state in within(url, secret)] == ["active", "revoked"]
    (data / "secret").chmod(0o644)  # others may have read it
    assert folder.run("keys", "rotate", "--data", "things").returncode == 2


def test_a_key_from_settings_is_changed_there(folder: Folder, url: str, secret: str) -> None:
    shared = generate_secret().reveal()
    environ = {"WATCHWORD_KEYS__SECRET": shared}

    async def start() -> None:
        auth = Watchword(url, environment="development", secret=secret, environ=environ)
        async with auth.running(background=False):
            assert auth.keys.active().algorithm == "HS256"

    asyncio.run(start())
    options = {"WATCHWORD_SECRET": secret, **environ}
    done = folder.run("keys", "rotate", "--database", url, **options)
    assert done.returncode == 1
    assert "comes from settings" in done.stderr
    assert shared not in done.stderr

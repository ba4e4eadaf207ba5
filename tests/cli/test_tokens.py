"""`watchword tokens` and `watchword token`."""

import asyncio
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.cli.command import Folder
from tests.told import telling
from watchword.crypto.keys import generate_secret
from watchword.features.sessions import Session
from watchword.storage.store import Paging


@pytest.mark.capability("S1-34")
def test_purge_says_what_it_deleted(folder: Folder) -> None:
    url = f"sqlite:///{folder.path / 'app.db'}"

    async def fill() -> None:
        async with telling(url, environment="development") as story:
            await story.join()
            await story.log_in()
            page = await story.auth.store.find(Session, Paging(order=("id",)))
            past = datetime.now(UTC) - timedelta(days=1)
            for number in range(1200):
                gone = replace(page.items[0], id=f"{number:026}", delete_at=past)
                await story.auth.store.insert(replace(gone, refresh_family=None))

    def left() -> int:
        with closing(sqlite3.connect(folder.path / "app.db")) as connection:
            return connection.execute("SELECT count(*) FROM watchword_session").fetchone()[0]

    asyncio.run(fill())
    done = folder.run("tokens", "purge", "--database", url)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["1,200", "session"] in lines
    assert left() == 1
    again = folder.run("tokens", "purge", "--database", url)
    assert again.stdout.splitlines()[-1].split() == ["0", "deleted", "in", "all"]


@pytest.mark.capability("S1-42", "S0-26")
def test_inspecting_a_token_names_what_is_wrong_with_it(folder: Folder) -> None:
    secret, site = generate_secret(), "https://accounts.example.com"
    url = f"sqlite:///{folder.path / 'app.db'}"
    environ = {
        "WATCHWORD_SECRET": secret.reveal(),
        "WATCHWORD_PUBLIC_URL": site,
        "WATCHWORD_DATABASE": url,
    }

    async def fill() -> dict[str, str]:
        async with telling(url, secret=secret, public_url=site) as story:
            await story.join()
            good, gone = await story.log_in(), await story.log_in()
            await story.auth.tokens.revoke(gone["access_token"], why="laptop stolen")
            return {
                "good": good["access_token"],
                "gone": gone["access_token"],
                "refresh": good["refresh_token"],
            }

    held = asyncio.run(fill())
    taken = folder.run("token", "inspect", stdin=held["good"] + "\n", **environ)
    assert taken.returncode == 0, taken.stderr
    lines = [line.split() for line in taken.stdout.splitlines()]
    assert ["typ", "passed", "at+jwt"] in lines
    assert taken.stdout.endswith("It is taken.\n")

    for name, word in (("gone", "session: "), ("refresh", "form: a refresh token")):
        refused = folder.run("token", "inspect", "-", stdin=f"Bearer {held[name]}", **environ)
        assert refused.returncode == 1
        assert f"It is refused: {word}" in refused.stdout
        assert held[name][-43:] not in refused.stdout + refused.stderr  # signature, or secret
    assert "laptop stolen" in folder.run("token", "inspect", held["gone"], **environ).stdout

    told = folder.run("token", "inspect", "--json", stdin=held["gone"], **environ)
    assert told.returncode == 1
    answer = json.loads(told.stdout)
    assert (answer["accepted"], answer["failing"]) == (False, "session")
    assert [each["verdict"] for each in answer["checks"]].count("failed") == 1

    elsewhere = {**environ, "WATCHWORD_PUBLIC_URL": "https://other.example.com"}
    wrong = folder.run("token", "inspect", stdin=held["good"], **elsewhere)
    assert "It is refused: iss: " in wrong.stdout
    unnamed = {name: value for name, value in environ.items() if name != "WATCHWORD_PUBLIC_URL"}
    nobody = folder.run("token", "inspect", stdin=held["good"], **unnamed)
    assert nobody.returncode == 0, nobody.stdout + nobody.stderr
    assert "iss was compared with nothing" in nobody.stdout

    assert folder.run("token", "inspect", stdin="", **environ).returncode == 2
    keyless = {"WATCHWORD_DATABASE": url}
    unable = folder.run("token", "inspect", stdin=held["good"], **keyless)
    assert unable.returncode == 2
    assert "needs the secret" in unable.stderr

"""`watchword api-keys` and `watchword services`."""

import asyncio
import json
from pathlib import Path

import pytest
from fastapi import FastAPI

from tests.cli.command import Folder
from tests.told import ADA, problem, telling
from watchword import CurrentPrincipal, CurrentUser, requires
from watchword.crypto.keys import generate_secret
from watchword.testing.story import bearer

SECRET = generate_secret()
SITE = "https://reports.example.com"


def url_of(folder: Folder) -> str:
    return f"sqlite:///{folder.path / 'app.db'}"


def reporting() -> FastAPI:
    app = FastAPI()

    @app.get("/keyed", dependencies=[requires(accepts=("api_key",))])
    async def keyed(user: CurrentUser) -> str:
        return user.email

    @app.get("/called", dependencies=[requires(accepts=("service",), scope="figures:read")])
    async def called(principal: CurrentPrincipal) -> str:
        return principal.id

    return app


def status(url: str, path: str, credential: str) -> int:
    """What a server of this database answers to a credential."""

    async def ask() -> int:
        options = {"secret": SECRET, "public_url": SITE, "audience": "reports"}
        async with telling(url, app=reporting(), **options) as story:
            answer = await story.client.get(path, headers=bearer(credential))
            if answer.status_code == 401:
                problem(answer, 401, "revoked_token")
            return answer.status_code

    return asyncio.run(ask())


@pytest.mark.capability("S3-23")
def test_an_operator_lists_and_ends_a_users_keys(folder: Folder) -> None:
    url = url_of(folder)

    async def make() -> list[str]:
        async with telling(url, secret=SECRET, public_url=SITE) as story:
            await story.register()
            user = await story.auth.users.find(ADA)
            made = [
                await story.auth.api_keys.create(user, name=name, scopes=["reports:read"])
                for name in ("nightly", "desk")
            ]
            return [issued.key.reveal() for issued in made]

    keys = asyncio.run(make())
    for key in keys:
        assert status(url, "/keyed", key) == 200
    done = folder.run("api-keys", "list", ADA, "--database", url, "--json")
    assert done.returncode == 0, done.stderr
    items = {item["name"]: item for item in json.loads(done.stdout)["items"]}
    assert set(items) == {"nightly", "desk"}
    table = folder.run("api-keys", "list", ADA, "--database", url)
    assert f"wwk_{items['desk']['hint']}" in table.stdout
    first = folder.run("api-keys", "list", ADA, "--database", url, "--limit", "1")
    assert "--after" in first.stderr
    for said in (done, table):
        assert not any(key[8:] in said.stdout for key in keys)
    ended = folder.run("api-keys", "end", items["desk"]["id"], "--database", url)
    assert ended.returncode == 0, ended.stderr
    assert [status(url, "/keyed", key) for key in keys] == [200, 401]
    for wrong in (items["desk"]["id"], "unknown"):
        again = folder.run("api-keys", "end", wrong, "--database", url)
        assert again.returncode == 1
        assert "api_key_not_found" in again.stderr


@pytest.mark.capability("S1-20")
def test_an_operator_adds_a_service_gets_its_token_and_ends_it(folder: Folder) -> None:
    url = url_of(folder)
    where = ("--database", url)
    named = ("billing", "--audience", "reports")
    added = folder.run("services", "add", *named, "--scope", "figures:read", *where)
    assert added.returncode == 0, added.stderr
    twice = folder.run("services", "add", *named, *where)
    assert twice.returncode == 1
    assert "service_already_exists" in twice.stderr
    listed = folder.run("services", "list", *where, "--json")
    (item,) = json.loads(listed.stdout)["items"]
    assert (item["name"], item["audiences"]) == ("billing", ["reports"])

    signing = {"WATCHWORD_SECRET": SECRET.reveal(), "WATCHWORD_PUBLIC_URL": SITE}
    for missing in signing:  # nothing is made up: a token of another key or issuer is nobody's
        left = {name: value for name, value in signing.items() if name != missing}
        refused = folder.run("services", "token", *named, *where, **left)
        assert refused.returncode == 2
        assert missing in refused.stderr
    wrong = folder.run("services", "token", *named, *where, "--ttl", "60", **signing)
    assert wrong.returncode == 2
    long = folder.run("services", "token", *named, *where, "--ttl", "25h", **signing)
    assert long.returncode == 1
    assert "ttl_limited" in long.stderr
    done = folder.run("services", "token", *named, *where, "--ttl", "15m", **signing)
    assert done.returncode == 0, done.stderr
    token = done.stdout.strip()
    assert status(url, "/called", token) == 200

    ended = folder.run("services", "end", "billing", *where)
    assert ended.returncode == 0, ended.stderr
    assert status(url, "/called", token) == 401
    gone = folder.run("services", "token", *named, *where, **signing)
    assert gone.returncode == 1
    assert "service_not_found" in gone.stderr
    table = folder.run("services", "list", *where)
    assert "billing" in table.stdout


def test_an_app_without_them_says_what_to_add(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "bare_of_keys.py").write_text(
        "from watchword.presets import Watchword, minimal\n"
        'app = Watchword("sqlite:///app.db", environment="development",'
        f' secret="{SECRET.reveal()}", features=minimal())\n'
    )
    for command, feature in (
        (("api-keys", "end", "x"), "api_keys()"),
        (("services", "add", "x", "--audience", "y"), "services()"),
    ):
        (tmp_path / "app.db").touch()
        done = folder.run(*command, "--app", "bare_of_keys:app")
        assert done.returncode == 2, done.stderr
        assert feature in done.stderr

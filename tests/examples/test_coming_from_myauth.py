"""An app that comes from MyAuth keeps its values and passes its rows."""

import importlib.util
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from types import ModuleType
from typing import Any

import jwt
import pytest

from watchword import ConfigurationError
from watchword.crypto.keys import generate_secret
from watchword.testing import Story, telling

EXAMPLE = Path(__file__).parents[2] / "examples" / "coming_from_myauth"
PASSWORD = "Correct-horse-1"
ADA = "ada@example.com"

pytestmark = pytest.mark.real_cost


@pytest.fixture
def myauth(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The example, started as its README says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WATCHWORD_ENVIRONMENT", "development")
    monkeypatch.setenv("JWT_SECRET", generate_secret().reveal())
    return loaded()


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coming_from_myauth", EXAMPLE / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def telling_of(
    myauth: ModuleType, database: str = "sqlite://", secret: str | None = None, **theirs: str
) -> AsyncGenerator[Story]:
    options: dict[str, Any] = {} if secret is None else {"secret": secret}
    async with telling(database, features=myauth.features_from(theirs), **options) as story:
        yield story


async def register(story: Story, email: str = ADA, username: str = "ada") -> dict[str, Any]:
    answer = await story.register(email, PASSWORD, username=username)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_its_readme_names_every_setting_that_it_reads() -> None:
    text, code = ((EXAMPLE / name).read_text("utf-8") for name in ("README.md", "app.py"))
    for name in (
        "JWT_SECRET",
        "JWT_ALGORITHM",
        "ACCESS_TOKEN_EXPIRE_MINUTES",
        "DB_PATH",
        "DB_HOST",
    ):
        assert name in text
        assert name in code


def test_it_boots_with_their_values(myauth: ModuleType) -> None:
    settings = {each.key: each.value for each in myauth.auth.settings}
    expected = {
        "tokens.access_ttl": "30m",
        "tokens.refresh_ttl": "7d",
        "recovery.ttl": "15m",
        "passwords.hash_scheme": "bcrypt",
        "passwords.bcrypt_rounds": "12",
        "passwords.min_length": "8",
        "keys.algorithm": "HS256",
        "database": "sqlite:///auth.db",
    }
    assert {key: settings[key] for key in expected} == expected


def test_their_names_for_databases_and_mail_servers(myauth: ModuleType) -> None:
    theirs = {"DB_HOST": "db", "DB_NAME": "auth", "DB_USER": "ada", "DB_PASSWORD": "p@ss"}
    assert myauth.database_from(theirs) == "postgresql://ada:p%40ss@db:5432/auth"
    theirs = {"SMTP_HOST": "mail", "SMTP_USERNAME": "a@b", "SMTP_PASSWORD": "x"}
    assert myauth.mail_from(theirs) == {"url": "smtp://a%40b@mail:587", "password": "x"}


@pytest.mark.capability("S2-17")
def test_without_a_secret_it_is_not_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WATCHWORD_ENVIRONMENT", "development")
    monkeypatch.delenv("JWT_SECRET", raising=False)
    with pytest.raises(ConfigurationError, match="secret"):
        loaded()


@pytest.mark.capability("S2-17")
@pytest.mark.parametrize("algorithm", ["HS256", "RS256"])
async def test_the_header_follows_the_setting(myauth: ModuleType, algorithm: str) -> None:
    async with telling_of(myauth, JWT_ALGORITHM=algorithm) as story:
        await register(story)
        token = (await story.log_in(ADA, PASSWORD))["access_token"]
        assert jwt.get_unverified_header(token)["alg"] == algorithm


@pytest.mark.capability("S2-02", "S2-03", "S2-04", "S2-11")
async def test_register_sign_in_and_who_am_i(myauth: ModuleType) -> None:
    async with telling_of(myauth) as story:
        user = await register(story, "Ada@EXAMPLE.com")
        assert user["email"] == "Ada@example.com"
        twin = await register(story, "eve@example.com", "ada")  # a name is nobody's own
        assert twin["username"] == user["username"]
        taken = await story.register(ADA.upper(), PASSWORD, username="other")
        assert (taken.status_code, taken.json()["code"]) == (409, "user_already_exists")
        nameless = await story.register("eva@example.com", PASSWORD)
        assert nameless.status_code == 422

        tokens = await story.log_in(ADA, PASSWORD)
        me = (await story.me(tokens["access_token"])).json()
        assert set(me) == {
            *("id", "email", "username", "roles", "user_settings"),
            *("is_verified", "is_active", "created_at", "updated_at"),
        }
        assert (me["roles"], me["user_settings"], me["is_active"]) == ([], {}, True)
        assert isinstance(me["id"], str)
        refusals = [
            await story.client.post("/auth/login", json={"email": email, "password": password})
            for email, password in ((ADA, "Wrong-horse-1"), ("nobody@example.com", PASSWORD))
        ]
        for refusal in refusals:
            assert refusal.status_code == 401
            assert refusal.json()["code"] == "invalid_credentials"


@pytest.mark.capability("S2-05", "S2-06")
async def test_refresh_and_sign_out(myauth: ModuleType) -> None:
    async with telling_of(myauth) as story:
        await register(story)
        tokens = await story.log_in(ADA, PASSWORD)
        body = {"refresh_token": tokens["refresh_token"]}
        fresh = (await story.client.post("/auth/refresh", json=body)).json()
        assert fresh["access_token"] != tokens["access_token"]
        assert (await story.me(fresh["access_token"])).status_code == 200
        body = {"refresh_token": fresh["refresh_token"]}
        assert (await story.client.post("/auth/logout", json=body)).status_code == 204
        assert (await story.client.post("/auth/refresh", json=body)).status_code == 401


@pytest.mark.capability("S2-08", "S2-14")
async def test_a_forgotten_password(myauth: ModuleType) -> None:
    async with telling_of(myauth) as story:
        await register(story)
        await story.verify(ADA, PASSWORD)
        tokens = await story.log_in(ADA, PASSWORD)
        asked = [
            await story.client.post("/auth/password-reset-request", json={"email": email})
            for email in (ADA, "nobody@example.com")
        ]
        assert [(a.status_code, a.content) for a in asked] == [(202, asked[0].content)] * 2
        await story.mails()
        token = story.outbox.token(ADA, "wwp")
        body = {"refresh_token": token}
        assert (await story.client.post("/auth/refresh", json=body)).status_code == 401
        story.move(minutes=14)
        reset = {"token": token, "new_password": "Another-horse-2"}
        assert (await story.client.post("/auth/password-reset", json=reset)).status_code == 204
        assert (await story.client.post("/auth/password-reset", json=reset)).status_code == 401
        assert (await story.me(tokens["access_token"])).status_code == 401
        await story.log_in(ADA, "Another-horse-2")

        await story.client.post("/auth/password-reset-request", json={"email": ADA})
        await story.mails()
        reset["token"] = story.outbox.token(ADA, "wwp")
        story.move(minutes=15, seconds=1)
        late = await story.client.post("/auth/password-reset", json=reset)
        assert late.status_code == 401


@pytest.mark.capability("S2-09", "S2-10")
async def test_an_address_is_verified_and_an_old_mail_is_worth_nothing(
    myauth: ModuleType,
) -> None:
    async with telling_of(myauth) as story:
        await register(story)
        await story.mails()
        asked = await story.client.post("/auth/verify-email-request", json={"email": ADA})
        assert asked.status_code == 202
        before = len(story.outbox.to(ADA))
        await story.mails()
        assert len(story.outbox.to(ADA)) == before + 1
        body = {"token": story.outbox.token(ADA, "wwv"), "password": PASSWORD}
        assert (await story.client.post("/auth/verify-email", json=body)).status_code == 204
        tokens = await story.log_in(ADA, PASSWORD)
        assert tokens["user"]["is_verified"] is True

        await register(story, "eve@example.com", "eve")
        await story.mails()
        old = {"token": story.outbox.token("eve@example.com", "wwv"), "password": PASSWORD}
        tokens = await story.log_in("eve@example.com", PASSWORD)
        bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
        change = {"new_email": "eva@example.com", "current_password": PASSWORD}
        asked = await story.client.post("/auth/email/change", json=change, headers=bearer)
        assert asked.status_code == 202, asked.text
        await story.mails()
        confirm = {"token": story.outbox.token("eva@example.com")}
        done = await story.client.post("/auth/email/confirm", json=confirm, headers=bearer)
        assert done.status_code == 204, done.text
        assert (await story.client.post("/auth/verify-email", json=old)).status_code == 401


def stored_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("auth.db*"))


@pytest.mark.capability("S2-12", "S2-13")
async def test_how_long_tokens_live_and_what_is_stored(myauth: ModuleType, tmp_path: Path) -> None:
    async with telling_of(myauth, f"sqlite:///{tmp_path / 'auth.db'}") as story:
        await register(story)
        tokens = await story.log_in(ADA, PASSWORD)
        claims = jwt.decode(tokens["access_token"], options={"verify_signature": False})
        assert claims["exp"] - claims["iat"] == 1800
        assert tokens["expires_in"] == 1800
        assert tokens["refresh_token"][-43:].encode() not in stored_in(tmp_path)
        story.move(days=7, seconds=1)
        body = {"refresh_token": tokens["refresh_token"]}
        assert (await story.client.post("/auth/refresh", json=body)).status_code == 401


@pytest.mark.capability("S2-15")
@pytest.mark.parametrize(
    ("password", "codes"),
    [
        ("Ab1-", {"password_too_short"}),
        (
            "alllower",
            {"password_missing_upper", "password_missing_digit", "password_missing_symbol"},
        ),
        ("ALLUPPER1-", {"password_missing_lower"}),
    ],
)
async def test_what_a_password_must_be(myauth: ModuleType, password: str, codes: set[str]) -> None:
    async with telling_of(myauth) as story:
        answer = await story.register(ADA, password, username="ada")
        assert answer.status_code == 422
        assert {error["code"] for error in answer.json()["errors"]} == codes


@pytest.mark.capability("S2-16")
async def test_hashes_get_dearer_when_the_rounds_are_raised(
    myauth: ModuleType, tmp_path: Path
) -> None:
    database, secret = tmp_path / "auth.db", generate_secret().reveal()

    def stored() -> str:
        with closing(sqlite3.connect(database)) as connection:
            found: str = connection.execute("SELECT hash FROM watchword_password").fetchone()[0]
            return found

    async with telling_of(myauth, f"sqlite:///{database}", secret) as story:
        await register(story)
    assert stored().startswith("$2b$12$")
    async with telling_of(
        myauth, f"sqlite:///{database}", secret, PASSWORD_HASH_ROUNDS="13"
    ) as story:
        await story.log_in(ADA, PASSWORD)
    assert stored().startswith("$2b$13$")
